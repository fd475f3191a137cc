"""Labels of other runs and files as images of a run, with their origin."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from amp.nft.errors import InputError
from amp.nft.inputs.agreement import same_geometries
from amp.nft.inputs.structures import CENTRAL, read_training_images
from amp.nft.labels.identity import digest_of
from amp.nft.run.history import Run, read_run
from amp.nft.run.journal import JOURNAL

KEPT = ("initial_magmoms", "initial_charges")  # arrays that a parent may read
UNKNOWN = "not known"


def gather_labels(
    sources: Sequence[str | os.PathLike[str]], *, energy_key: str | None = None, forces_key: str | None = None, accept_parent: bool = False
) -> list[Atoms]:
    """Return labelled structures of runs and files as images for another run, each geometry once.

    Parameters
    ----------
    sources : sequence of path
        The training directory of a run, or the directory above, or a file that ASE reads, with file@index.
    energy_key, forces_key : str, optional
        Names of the energy and the forces in files, where they are not ASE's results.
    accept_parent : bool
        Accept labels of several parents.

    Returns
    -------
    list of Atoms
        With energy and forces, and in ``info``: ``nft_source``, ``nft_source_sha256``, ``nft_parent``, and for a chunk
        ``nft_central_atom``: a run or a fit trains the force on this atom alone, since the surface of a chunk is not in any target.

    Raises
    ------
    InputError
        A source has no label, labels of one geometry differ, or sources are by different parents.
    RunStoreError
        A run is damaged.
    """
    found: list[Atoms] = []
    parents: dict[str, str] = {}
    for source in sources:
        new = _of_run(source) if Path(source).is_dir() else _of_file(source, energy_key, forces_key)
        found += new
        parents |= {image.info["nft_parent"]: os.fspath(source) for image in new if image.info["nft_parent"] != UNKNOWN}
    if len(parents) > 1 and not accept_parent:
        listed = ", ".join(f"{source} by {parent}" for parent, source in parents.items())
        raise InputError(f"the labels are of several parents ({listed}): import those of one parent, or accept them (accept_parent=True).")
    images = read_training_images(found)
    while again := {max(pair) for pair in same_geometries(images)}:  # two formats round places differently
        images = [image for number, image in enumerate(images) if number not in again]
    return images


def _of_run(directory: str | os.PathLike[str]) -> list[Atoms]:
    """Return images and chunks of a run."""
    run = read_run(directory)
    state = run.status.state
    place = run.record.directory.parent.resolve()
    about = {
        "nft_source": f"{place.parent.name}/{place.name}", "nft_parent": _parent(run),
        "nft_source_sha256": _digest(run.record.directory / JOURNAL),
    }  # fmt: skip
    images = run.record.images(state.images) if state.images else []
    central = {number: atoms[0] for number, *atoms in run.settings.get("init_nft_ids", ())}
    labels = [run.record.image(label.file) for _, label in sorted(state.labels.items())]
    if not images and not labels:
        raise InputError(f"{os.fspath(directory)} has no labelled structure yet: let the run label its first chunks.")
    marks = [central.get(number, image.info.get(CENTRAL)) for number, image in enumerate(images)] + [0] * len(labels)
    return [_plain(image, about, mark) for image, mark in zip(images + labels, marks, strict=True)]


def _of_file(path: str | os.PathLike[str], energy_key: str | None, forces_key: str | None) -> list[Atoms]:
    """Return images of a file; the origin that they have already stays."""
    images = read_training_images(path, energy_key, forces_key)
    name = os.fspath(path)
    file = Path(name if Path(name).exists() else name.rpartition("@")[0])
    about = {"nft_source": name, "nft_source_sha256": _digest(file), "nft_parent": UNKNOWN}
    return [_plain(image, {key: image.info.get(key, value) for key, value in about.items()}, image.info.get(CENTRAL)) for image in images]


def _parent(run: Run) -> str:
    """Return the parent of a run with its settings as a text."""
    start = run.status.state.starts[-1]
    identity = start.event.get("identity")
    return str(start.parent) if identity is None else f"{start.parent} {digest_of(identity)}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _plain(image: Atoms, about: dict[str, Any], central: int | None) -> Atoms:
    """Return a copy with its label and origin alone."""
    plain = Atoms(numbers=image.numbers, positions=image.positions, cell=image.cell, pbc=image.pbc, info=dict(about))
    for name in KEPT:
        if name in image.arrays:
            plain.set_array(name, image.arrays[name])
    if central is not None:
        plain.info[CENTRAL] = int(central)
    energy, forces = image.get_potential_energy(apply_constraint=False), image.get_forces(apply_constraint=False)
    plain.calc = SinglePointCalculator(plain, energy=energy, forces=forces)
    return plain
