"""Scan of radii and terminations: the chunk at which the central force equals that in the target."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.chunks.carving import carve_chunks
from amp.nft.chunks.convergence_table import GROWTH, CheapForces, Convergence
from amp.nft.chunks.termination import Termination, check_termination, termination_name
from amp.nft.errors import InputError, LabellingError
from amp.nft.inputs.arguments import checked_indices
from amp.nft.inputs.geometry import neighbor_pairs
from amp.nft.labels.executors import Executors
from amp.nft.labels.gate import Label, LabelFailure
from amp.nft.labels.pool import LabelPool, check_label_options, numbered
from amp.nft.labels.single_point import Parent, digest, single_point
from amp.nft.records import LabelOptions

REFERENCES = ("largest", "target")
REFUSED_FORCE = 50.0  # eV/Å; a central force above it is that of a chunk whose electrons went wrong
SMALLEST = 12  # atoms, on average, of the chunks of the smallest radius chosen
LARGEST = 0.7  # of a free target, beyond which chunks of a larger radius are not worth their labels
N_RADII, STEP, FARTHEST = 4, 0.25, 10.0  # radii chosen; their grid and limit, Å
SAMPLE = 300  # atoms whose neighbours are counted to choose radii

Key = tuple[int, int, int]  # places of termination, radius and atom


def convergence(
    target: Atoms,
    parent: Parent,
    radii: Iterable[float] | None = None,
    atoms: int | Sequence[int] = 10,
    *,
    terminations: Termination | Sequence[Termination] = "sphere",
    cheap: Parent | None = None,
    reference: str | np.ndarray = "largest",
    executor: Executors | None = None,
    directory: str | os.PathLike[str] | None = None,
    log: Callable[[str], object] = lambda message: None,
) -> Convergence:
    """Find how large chunks must be, and how their surface is best terminated: the force on some central atoms against both.

    Parameters
    ----------
    target : Atoms
    parent : ASE calculator, or callable
        A callable ``f(directory)`` returns a fresh calculator.
    radii : iterable of float, optional
        In Å. If not given, four between which chunks grow by at least 1.5 times: the difference of two chunks of nearly the same atoms
        hides their error.
    atoms : int, or sequence of int or of bool
        Central atoms, or a mask; a number takes that many, of each element evenly from those with the smallest error of the cheap
        calculator (without one: the fewest neighbours) to those with the largest. 8 to 12 give the mean error within a third.
    terminations : str, callable or list of these
        As for `carve_chunks`; several are compared.
    cheap : ASE calculator, or callable, optional
        Labels the chunks of all atoms, and the target. Shows the effect of chunks on every atom, chooses those for the parent, and
        sharpens the estimate of the mean where its errors follow the parent's. `Convergence.gate` judges it as a correction.
    reference : 'largest', 'target' or ndarray of shape (target atoms, 3)
        Forces to compare with: those of the largest radius (of the termination that changes least from the radius before), which then
        says nothing about itself; those of one single point of the whole target, where the parent can compute it; or known
        forces, eV/Å.
    executor : concurrent.futures.Executor, or callable that returns a new one, optional
        Makes the labels, as in :meth:`amp.nft.activelearner.NFT.run`.
    directory : path, optional
        Where the parent's files and the labels go; a second call takes the labels that it finds there, so give each parent
        its own. Nothing is kept if not given.
    log : callable
        Receives a message for each label that fails.

    Returns
    -------
    Convergence
        Print it; `choice` recommends radius and termination, or says that no chunk is good enough; `plot` draws it.

    Raises
    ------
    ValueError, IndexError, TypeError
        For radii, atoms, terminations or a reference that cannot be, before any work starts.
    LabellingError
        If the reference, or every label, failed; also a RuntimeError.
    """
    if not isinstance(target, Atoms):
        raise TypeError(f"target is {target!r}: give an ase.Atoms, such as ase.io.read(...) returns.")
    found = _checked_radii(radii, reference) if radii is not None else growing_radii(target)
    kinds = [terminations] if isinstance(terminations, str) or callable(terminations) else list(terminations)
    _check(target, kinds, reference, [LabelOptions(one, executor) for one in (parent, cheap) if one is not None])
    with _place(directory) as place:
        errors, cheap_forces = None, None
        if cheap is not None:
            cheap_forces = _cheap(target, found, kinds, LabelOptions(cheap, executor), place / "cheap", log)
            errors = cheap_forces.errors_trn[0, 0]
        chosen = _chosen_atoms(target, atoms, found[0], errors)
        true, name = _reference(target, parent, reference, chosen, place)
        chunks = _carved(target, found, kinds, chosen)
        labels = _labels(chunks, LabelOptions(parent, executor), place, log)
    shape = (len(kinds), len(found), len(chosen))
    forces_trax, seconds_tra, sizes_tra = np.full((*shape, 3), np.nan), np.full(shape, np.nan), np.zeros(shape, dtype=int)
    for key, chunk in chunks.items():
        sizes_tra[key] = len(chunk)
        if key in labels:
            forces_trax[key], seconds_tra[key] = labels[key].forces[0], labels[key].seconds
    names = tuple(termination_name(kind) for kind in kinds)
    if true is None:
        steadiest = _steadiest(forces_trax)
        true, name = forces_trax[steadiest, -1], f"{names[steadiest]} chunks of {found[-1]:g} Å"
    absolute = not (isinstance(reference, str) and reference == "largest")
    return Convergence(names, found, chosen, forces_trax, sizes_tra, seconds_tra, true, name, absolute, len(target), cheap_forces)


def growing_radii(target: Atoms) -> np.ndarray:
    """Return four radii between which chunks grow by at least 1.5 times; fewer for a small target.

    Parameters
    ----------
    target : Atoms

    Returns
    -------
    ndarray, shape (radii,)
        In Å, rising; at least two.
    """
    centres = np.unique(np.linspace(0, len(target) - 1, min(len(target), SAMPLE)).astype(int))
    lengths = np.linalg.norm(neighbor_pairs(target, FARTHEST, centres.tolist()).vector, axis=1)
    grid = np.arange(2.0, FARTHEST + STEP / 2, STEP)
    counts = 1 + (lengths[None] <= grid[:, None]).sum(axis=1) / len(centres)
    radii: list[float] = []
    needed = float(SMALLEST)
    for radius, count in zip(grid, counts, strict=True):
        beyond = not target.pbc.any() and count > LARGEST * len(target) and len(radii) >= 2
        if len(radii) < N_RADII and count >= needed and not beyond:
            radii.append(float(radius))
            needed = GROWTH * count
    return np.array(radii if len(radii) > 1 else [5.0, 7.0])


def _check(target: Atoms, kinds: Sequence[Termination], reference: Any, options: list[LabelOptions]) -> None:
    for one in options:
        check_label_options(one)
    for kind in kinds:
        check_termination(kind)
    if not kinds:
        raise InputError("terminations is empty: give at least one, such as 'sphere'.")
    if isinstance(reference, str) and reference not in REFERENCES:
        raise InputError(f"reference is {reference!r}: it must be 'largest', 'target', or forces of the target.")
    if not isinstance(reference, str) and np.shape(reference) != (len(target), 3):
        raise InputError(f"reference has shape {np.shape(reference)}: forces of the target have {(len(target), 3)}.")


def _checked_radii(radii: Iterable[float], reference: Any) -> np.ndarray:
    """Return radii in rising order, each once."""
    found = np.unique(np.asarray(list(radii), dtype=float))
    least = 2 if isinstance(reference, str) and reference == "largest" else 1
    if len(found) < least or not (np.isfinite(found).all() and (found > 0).all()):
        raise InputError(f"radii are {found.tolist()} Å: give at least {least}, all above 0, such as 5, 6, 7, 8.")
    return found


def _chosen_atoms(target: Atoms, atoms: int | Sequence[int], radius: float, errors: np.ndarray | None) -> np.ndarray:
    """Return central atoms as given; or the given number, by element, evenly over cheap errors, else over numbers of neighbours."""
    if not isinstance(atoms, int | np.integer):
        chosen = checked_indices("atoms", atoms, len(target), "atoms of the target")
        if not len(chosen):
            raise InputError(f"atoms is {atoms!r}: give a number of atoms, or a list of their indices.")
        return np.array(list(dict.fromkeys(chosen.tolist())))  # there is one label of each
    if isinstance(atoms, bool) or not 1 <= atoms <= len(target):
        raise InputError(f"atoms is {atoms}: it must be between 1 and the {len(target)} atoms of the target.")
    measure = errors if errors is not None else np.diff(neighbor_pairs(target, radius, range(len(target))).start)
    places = np.round(np.linspace(0, len(target) - 1, int(atoms))).astype(int)
    return np.lexsort((measure, target.numbers))[places]


@contextlib.contextmanager
def _place(directory: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Yield the directory, or a temporary one."""
    if directory is not None:
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def _reference(
    target: Atoms, parent: Parent, reference: str | np.ndarray, chosen: np.ndarray, place: Path
) -> tuple[np.ndarray | None, str]:  # fmt: skip
    """Return the true forces on the chosen atoms and their origin; None if the largest chunks are the reference."""
    if not isinstance(reference, str):
        return np.asarray(reference, dtype=float)[chosen], "the forces given"
    if reference == "largest":
        return None, ""
    label = single_point(parent, target, place / "target")
    if not isinstance(label, Label):
        raise LabellingError(f"The parent cannot label the whole target ({label}): take reference='largest'.")
    return label.forces[chosen], "the whole target"


