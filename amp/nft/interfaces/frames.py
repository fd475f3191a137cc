"""Labelled structures of a run with the weights of their forces, for other trainers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from amp.nft.chunks import carve_chunks
from amp.nft.chunks.label_error import LabelError, default_floor, label_rows
from amp.nft.chunks.termination import Termination, check_termination
from amp.nft.errors import ChunkError, InputError, RunStoreError
from amp.nft.inputs.geometry import with_cell
from amp.nft.run.history import Run

FORCES = ("centre", "weighted", "all")
SPLITS = ("train", "valid", "test")
_SAME_PLACE = 1e-4  # Å
_LEAST_SIGMA = 1e-3  # eV/Å


@dataclass(frozen=True)
class Frame:
    """One labelled structure.

    Attributes
    ----------
    atoms : Atoms
        With a cell, and without calculator.
    energy : float
        eV.
    forces_nx : ndarray, shape (atoms, 3)
        By the parent, eV/Å.
    weights_n : ndarray, shape (atoms,)
        Weight of each force in the training; 0: not trained.
    energy_weight : float
        0 or 1.
    floor : float
        Error of a force of weight 1, eV/Å.
    split : str
        'train', 'valid' or 'test'.
    target_index_n : ndarray of int, shape (atoms,)
        Index in the target; -1 for caps, and for all atoms of an image.
    target : int
        Number of the target; -1 for an image.
    iteration : int
        First iteration that was trained on it; -1 if none was.
    radius : float
        Of a chunk, Å; 0 for an image.
    """

    atoms: Atoms
    energy: float
    forces_nx: np.ndarray
    weights_n: np.ndarray
    energy_weight: float
    floor: float
    split: str
    target_index_n: np.ndarray
    target: int = -1
    iteration: int = 0
    radius: float = 0.0

    @property
    def kind(self) -> str:
        """'nft_image' or 'nft_chunk'."""
        return "nft_image" if self.target < 0 else "nft_chunk"


def validation_atoms(n_atoms: int, valid: float) -> set[int]:
    """Return the atoms of the targets whose forces validate.

    Parameters
    ----------
    n_atoms : int
        Of all targets.
    valid : float
        Fraction of them, from 0 to below 1.

    Returns
    -------
    set of int
        They depend on these two numbers alone, not on the atoms that are labelled: later labels do not move an atom.

    Raises
    ------
    InputError
        `valid` is out of range.
    """
    if not 0.0 <= valid < 1.0:
        raise InputError(f"valid = {valid!r} must be a fraction from 0 to below 1, for example 0.1.")
    ranked = sorted(range(n_atoms), key=lambda atom: hashlib.sha256(f"atom {atom}".encode()).digest())
    return set(ranked[: round(valid * n_atoms)])


def read_frames(
    run: Run, valid: float = 0.0, forces: str | None = None, energies: bool = False, termination: Termination | None = None
) -> list[Frame]:
    """Return the labelled structures of a run with their weights.

    Parameters
    ----------
    run : Run
    valid : float
        Fraction of the targets' atoms that validate.
    forces : {'centre', 'weighted', 'all'}, optional
        Forces of the chunks that are trained, as in `amp.nft.activelearner.NFT.run`; those of the run if not given.
    energies : bool
        Also train the energies of chunks.
    termination : str or callable, optional
        That of the run, where it is a function.

    Returns
    -------
    list of Frame
        Images first, then chunks by the number of their atom. A force on a validation atom has a weight in chunks around validation
        atoms alone, and a test atom's force in its own chunk alone.

    Raises
    ------
    InputError
        An argument is out of range, or no chunk validates.
    RunStoreError
        The run has no label, or its chunks are not those of its targets and settings.
    """
    state, settings = run.status.state, run.settings
    forces = settings.get("forces", "centre") if forces is None else forces
    if forces not in FORCES:
        raise InputError(f"forces = {forces!r} must be one of {', '.join(map(repr, FORCES))}.")
    held = validation_atoms(sum(map(len, run.targets)), valid)
    if held and not held & (state.labels.keys() - set(state.test)):
        raise InputError(f"valid = {valid:g} leaves none of {len(state.labels)} labels to validate: give a larger fraction, or 0.")
    images = run.record.images(state.images) if state.images else []
    labels = {atom: run.record.image(label.file) for atom, label in sorted(state.labels.items())}
    if not images and not labels:
        raise RunStoreError(f"{run.record.directory} has no labelled structure yet: let the run label its first chunks.")
    chunks = _carved(run, labels, termination)
    floor = max(default_floor(np.concatenate([one.get_forces(apply_constraint=False) for one in labels.values() or images])), _LEAST_SIGMA)
    found = [_image(image, number, settings, floor) for number, image in enumerate(images)]
    weights = _weights(run, chunks, labels, forces)
    energy = 1.0 if energies or not images else 0.0
    return found + [_chunk(run, atom, chunks[atom], labels[atom], weights[atom], held, energy, floor) for atom in chunks]


def _image(image: Atoms, number: int, settings: dict, floor: float) -> Frame:
    """Return a training image that the run began with; some have trained forces on a few atoms alone."""
    some = {row[0]: row[1:] for row in settings.get("init_nft_ids", ())}.get(number)
    weights = np.ones(len(image)) if some is None else np.isin(np.arange(len(image)), some).astype(float)
    index = np.full(len(image), -1)
    energy, forces_nx = image.get_potential_energy(apply_constraint=False), image.get_forces(apply_constraint=False)
    return Frame(with_cell(image), energy, forces_nx, weights, float(some is None), floor, "train", index)


def _chunk(run: Run, atom: int, chunk: Atoms, label: Atoms, weights: np.ndarray, held: set[int], energy: float, floor: float) -> Frame:
    state, (target, first) = run.status.state, _target_of(run, atom)
    split = "test" if atom in state.test else "valid" if atom in held else "train"
    index = chunk.arrays["target_index"]
    numbers = np.where(index >= 0, index + first, -1)
    if split == "test":
        allowed = np.arange(len(chunk)) == 0
    else:
        allowed = (np.isin(numbers, list(held)) == (split == "valid")) & ~np.isin(numbers, state.test)
    trained = {added: k + 1 for k, one in reversed(list(enumerate(state.iterations))) if one.added for added in one.added.atoms}
    trained |= dict.fromkeys(state.begun or (), 0)
    return Frame(
        with_cell(label), label.get_potential_energy(), label.get_forces(apply_constraint=False), np.where(allowed, weights, 0.0), energy,
        floor, split, index, target, -1 if split == "test" else trained.get(atom, -1), float(chunk.info["radius"]),
    )  # fmt: skip


def _weights(run: Run, chunks: dict[int, Atoms], labels: dict[int, Atoms], forces: str) -> dict[int, np.ndarray]:
    """Return the weight of each force of each chunk, without regard to the split."""
    result = {atom: np.zeros(len(chunk)) for atom, chunk in chunks.items()}
    if forces == "centre" or not chunks:
        for weights in result.values():
            weights[0] = 1.0
    elif forces == "all":
        result = {atom: (chunk.arrays["target_index"] >= 0).astype(float) for atom, chunk in chunks.items()}
    else:
        some = [labels[atom].get_forces(apply_constraint=False) for atom in chunks]
        rows = label_rows(list(chunks.values()), some, [_target_of(run, atom)[1] for atom in chunks])
        error, floor = LabelError.fit(rows), default_floor(rows.forces_rx)
        for atom, chunk in chunks.items():
            places, values = error.rows(chunk, floor)
            result[atom][places] = values
    return result


def _carved(run: Run, labels: dict[int, Atoms], termination: Termination | None) -> dict[int, Atoms]:
    """Carve the labelled chunks again: stored labels lack depths and indices in the target."""
    settings, chunks = run.settings, dict[int, Atoms]()
    named = settings.get("termination", "sphere") if termination is None else termination
    try:
        check_termination(named)
    except ChunkError as error:
        raise InputError(f"the run's termination {named!r} is a function: give it as `termination`, in Python.") from error
    for number in range(len(run.targets)):
        here = [atom for atom in labels if _target_of(run, atom)[0] == number]
        first = sum(map(len, run.targets[:number]))
        cut = carve_chunks(
            run.targets[number], [atom - first for atom in here], settings["cutoff"], termination=named, min_atoms=settings.get("min_atoms")
        )
        chunks |= zip(here, cut, strict=True)
    for atom, chunk in chunks.items():
        label = labels[atom]
        if list(label.numbers) != list(chunk.numbers) or np.abs(label.positions - chunk.positions).max() > _SAME_PLACE:
            raise RunStoreError(f"The stored chunk of atom {atom} is not that of the target and settings: restore the files of the run.")
    return chunks


def _target_of(run: Run, atom: int) -> tuple[int, int]:
    """Return the number of the target of an atom, and the number of its first atom."""
    first: Sequence[int] = np.cumsum([0, *map(len, run.targets)]).tolist()
    number = int(np.searchsorted(first, atom, side="right")) - 1
    return number, first[number]
