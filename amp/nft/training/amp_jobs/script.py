"""Code that runs inside a training job, around Amp's own script: the lines that `directory.script_text` inserts.

``begin`` comes after the header lines, ``prepare`` after the calc_text, and ``align`` before the train line,
or ``fit`` in its place.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from amp.nft.amp_io import QUEUE_VARIABLES
from amp.nft.system import files
from amp.nft.system.liveness import Heartbeat
from amp.nft.system.processes import exit_now
from amp.nft.training.amp_jobs import job_state
from amp.nft.training.amp_jobs.database import share

BEAT = 2.0  # s between two heartbeats
OWN_DESCRIPTORS = ("Gaussian", "Zernike", "Bispectrum")


# -- after the header lines ----------------------------------------------------------------------------------


class Job:
    """Work of one process on one attempt, in the member's directory even after the user's lines change theirs.

    Parameters
    ----------
    token : str
        Identifies the attempt; the driver keeps the valid token in the directory.
    directory : Path
        The member's directory.
    """

    def __init__(self, token: str, directory: Path) -> None:
        self.token, self.directory, self._pid = token, directory, os.getpid()
        self._heartbeat = Heartbeat(directory / job_state.STATE, BEAT)
        self._scratch = tempfile.mkdtemp(prefix="amp-nft-")

    def begin(self) -> None:
        """Show a heartbeat, record how this process ends, and collect temporary files."""
        self._heartbeat.beat(token=self.token)
        sys.excepthook = self._record_exception
        tempfile.tempdir = self._scratch  # Amp leaves each checkpoint that it replaces
        atexit.register(self._clear_scratch)
        signal.signal(signal.SIGTERM, self._record_signal)
        threading.Thread(target=self._beat, daemon=True).start()

    def is_current(self) -> bool:
        """Return True unless the driver has withdrawn or replaced this attempt.

        Returns
        -------
        bool
        """
        return job_state.is_current(self.directory, self.token)

    def note(self, text: str) -> None:
        """Write a line for the driver's log.

        Parameters
        ----------
        text : str
        """
        with open(self.directory / job_state.NOTES, "a") as file:
            file.write(f"{text}\n")

    def _beat(self) -> None:
        pause = threading.Event()
        while self.is_current():
            self._heartbeat.beat(token=self.token)
            pause.wait(BEAT / 2)
        print("amp.nft: this job was given up or replaced; it ends here.", file=sys.stderr, flush=True)
        self._clear_scratch()
        exit_now(3)

    def _record_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        self._record_failure(text)
        sys.stderr.write(text)

    def _record_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        self._record_failure(f"The job was ended by {name} (a queue's time limit, or a kill command)\n")
        self._clear_scratch()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _record_failure(self, text: str) -> None:
        if os.getpid() == self._pid:  # the end of a forked child is not the job's
            files.write(self.directory / job_state.FAILURE, text.encode())

    def _clear_scratch(self) -> None:
        """Remove the directory that this job made; the user's lines may have set `tempfile.tempdir` to another."""
        if os.getpid() == self._pid:
            shutil.rmtree(self._scratch, ignore_errors=True)


def begin(token: str, directory: str) -> None:
    """Begin the work in a member's directory, unless a later attempt has replaced this one.

    Parameters
    ----------
    token : str
        Identifies this attempt; the driver keeps the valid token in the directory.
    directory : str
        The member's directory.
    """
    global _job
    os.chdir(directory)
    if not job_state.is_current(Path(directory), token):
        sys.exit(f"amp.nft: this job was replaced by a later one in {directory}; it ends here.")
    _job = Job(token, Path(directory))
    _job.begin()
    for name in QUEUE_VARIABLES:
        os.environ.pop(name, None)


_job: Job | None = None


# -- after the calc_text -------------------------------------------------------------------------------------


def prepare(calc: Any, seed: int, fresh: bool) -> None:
    """Set file names, one core and a seed, as Amp needs them to train here.

    Parameters
    ----------
    calc : Amp
        The user's calculator.
    seed : int
        For the initial weights, unless the calculator has its own seed.
    fresh : bool
        Start from new random weights, regardless of the calculator's.
    """
    calc.logging = True
    calc.label = "amp"  # opens amp-log.txt
    _use_one_core(calc)
    _do_without_fortran(calc)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - Amp's models draw from it
    model = calc.model
    if getattr(model, "randomseed", 0) is None or (fresh and hasattr(model, "randomseed")):
        model.randomseed = seed
    if fresh:
        trained = {"weights", "scalings", "fprange"} & set(model.parameters)
        model.parameters.update(dict.fromkeys(trained))


