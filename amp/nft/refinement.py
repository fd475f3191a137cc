"""Extend the training set: relax the target or run dynamics with the ensemble, label uncertain structures, train again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ase.optimize import FIRE

from amp.nft.activelearner import NFT
from amp.nft.activelearner.method import choose_method
from amp.nft.activelearner.refine_chunks import Search, refine_by_chunks
from amp.nft.activelearner.refine_frames import FrameSearch, refine_by_frames
from amp.nft.activelearner.refine_results import Frame, Round
from amp.nft.activelearner.relearn import HaltRound, Lesson, RelearnBounds, Teacher, teaching
from amp.nft.activelearner.start_checks import fitting_method
from amp.nft.calculator.explorers import Dynamics, Explorer, Relaxation
from amp.nft.errors import InputError
from amp.nft.inputs.arguments import check_count, check_positive
from amp.nft.inputs.structures import Images, read_targets, read_training_images
from amp.nft.interfaces import RelearnedDynamics, run_and_relearn
from amp.nft.labels.executors import Executors
from amp.nft.labels.single_point import Parent
from amp.nft.records import LabelOptions
from amp.nft.training import Command

__all__ = [
    "Dynamics",
    "Explorer",
    "Frame",
    "HaltRound",
    "Relaxation",
    "RelearnBounds",
    "RelearnedDynamics",
    "Round",
    "refine",
    "relearn",
]  # fmt: skip

BAND = (1.0, 1.5)
PARTS = ("forces", "fit_until", "termination", "min_atoms", "check_parent", "test_labels", "larger_labels", "aim", "batch")


def refine(
    learner: NFT,
    images: Images | None,
    target_image: Images,
    *,
    rounds: int = 2,
    k: int = 10,
    explore: Explorer | Sequence[Explorer] | None = None,
    band: tuple[float, float] = BAND,
    limit: float | None = None,
    label: str = "al",
    parent_calc: Parent,
    cutoff: float = 6.5,
    executor: Executors | None = None,
    label_timeout: float | None = None,
    label_retries: int = 1,
    **settings: Any,
) -> list[Round]:
    """Learn a target, then structures from its relaxation or dynamics with the ensemble.

    The run itself is done first, or resumed. Then each round explores from the targets with the best ensemble of the round before. What
    it learns depends on what is trained:

    - Chunks (central forces, the method "paper"): frames whose largest uncertainty lies within `band` are taken, or the first above it
      where a path jumps over the band. Chunks are carved around their atoms above the lower end of the band, and the `k` most different
      are labelled. The training continues on all images and chunks. Rounds end where no frame is uncertain enough.
    - Frames (`forces` or `correction` given, or the method "robust"): the last frame of each exploration becomes a target, or the first
      whose uncertainty passes `limit`. The environments of the `k` most uncertain atoms of these frames, far apart, are labelled, more of
      the more uncertain frames. All labels are trained again, once, from random weights if members stop out of bag. Rounds end where no
      exploration passes the limit. Test labels are drawn after the last round, on the target and the frames.

    The log, each :class:`Round`, ``amp-nft status`` and the report give the frames, chunks and labels of a round, whether the new
    structures converged, and why the refinement ended. Run the same script again to resume after a crash.

    Parameters
    ----------
    learner : NFT
        Its stop criteria, threshold and seed apply in each round.
    images, target_image : as there
        As for :meth:`amp.nft.activelearner.NFT.run`. Constraints of the target apply to the exploration.
    rounds : int
        Largest number of rounds. Refinement ends earlier if no frame is uncertain enough.
    k : int
        Labels in each round, at most.
    explore : callable, or sequence of these
        ``explore(atoms, limit)`` is given a target with the ensemble as its calculator, and the upper end of the band in
        eV/Å; it returns frames. `Relaxation()` if not given; if frames become targets, ``Relaxation(optimizer=FIRE)`` and then
        `Dynamics()`. Each begins where the last one before that stayed within the limit ended.
    band : (float, float)
        Uncertainties of the frames that are taken, in multiples of the largest one on the targets: below the lower end nothing is to be
        learned, above the upper end the path itself is wrong. An exploration ends at the upper end.
    limit : float, optional
        Only where frames become targets: uncertainty at which an exploration ends, eV/Å; the upper end of the band after the first run if
        not given. Give several times ``stop_delta``, for example.
    label : str
        Name of the first run's results; those of round 1 are called ``<label>-refined-1``, and so on.
    parent_calc, cutoff, executor, label_timeout, label_retries, **settings : as there
        As for :meth:`amp.nft.activelearner.NFT.run`.

    Returns
    -------
    list of Round
        The first run and each round; print one to see which frames were trained and tested.

    Raises
    ------
    ValueError
        If `rounds`, `k` or `band` is out of range, before any work starts.
    LabellingError
        If none of the chunks of a round can be labelled.
    RunStoreError
        If there are results of other settings.

    Notes
    -----
    C. Zeng, X. Chen, A. A. Peterson, J. Chem. Phys. 156, 064104 (2022), supplementary material: two rounds, ten chunks each.
    """
    check_count("rounds", rounds, least=0)
    check_count("k", k, least=1)
    if not (len(band) == 2 and 0 < band[0] < band[1]):
        raise ValueError(f"band is {band!r}: give two multiples of the uncertainty, the smaller one first, such as (1.0, 1.5).")
    if limit is not None:
        check_positive(limit=limit)
    settings |= {
        "parent_calc": parent_calc, "cutoff": cutoff, "executor": executor, "label_timeout": label_timeout,
        "label_retries": label_retries,
    }  # fmt: skip
    method = choose_method(learner.method, **{part: settings.get(part) for part in PARTS})
    explorers = _explorers(explore)
    whole_frames = method.forces != "centre" or settings.get("correction") is not None
    if images is None and not whole_frames:
        raise InputError("images is None, and only central forces are trained: give labelled images, or forces='weighted'.")
    if limit is not None and not whole_frames:
        raise InputError("limit is for refinements whose frames become targets (forces='weighted'): use band with central forces.")
    keys = {name: settings.pop(name, None) for name in ("energy_key", "forces_key")}  # chunks, which are added, have ASE's results
    images = images if images is None else read_training_images(images, **keys)
    if whole_frames:
        frames = FrameSearch(explorers or [Relaxation(optimizer=FIRE), Dynamics()], k, cutoff, band[1], limit, settings.get("baseline"))
        return refine_by_frames(learner, images, target_image, frames, rounds, label, settings, (method.test_labels, method.larger_labels))
    assert images is not None  # with central forces, see above
    method = fitting_method(method, read_targets(target_image), parent_calc)
    search = Search(explorers or [Relaxation()], tuple(band), k, cutoff, method.termination, method.min_atoms, settings.get("baseline"))
    options = LabelOptions(parent_calc, executor, label_timeout, label_retries, settings.get("accept_parent", False))
    return refine_by_chunks(learner, images, target_image, search, rounds, label, options, settings)


def relearn(
    learner: NFT,
    images: Images | None,
    target_image: Images,
    deck: str | os.PathLike[str],
    *,
    ensemble: str | os.PathLike[str] | None = None,
    bounds: RelearnBounds | None = None,
    arguments: Sequence[str] = (),
    elements: Sequence[str] | None = None,
    baseline_pair: str | None = None,
    label: str = "al",
    parent_calc: Parent,
    cutoff: float = 6.5,
    executor: Executors | None = None,
    **settings: Any,
) -> RelearnedDynamics:
    """Run a deck of LAMMPS with the ensemble of a finished run; learn where an uncertainty halts it, and continue.

    All processes of ``mpirun`` call it together with the same arguments. When ``fix halt`` stops a run of the deck before its last step,
    the first process takes the halted frame and those that the deck has dumped since the halt before. It chooses up to `bounds.k` of their
    most uncertain environments, far apart, labels these, and trains all labels again; the other processes sleep. The run then
    continues to its last step with the new ensemble. Call it again to resume after a crash, at the last halt or restart file.

    Parameters
    ----------
    learner : NFT
        As for the run that made the ensemble.
    images, target_image : as there
        As for that :meth:`amp.nft.activelearner.NFT.run`.
    deck : path
        With ``fix external``, and ``fix halt ... error soft`` on a variable that contains ``f_ID[1]``. Frames of a
        ``dump custom`` of all atoms with ``d_delta`` are used.
    ensemble : path, optional
        ``best.<label>.ensemble`` if not given.
    bounds : RelearnBounds, optional
    arguments : sequence of str
        Of LAMMPS, such as ``-var``, ``-log``.
    elements : sequence of str, optional
        Element of each atom type; from ``labelmap atom`` if not given.
    baseline_pair : str, optional
        Pair style that gives the baseline of the ensemble.
    label : str
        Of the run. Halt 1 makes ``best.<label>-relearned-1.ensemble``, and so on.
    parent_calc, cutoff, executor, **settings : as there
        As for :meth:`amp.nft.activelearner.NFT.run`.

    Returns
    -------
    RelearnedDynamics

    Raises
    ------
    InputError
        If the deck, the ensemble and the run do not fit together, before any work starts.
    RunStoreError
        If the run or the dynamics began with other settings.
    LammpsError
        If LAMMPS stops with an error.

    Notes
    -----
    An error during learning, such as no label that succeeds, is printed and ends all processes, with exit code 1, or 4 for labels.
    """
    if isinstance(learner.trainer, Command):
        raise InputError("trainer is a command, and relearn trains networks of Amp for LAMMPS: use refine, or an NFT without trainer.")
    best = Path(label).with_name(f"best.{Path(label).name}.ensemble")
    settings |= {"parent_calc": parent_calc, "cutoff": cutoff, "executor": executor}
    lesson = Lesson(
        learner, images, target_image, label, best if ensemble is None else Path(ensemble), bounds or RelearnBounds(), settings
    )  # fmt: skip

    def open_teacher(text: str) -> AbstractContextManager[Teacher]:
        return teaching(lesson, text, arguments)

    every = lesson.bounds.restart_every
    return run_and_relearn(open_teacher, os.fspath(lesson.directory), os.fspath(deck), arguments, elements, baseline_pair, every)


def _explorers(explore: Explorer | Sequence[Explorer] | None) -> list[Explorer]:
    """Return the explorers as a list; empty if none is given."""
    if explore is None:
        return []
    return list(explore) if isinstance(explore, Sequence) else [explore]
