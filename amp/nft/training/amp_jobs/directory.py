"""Amp's training directory: files in which jobs find their images, chunks and start parameters, and leave their results."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from string import Template

from ase.io import write

from amp.nft.amp_io import check_text
from amp.nft.amp_io.image_hash import image_hash
from amp.nft.records import JobOptions, TrainingTask
from amp.nft.system import processes
from amp.nft.system.trajectories import encode_images, write_encoded
from amp.nft.training.amp_jobs import job_state

LOG = "amp-log.txt"
TRAINED, UNTRAINED, CHECKPOINT = "amp.amp", "amp-untrained-parameters.amp", "amp-checkpoint.amp"
CONVERGED, REPORT, STEP = "converged", "nft-report.json", "nft-step.json"
ALL_IMAGES, TARGETS, TASK = "all.traj", "targets.traj", "task.json"
SETTINGS = "calc_text.py"

# A job that cannot import amp.nft must report that: else it counts as waiting in its queue.
_BEGIN = """

try:
    from {package} import script as nft_job
except BaseException:
    import os, traceback

    with open({failure!r} + ".part", "w") as file:
        file.write(traceback.format_exc())
    os.replace({failure!r} + ".part", {failure!r})  # atomic, for the driver that reads it
    raise
nft_job.begin({token!r}, {directory!r})"""


def script_text(
    options: JobOptions,
    *,
    token: str,
    directory: Path,
    seed: int,
    fresh: bool = False,
    kernels: bool = False,
) -> str:
    """Return Amp's own job script with the user's three texts, and with a line of amp.nft next to each.

    Parameters
    ----------
    options : JobOptions
        With the three texts.
    token : str
        Identifies the attempt.
    directory : Path
        The member's directory.
    seed : int
        For the initial weights.
    fresh : bool
        Start from new random weights, regardless of the calculator's.
    kernels : bool
        Fit with the kernels instead of the train line.

    Returns
    -------
    str
        The content of ``run.py``.

    Raises
    ------
    ValueError
        The three texts do not make a valid script.
    """
    from amp.nft.amp_io.bootstrap_texts import script

    begin = _BEGIN.format(package=__package__, failure=str(directory / job_state.FAILURE), token=token, directory=str(directory))
    text = Template(script).substitute(
        headerlines=options.headerlines + begin,
        calc_text=f"{options.calc_text}\n\nnft_job.prepare(calc, seed={seed}, fresh={fresh})",
        train_line=f"nft_job.fit(calc, seed={seed})" if kernels else f"nft_job.align(calc, trainfile)\n    {options.train_line}",
    )
    try:
        compile(text, "run.py", "exec")
    except SyntaxError as error:
        raise ValueError(
            f"headerlines, calc_text and train_line do not make a valid job script: {error.msg} at "
            f"{(error.text or '').strip()!r}; correct that line"
        ) from error
    return text


class TrainingDirectory:
    """The files of one training.

    Parameters
    ----------
    path : Path
        ``<label>-training``; other files that are there stay.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    def member(self, index: int) -> Path:
        """Return the working directory of a member's jobs.

        Parameters
        ----------
        index : int

        Returns
        -------
        Path
        """
        return self.path / str(index)

    def end_strays(self, log: Callable[[str], None]) -> None:
        """End the jobs that an earlier driver left, so that no two jobs work in one directory.

        Parameters
        ----------
        log : callable
            Takes a message.
        """
        for directory in sorted(self.path.glob("[0-9]*/")):
            (directory / job_state.TOKEN).unlink(missing_ok=True)  # a job that misses it exits
            left = job_state.read_state(directory)
            if left is None:
                continue
            if (started := partial(processes.started_for, left.process, left.token))():
                log(f"Member {directory.name}: ending process {left.process.pid}, a job that an earlier run left.")
                processes.end(started)

    def lay_out(self, task: TrainingTask, calc_text: str) -> None:
        """Write the bootstrap samples and the chunks' ids, and drop databases made with other settings.

        Parameters
        ----------
        task : TrainingTask
        calc_text : str
            Amp's calculator, whose settings the databases must have.

        Raises
        ------
        ValueError
            Two images that have one hash in Amp are to be trained differently.
        """
        samples = self.path / "training-images"
        shutil.rmtree(samples, ignore_errors=True)
        samples.mkdir(parents=True)
        frames = encode_images(task.images)
        for member, weights in enumerate(task.weights_mi):
            write_encoded(samples / f"{member}.traj", [frame for frame, times in zip(frames, weights, strict=True) for _ in range(times)])
        info = self.path / "saved-info"
        info.mkdir(exist_ok=True)
        (info / "nft_ids.pkl").write_bytes(pickle.dumps(_nft_ids(task)))
        self._drop_databases_of_other_settings(calc_text)

    def write_task(self, task: TrainingTask) -> None:
        """Write the input of fits with the kernels: all images and targets, whose fingerprints set the ranges, and weights.

        Parameters
        ----------
        task : TrainingTask
        """
        samples = self.path / "training-images"
        write(samples / ALL_IMAGES, task.images)
        write(samples / TARGETS, task.targets)
        rows = [chosen and asdict(chosen) for chosen in task.rows]
        content = {"rows": rows, "weights_mi": task.weights_mi.tolist(), "retry_m": task.retry_m}
        (samples / TASK).write_text(json.dumps(content))

    def clear_member(self, index: int, start: str | None) -> Path:
        """Make a directory for a member's job, empty except for Amp's databases and the parameters to start from.

        Parameters
        ----------
        index : int
        start : str or None
            The ``.amp`` text to start from.

        Returns
        -------
        Path
        """
        directory = self.member(index)
        directory.mkdir(exist_ok=True)
        for path in directory.iterdir():
            if path.is_dir() and path.suffix != ".ampdb":
                shutil.rmtree(path)
            elif not path.is_dir():
                path.unlink()
        if start is not None:
            check_text(start)  # Amp will eval it
            (directory / CHECKPOINT).write_text(start)
        return directory

    def _drop_databases_of_other_settings(self, calc_text: str) -> None:
        """Remove Amp's databases if `calc_text` has changed: they are searched by the atoms alone."""
        settings = self.path / SETTINGS
        if not settings.exists() or settings.read_text() != calc_text:
            for database in [*self.path.glob("*.ampdb"), *self.path.glob("[0-9]*/*.ampdb")]:
                shutil.rmtree(database)
            settings.write_text(calc_text)