def _use_one_core(calc: Any) -> None:
    guess = {"localhost": os.cpu_count()}
    if calc.cores not in (1, guess):
        _note(calc, f"cores={calc.cores} ignored: a job uses one core, since Amp hangs on more with NumPy >= 1.26. "
                    "Members run in parallel instead.")  # fmt: skip
    calc.cores = 1


def _do_without_fortran(calc: Any) -> None:
    if _has_fortran() or not getattr(calc.model, "fortran", False):
        return
    calc.model.fortran = False
    calc.model.lossfunction.parameters["weight_duplicates"] = True  # as Amp's Fortran loss always does
    _note(calc, "Amp's Fortran modules are missing: training in Python, which is hundreds of times slower. "
                "Install gfortran, then reinstall Amp, to get them.")  # fmt: skip
    if calc.model.lossfunction.parameters.get("overfit"):
        _note(calc, "Amp's Python loss does not apply `overfit` to the right parameters.")


def _has_fortran() -> bool:
    try:
        from amp import fmodules  # type: ignore[attr-defined]  # noqa: F401
    except ImportError:
        return False
    return True


def _note(calc: Any, text: str) -> None:
    """Write a line to Amp's log, and to the notes that the driver logs."""
    calc._log(f"amp.nft: {text}")
    if _job is not None:
        _job.note(text)


# -- before the train line -----------------------------------------------------------------------------------


def align(calc: Any, trainfile: str) -> None:
    """Fit the loss function and the databases to this member's images.

    Parameters
    ----------
    calc : Amp
        The user's calculator; the loss function's ``nft_ids`` are those of all members' chunks.
    trainfile : str
        The member's bootstrap sample.
    """
    from amp.utilities import hash_images

    images = hash_images(trainfile)
    loss = calc.model.lossfunction
    n_chunks = _align_nft_ids(loss.parameters, list(images))
    _set_criteria(calc, n_images=len(images), n_energies=len(images) - n_chunks)
    loss.log_losses = True
    if type(calc.descriptor).__name__ in OWN_DESCRIPTORS:
        elements = sorted({symbol for atoms in images.values() for symbol in atoms.symbols})
        share(calc.descriptor, elements, log=calc._log)


def fit(calc: Any, seed: int) -> None:
    """Train the member with the kernels: see `kernel_fit.fit`.

    Parameters
    ----------
    calc : Amp
    seed : int
    """
    from amp.nft.training.amp_jobs import kernel_fit  # imports numba

    kernel_fit.fit(calc, seed)


def _align_nft_ids(parameters: Any, hashes: list[str]) -> int:
    """Set one entry of nft_ids per image, in the images' order; return the number of chunks among them.

    Amp's Fortran loss takes the central atom of image i from entry i of the list, its Python loss from the
    entry with the image's hash. These entries suit both; an image that is not a chunk gets an entry that names no image.
    """
    centres = dict(parameters["nft_ids"] or ())
    chunks = [name in centres for name in hashes]
    aligned = [(name, centres[name]) if name in centres else ("pad", 0) for name in hashes]
    parameters["nft_ids"] = aligned if any(chunks) else None
    return sum(chunks)


def _set_criteria(calc: Any, n_images: int, n_energies: int) -> None:
    """Apply the energy criterion to the images with energies, and give each RMSE a criterion.

    Amp divides the sum of squares by all images, chunks included; its log fails where an RMSE has none.
    """
    criteria = calc.model.lossfunction.parameters["convergence"]
    if criteria.get("force_rmse") is None and criteria.get("force_maxresid") is not None:
        criteria["force_rmse"] = float("inf")
    asked = criteria.get("energy_rmse")
    criteria["energy_rmse"] = float("inf") if asked is None else asked * (n_energies / n_images) ** 0.5
    if asked is not None and n_energies < n_images:
        calc._log(f"amp.nft: {n_energies} of {n_images} images carry energies. Amp's energy RMSE divides by "
                  f"all: the criterion {asked:g} eV/atom is {criteria['energy_rmse']:g} below.")  # fmt: skip
