"""Checks of an input that need its parent: units, chunk sizes, and the cost of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from amp.nft.activelearner.batches import START_BATCH, batch_size
from amp.nft.activelearner.method import Method, choose_method
from amp.nft.activelearner.start_checks import fitting_method
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
        seconds, n_atoms, text = _compared(images, arguments)
        yield f"parent: {text} ({seconds:.2g} s for {n_atoms} atoms)"
        seconds_per_atom = seconds / n_atoms, n_atoms
    parts = ("termination", "min_atoms", "test_labels", "larger_labels")
    method = choose_method(al.method, **{name: arguments.get(name) for name in parts})
    method = fitting_method(method, targets, arguments["parent_calc"])
    sample = _sample(targets, arguments.get("cutoff", CHUNK_CUTOFF), method)
    sizes = np.array([len(chunk) for chunk in sample])
    yield f"chunks: {sizes.min()} to {sizes.max()} atoms, mean {sizes.mean():.0f} ({len(sizes)} atoms of the target drawn at random)"
    times = []
    for chunk in sample[:n_labels]:
        seconds = _label_time(arguments["parent_calc"], chunk)
        times.append(seconds)
        yield f"label of atom {chunk.info['target_atom']}: {seconds:.2g} s for {len(chunk)} atoms"
    yield from _cost(float(sizes.mean()), seconds_per_atom, times, _most_labels(al, method, sum(map(len, targets)), images is not None))


def _described(target: Atoms) -> str:
    pbc = "periodic along " + "".join(axis for axis, on in zip("abc", target.pbc, strict=True) if on) if target.pbc.any() else "free"
    return f"{len(target)} atoms, {target.get_chemical_formula()}, {pbc}"


def _compared(images: list[Atoms], arguments: dict[str, Any]) -> tuple[float, int, str]:
    """Return the seconds and atoms of one label of an image, and a text; ParentMismatch if it differs from the stored one."""
    from amp.nft.initialization import compare_with_parent
    from amp.nft.inputs.structures import read_training_images

    keys = {name: arguments.get(name) for name in ("energy_key", "forces_key")}
    comparison = compare_with_parent(read_training_images(images, **keys), arguments["parent_calc"])
    comparison.raise_if_different()
    return comparison.parent.seconds, len(comparison.parent.forces), str(comparison)


def _sample(targets: list[Atoms], radius: float, method: Method) -> list[Atoms]:
    """Return chunks around some atoms of the targets, as the run cuts them."""
    from amp.nft.chunks import carve_chunks

    rng, how = np.random.default_rng(0), dict[str, Any](termination=method.termination, min_atoms=method.min_atoms)
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


def _most_labels(al: NFT, method: Method, n_atoms: int, has_images: bool) -> int | None:
    """Return the number of labels of a run to its largest number of iterations; None if it depends on the uncertainties."""
    if al.threshold is not None and al.threshold > 0:
        return None
    if al.threshold is None:
        begun = not has_images
        batches = [batch_size(k + begun) if method.name == "robust" else 1 for k in range(al.max_iterations)]
    else:
        batches = [max(round((1 + al.threshold) * n_atoms), 1)] * al.max_iterations
    chunks = sum(batches) + (0 if has_images else START_BATCH) + method.test_labels
    return min(chunks, n_atoms) + method.larger_labels  # no atom is labelled twice


def _cost(chunk: float, image: tuple[float, int] | None, times: list[float], most: int | None) -> Iterator[str]:
    """Yield the cost of a label, and of all labels."""
    if times:
        low = high = float(np.mean(times[1:] or times))  # the first one also imports the parent
    elif image is not None:
        low, high = sorted(image[0] * image[1] * (chunk / image[1]) ** power for power in POWERS)
    else:
        yield "cost: not known; --label 2 measures it"
        return
    measured = (
        "measured" if times else f"if the time grows with the number of atoms to the power {POWERS[0]} to {POWERS[1]}; --label measures it"
    )
    yield f"cost: {_times(low, high, 1)} for each label ({measured})"
    if most is not None:
        yield f"cost: {_times(low, high, most)} for {most} labels, the most to the largest number of iterations, one after the other"


def _times(low: float, high: float, number: int) -> str:
    from amp.nft.run.status import duration

    first, last = (duration(number * time) if number * time >= 1 else f"{number * time:.2g} s" for time in (low, high))
    return first if first == last else f"{first} to {last}"