def _steadiest(forces_trax: np.ndarray) -> int:
    """Return the termination whose central forces change least from the last radius but one to the last."""
    steps = np.linalg.norm(forces_trax[:, -1] - forces_trax[:, -2], axis=-1)
    failed = np.isnan(steps).mean(axis=1)
    means = np.nansum(steps, axis=1) / np.maximum(np.isfinite(steps).sum(axis=1), 1)
    return int(np.lexsort((means, failed))[0])


def _cheap(
    target: Atoms, radii: np.ndarray, kinds: Sequence[Termination], options: LabelOptions, place: Path, log: Callable[[str], object]
) -> CheapForces:  # fmt: skip
    """Return the forces of the cheap calculator on all atoms, in the target and in their chunks."""
    whole = single_point(options.parent, target, place / "target")
    if not isinstance(whole, Label):
        raise LabellingError(f"The cheap calculator cannot label the whole target ({whole}): give another one, or None.")
    forces_trnx = np.full((len(kinds), len(radii), len(target), 3), np.nan)
    for key, label in _labels(_carved(target, radii, kinds, range(len(target))), options, place, log).items():
        forces_trnx[key] = label.forces[0]
    return CheapForces(forces_trnx, whole.forces)


def _carved(target: Atoms, radii: np.ndarray, kinds: Sequence[Termination], atoms: Iterable[int]) -> dict[Key, Atoms]:
    """Carve chunks, by the places of termination, radius and atom."""
    return {
        (t, r, a): chunk for t, kind in enumerate(kinds) for r, radius in enumerate(radii)
        for a, chunk in enumerate(carve_chunks(target, list(atoms), radius, termination=kind))
    }  # fmt: skip


