"""Predictions of a run's ensembles for known forces: of chunks before and after training on them, of the test, of the target."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

import numpy as np
from ase import Atoms

from amp.nft.calculator.members import Members, open_members
from amp.nft.chunks import Correction
from amp.nft.chunks.label_error import LabelError, label_rows
from amp.nft.chunks.numbered import carve_numbered
from amp.nft.chunks.termination import check_termination
from amp.nft.errors import ChunkError, InputError, UnsupportedModel
from amp.nft.report.comparison import NOTHING, Comparison, compare, count_neighbors, join
from amp.nft.run.history import Run
from amp.nft.run.rounds import RoundRecord
from amp.nft.run.second_labels import SecondLabels

MOST_CHUNKS = 200  # from which the label error is estimated, evenly chosen
SAME_PLACE = 1e-4  # Å


@dataclass(frozen=True)
class Checks:
    """Predictions against known energies and forces.

    Attributes
    ----------
    trained : Comparison
        Central forces of the chunks that the best ensemble was trained on.
    unseen : Comparison
        Central forces of chunks, by the ensemble that requested them, which was not trained on them.
    target : Comparison or None
        The best ensemble on all atoms of the targets, where the true forces are given.
    why_not : str
        Why there are no predictions, if there are none.
    tested : Comparison
        The best ensemble on the atoms drawn at random, whose labels it was not trained on.
    differences : dict of int to float
        Length of the difference between the label of a test atom and that in a larger chunk, eV/Å, by atom.
    energies : ndarray, shape (images, 2)
        Labelled and predicted energy of each image that the run began with, eV/atom.
    label_error : LabelError or None
        From overlapping chunks; None where it was not measured.
    depths : ndarray, shape (chunks,)
        Depth of the central atoms of these chunks, Å.
    least_depth : float
        Smallest depth of any atom in them, Å.
    """

    trained: Comparison
    unseen: Comparison
    target: Comparison | None = None
    why_not: str = ""
    tested: Comparison = NOTHING
    differences: dict[int, float] = field(default_factory=dict)
    energies: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    label_error: LabelError | None = None
    depths: np.ndarray = field(default_factory=lambda: np.zeros(0))
    least_depth: float = 0.0


def check(run: Run, truth: np.ndarray | None = None) -> Checks:
    """Predict the energies and forces that are known.

    Parameters
    ----------
    run : Run
    truth : ndarray, shape (atoms of all targets, 3), optional
        True forces, eV/Å.

    Returns
    -------
    Checks
        Without predictions, and with the reason, where Amp itself or a calculator that is not installed would make them.

    Raises
    ------
    InputError
        There are true forces to compare with, and the calculator of the members cannot be imported.
    """
    if not run.steps:
        return Checks(NOTHING, NOTHING, why_not="No iteration is finished.")
    labels, best = _Labels(run), run.best.iteration
    error, depths, least = labels.error()
    new = zip(run.steps, run.new_atoms, strict=False)
    before = [atom for atoms in run.new_atoms[:best] for atom in atoms]
    state = run.status.state
    held_out = [atom for atom in state.test if atom in state.labels and atom not in state.added_atoms]
    differences = {atom: labels.difference(atom) for atom in held_out if atom in state.larger}
    without = Checks(NOTHING, NOTHING, differences=differences, label_error=error, depths=depths, least_depth=least)
    ensembles = _Ensembles(run)
    try:
        ensembles.open(best)
    except UnsupportedModel as refused:
        return replace(without, why_not=f"Only Amp itself can evaluate members of this kind ({refused}).")
    except InputError as missing:
        if truth is not None:
            raise
        warnings.warn(why_not := f"Predictions are missing here: {missing}", stacklevel=2)
        return replace(without, why_not=why_not)
    unseen = join([ensembles.central(step.iteration, atoms, labels) for step, atoms in new])
    trained = ensembles.central(best, [*(state.begun or ()), *before], labels)
    tested = ensembles.central(best, held_out, labels, in_target=True)
    target = None if truth is None else ensembles.everywhere(best, truth)
    energies = ensembles.energies(best)
    return Checks(trained, unseen, target, "", tested, differences, energies, error, depths, least)


def learned(rounds: Sequence[RoundRecord]) -> dict[str, tuple[float, float]]:
    """Return what a refinement learned about the chunks of frames that it labelled.

    Parameters
    ----------
    rounds : sequence of RoundRecord
        Of one refinement, in order.

    Returns
    -------
    dict of str to (float, float)
        By the label of a round that collected chunks: the largest uncertainty on their central atoms by the ensemble of the round before,
        and by its own, eV/Å.
    """
    found = {}
    for before, after in itertools.pairwise(rounds):
        if after.explored is None or after.exploration is None or after.frames or not after.exploration.labelled:
            continue
        chunks = [after.explored.image(name) for name in after.exploration.labelled]
        texts = [(one.best_members(), one.record.directory.parent) for one in (before, after)]
        with contextlib.suppress(UnsupportedModel, InputError):  # a calculator is not installed
            if all(some for some, _ in texts):
                both = [open_members(*some) for some in texts]
                old, new = (max(float(members.predict(chunk).uncertainty[0]) for chunk in chunks) for members in both)
                found[after.label] = (old, new)
    return found


class _Labels:
    """Labels of a run's chunks, corrected where the run corrects them."""

    def __init__(self, run: Run) -> None:
        self.run, self.state = run, run.status.state
        self.corrected = bool(self.state.cheap_targets)
        self._chunks: dict[int, Atoms] = {}

    def chunk(self, atom: int) -> Atoms:
        """Return a chunk with its label."""
        if atom not in self._chunks:
            self._chunks[atom] = self.run.record.image(self.state.labels[atom].file)
        return self._chunks[atom]

    def central(self, atom: int) -> np.ndarray:
        """Return the force that is trained on a central atom, eV/Å."""
        return self.chunk(atom).get_forces(apply_constraint=False)[0] + self._correction(atom, "cheap-label")

    def difference(self, atom: int) -> float:
        """Return the length of the difference from the label in a larger chunk, eV/Å."""
        larger = self.run.record.image(self.state.larger[atom].file).get_forces(apply_constraint=False)[0]
        return float(np.linalg.norm(larger + self._correction(atom, "larger-cheap-label") - self.central(atom)))

    def _correction(self, atom: int, event: str) -> np.ndarray:
        """Return the force of the cheap calculator in the target minus that in the chunk."""
        number, first = self.run.target_of(atom)
        cheap, in_target = self.state.labels_of(event).get(atom), self.state.cheap_targets.get(number)
        if cheap is None or in_target is None:
            return np.zeros(3)
        return self.run.record.array(in_target)[atom - first] - self.run.record.image(cheap.file).get_forces(apply_constraint=False)[0]

    def error(self) -> tuple[LabelError | None, np.ndarray, float]:
        """Estimate the error of the labels from overlapping chunks, with the depths of the central atoms and the smallest of all."""
        atoms = sorted(self.state.labels)
        atoms = [atoms[k] for k in np.unique(np.linspace(0, len(atoms) - 1, min(len(atoms), MOST_CHUNKS)).astype(int))]
        cut = self._carved(atoms)
        if not cut:
            return None, np.zeros(0), 0.0
        forces = [self.chunk(atom).get_forces(apply_constraint=False) for atom in cut]
        if self.corrected:
            forces = [self._all_corrected(atom, chunk, plain) for (atom, chunk), plain in zip(cut.items(), forces, strict=True)]
        firsts = [self.run.target_of(atom)[1] for atom in cut]
        found = LabelError.fit(label_rows(list(cut.values()), forces, firsts))
        depths = [chunk.arrays["depth"][chunk.arrays["target_index"] >= 0] for chunk in cut.values()]
        return (found if found.n_atoms else None), np.array([some[0] for some in depths]), float(np.concatenate(depths).min())

    def _all_corrected(self, atom: int, chunk: Atoms, plain: np.ndarray) -> np.ndarray:
        cheap, in_target = self.state.cheap.get(atom), self.state.cheap_targets.get(self.run.target_of(atom)[0])
        if cheap is None or in_target is None:
            return plain
        correction = Correction(_no_calculator, self.run.record.array(in_target))
        return correction.apply(chunk, plain, self.run.record.image(cheap.file).get_forces(apply_constraint=False))

    def _carved(self, atoms: list[int]) -> dict[int, Atoms]:
        """Carve labelled chunks again, which have depths then; none where the run's settings do not say how."""
        settings = self.run.settings
        termination, cutoff = settings.get("termination", "sphere"), settings.get("cutoff")
        try:
            check_termination(termination)
        except ChunkError:  # a function of the user
            return {}
        if cutoff is None or not self.run.targets:
            return {}
        cut = carve_numbered(self.run.targets, atoms, cutoff, termination=termination, min_atoms=settings.get("min_atoms"))
        return {atom: chunk for atom, chunk in cut.items() if _same(chunk, self.chunk(atom))}