def read_converged(directory: Path) -> bool | None:
    """Return the content of the file that the job's last line writes.

    Parameters
    ----------
    directory : Path

    Returns
    -------
    bool or None
        True if the criteria are met; None before the end.
    """
    try:
        return {"True": True, "False": False}.get((directory / CONVERGED).read_text())
    except OSError:
        return None


def tail_of_output(directory: Path, lines: int = 15) -> list[str]:
    """Return the last lines of a job's traceback, or else of its newest output.

    Parameters
    ----------
    directory : Path
    lines : int

    Returns
    -------
    list of str
    """
    outputs = [directory / job_state.OUTPUT, *directory.glob("*.out"), *directory.glob("*.err")]
    written = [path for path in outputs if path.exists() and path.stat().st_size]
    newest = max(written, key=lambda path: path.stat().st_mtime, default=None)
    failure = directory / job_state.FAILURE
    recorded = failure.read_text(errors="replace") if failure.exists() else ""
    text = recorded if "Traceback" in recorded or newest is None else newest.read_text(errors="replace")
    return text.splitlines()[-lines:]


def _nft_ids(task: TrainingTask) -> list[tuple[str, int]]:
    """Return hash and central atom of each chunk."""
    centres: dict[str, int | None] = {}
    for image, chosen in zip(task.images, task.rows, strict=True):
        name, centre = image_hash(image), None if chosen is None else chosen.atoms[0]
        if centres.setdefault(name, centre) != centre:
            raise ValueError(
                f"two images have the same atoms but are trained on atoms {centres[name]} and {centre} "
                "(None: on all): Amp tells images apart by their atoms alone; leave one out"
            )
    return [(name, centre) for name, centre in centres.items() if centre is not None]