def _labels(chunks: dict[Key, Atoms], options: LabelOptions, place: Path, log: Callable[[str], object]) -> dict[Key, Label]:
    """Return labels by place, without those that failed; chunks that are equal have one label."""
    names = _names(chunks)
    labels: dict[Key, Label] = {}
    failures = []
    with LabelPool(options, place) as pool:
        for name, keys in names.items():
            pool.request(name, chunks[keys[0]])
        for name, outcome in pool.done():
            label = _accepted(outcome)
            for key in names[name]:
                if isinstance(label, Label):
                    labels[key] = label
                else:
                    info = chunks[key].info
                    failures.append(f"the {info['termination']} chunk of {info['radius']:g} Å around atom {info['target_atom']}: {label}")
                    log(f"No label for {failures[-1]}")
    if not labels:
        raise LabellingError(f"None of {len(chunks)} chunks could be labelled; {failures[0]}.")
    return labels


def _accepted(outcome: Label | LabelFailure) -> Label | str:
    """Return the label, or the reason why it is refused."""
    if not isinstance(outcome, Label):
        return str(outcome)
    force = float(np.linalg.norm(outcome.forces[0]))
    return outcome if force <= REFUSED_FORCE else f"a central force of {force:.3g} eV/Å is above {REFUSED_FORCE:g} eV/Å"


def _names(chunks: dict[Key, Atoms]) -> dict[int, list[Key]]:
    """Return numbers of the labels, the same in each call, so that labels are found again; equal chunks share one."""
    by_content: dict[str, list[Key]] = {}
    for key, chunk in chunks.items():
        by_content.setdefault(digest(chunk), []).append(key)
    return dict(zip(numbered(by_content), by_content.values(), strict=True))
