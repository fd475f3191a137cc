"""Checks of an input that need its parent: units, chunk sizes, and the cost of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from amp.nft.errors import LabellingError

if TYPE_CHECKING:
    from amp.nft.activelearner import NFT

SAMPLE = 20  # chunks whose sizes are shown
POWERS = (1, 3)  # of the number of atoms, between which the cost of a parent grows
CHUNK_CUTOFF = 6.5  # Å, the default of NFT.run


def lines_of(al: NFT, arguments: dict[str, Any], n_labels: int) -> Iterator[str]:
    """Yield lines about the structures, the parent, the chunks and the cost of a run.

    Parameters
    ----------
    al : NFT
    arguments : dict
        Those of ``al.run``, checked.
    n_labels : int
        Number of chunks to label.

    Yields
    ------
    str

    Raises
    ------
    ParentMismatch
        If the parent does not give the label of an image: other units, for example.
    LabellingError
        If the parent cannot label an image or a chunk.
    """
    targets, images = arguments["target_image"], arguments["images"]
    yield "target: " + "; ".join(_described(target) for target in targets)
    seconds_per_atom = None
    if images is None:
        yield "images: none; the run begins with chunks of the target"
    else:
        yield f"images: {len(images)}, of {min(map(len, images))} to {max(map(len, images))} atoms"
        seconds, n_atoms, text = _compared(images, arguments["parent_calc"])
        yield f"parent: {text} ({seconds:.2g} s for {n_atoms} atoms)"
        seconds_per_atom = seconds / n_atoms, n_atoms
    sample = _sample(targets, arguments)
    sizes = np.array([len(chunk) for chunk in sample])
    yield f"chunks: {sizes.min()} to {sizes.max()} atoms, mean {sizes.mean():.0f} ({len(sizes)} atoms of the target drawn at random)"
    times = []
    for chunk in sample[:n_labels]:
        seconds = _label_time(arguments["parent_calc"], chunk)
        times.append(seconds)
        yield f"label of atom {chunk.info['target_atom']}: {seconds:.2g} s for {len(chunk)} atoms"
    yield from _cost(al, sum(map(len, targets)), float(sizes.mean()), seconds_per_atom, times)


def _described(target: Atoms) -> str:
    pbc = "periodic along " + "".join(axis for axis, on in zip("abc", target.pbc, strict=True) if on) if target.pbc.any() else "free"
    return f"{len(target)} atoms, {target.get_chemical_formula()}, {pbc}"


def _compared(images: list[Atoms], parent: Any) -> tuple[float, int, str]:
    """Return the seconds and atoms of one label of an image, and a text; ParentMismatch if it differs from the stored one."""
    from amp.nft.initialization import compare_with_parent
    from amp.nft.inputs.structures import read_training_images

    comparison = compare_with_parent(read_training_images(images), parent)
    comparison.raise_if_different()
    return comparison.parent.seconds, len(comparison.parent.forces), str(comparison)


def _sample(targets: list[Atoms], arguments: dict[str, Any]) -> list[Atoms]:
    """Return chunks around some atoms of the targets, as the run cuts them."""
    from amp.nft.chunks import carve_chunks

    rng, radius = np.random.default_rng(0), arguments.get("cutoff", CHUNK_CUTOFF)
    how = {"termination": arguments.get("termination", "sphere"), "min_atoms": arguments.get("min_atoms")}
    each = max(SAMPLE // len(targets), 1)
    return [
        chunk for target in targets[:SAMPLE] for chunk in carve_chunks(target, rng.permutation(len(target))[:each].tolist(), radius, **how)
    ]


def _label_time(parent: Any, chunk: Atoms) -> float:
    from amp.nft.labels.single_point import Label, single_point

    with tempfile.TemporaryDirectory() as scratch:
        label = single_point(parent, chunk, Path(scratch) / "label")
    if not isinstance(label, Label):
        raise LabellingError(f"The parent cannot label the chunk around atom {chunk.info['target_atom']}: {label}.")
    return label.seconds


def _cost(al: NFT, n_atoms: int, chunk: float, image: tuple[float, int] | None, times: list[float]) -> Iterator[str]:
    """Yield the cost of a label, and of a run to its largest number of iterations."""
    if times:
        low = high = float(np.mean(times))
    elif image is not None:
        low, high = sorted(image[0] * image[1] * (chunk / image[1]) ** power for power in POWERS)
    else:
        yield "cost: not known; --label 2 measures it"
        return
    measured = (
        "measured" if times else f"if the time grows with the number of atoms to the power {POWERS[0]} to {POWERS[1]}; --label measures it"
    )
    yield f"cost: {_times(low, high, 1)} for each label ({measured})"
    if al.threshold is not None and al.threshold < 0:
        labels = al.max_iterations * max(round((1 + al.threshold) * n_atoms), 1)
        yield f"cost: {_times(low, high, labels)} for {labels} labels, the most in {al.max_iterations} iterations, one after the other"


def _times(low: float, high: float, number: int) -> str:
    from amp.nft.run.status import duration

    first, last = (duration(number * time) if number * time >= 1 else f"{number * time:.2g} s" for time in (low, high))
    return first if first == last else f"{first} to {last}"