def _no_calculator(directory: str) -> NoReturn:
    """Stand for the cheap calculator, of which the run stored all forces."""
    raise RuntimeError("A report computes no labels.")


def _same(one: Atoms, other: Atoms) -> bool:
    return list(one.numbers) == list(other.numbers) and bool(np.abs(one.positions - other.positions).max() < SAME_PLACE)


class _Ensembles:
    """The ensembles of a run's iterations, each read once."""

    def __init__(self, run: Run) -> None:
        self.run, self.baseline = run, SecondLabels(run.record)
        self._read: dict[int, Members] = {}

    def central(self, iteration: int, atoms: Sequence[int], labels: _Labels, in_target: bool = False) -> Comparison:
        """Predict the forces on central atoms, in their chunks, or in the target where that is what the label estimates."""
        if not atoms:
            return NOTHING
        chunks = [labels.chunk(atom) for atom in atoms]
        counts = [count_neighbors(chunk, [0])[0] for chunk in chunks]
        members = self.open(iteration)
        if in_target or labels.corrected:
            found = [_on_atom(members, *place) for place in self._in_targets(atoms, members.reach)]
            added = [self._baseline_in_target(atom) for atom in atoms]
        else:
            found, added = [_on_atom(members, chunk, 0) for chunk in chunks], [self.baseline.forces(chunk)[0] for chunk in chunks]
        known, numbers = [labels.central(atom) for atom in atoms], [chunk.numbers[0] for chunk in chunks]
        predicted = [force + more for (force, _), more in zip(found, added, strict=True)]
        return compare(known, predicted, [delta for _, delta in found], iteration, numbers, counts, atoms)

    def _in_targets(self, atoms: Sequence[int], reach: float | None) -> list[tuple[Atoms, int]]:
        """Return for each atom a structure with all atoms that act on it as in the target, and its index there."""
        if reach is not None:
            around = carve_numbered(self.run.targets, atoms, reach)
            return [(around[atom], 0) for atom in atoms]
        places = (self.run.target_of(atom) for atom in atoms)
        return [(self.run.targets[number], atom - first) for atom, (number, first) in zip(atoms, places, strict=True)]

    def _baseline_in_target(self, atom: int) -> np.ndarray:
        """Return the force of the baseline on an atom of a target, eV/Å."""
        number, first = self.run.target_of(atom)
        return self.baseline.forces(self.run.targets[number])[atom - first]

    def everywhere(self, iteration: int, known: np.ndarray) -> Comparison:
        """Predict the forces on all atoms of the targets."""
        found = [self.open(iteration).predict(target) for target in self.run.targets]
        forces, delta = np.concatenate([one.forces for one in found]), np.concatenate([one.uncertainty for one in found])
        forces += np.concatenate([self.baseline.forces(target) for target in self.run.targets])
        numbers = np.concatenate([target.numbers for target in self.run.targets])
        counts = np.concatenate([count_neighbors(target) for target in self.run.targets])
        return compare(known, forces, delta, iteration, numbers, counts, np.arange(len(numbers)))

    def energies(self, iteration: int) -> np.ndarray:
        """Return labelled and predicted energies of the images that the run began with, eV/atom, shape (images, 2)."""
        state = self.run.status.state
        chunks = {row[0] for row in self.run.settings.get("init_nft_ids") or () if row}  # whose central forces alone are trained
        images = self.run.record.images(state.images) if state.images else []
        images = [image for number, image in enumerate(images) if number not in chunks]
        if not images:
            return np.zeros((0, 2))
        added = [label.energy if (label := self.baseline.get(image)) is not None else 0.0 for image in images]
        predicted = [self.open(iteration).predict(image).energy + more for image, more in zip(images, added, strict=True)]
        pairs = [(image.get_potential_energy(), energy) for image, energy in zip(images, predicted, strict=True)]
        return np.array(pairs) / np.array([[len(image)] for image in images])

    def open(self, iteration: int) -> Members:
        """Return the members of an iteration."""
        if iteration not in self._read:
            step = next(step for step in self.run.steps if step.iteration == iteration)
            self._read = {iteration: open_members(self.run.members(step), self.run.record.directory.parent)}
        return self._read[iteration]


def _on_atom(members: Members, image: Atoms, index: int) -> tuple[np.ndarray, float]:
    """Return the force on an atom, and its uncertainty."""
    found = members.predict(image)
    return found.forces[index], float(found.uncertainty[index])
