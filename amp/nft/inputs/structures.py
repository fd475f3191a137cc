"""Read and check the user's structures before any work starts; the originals do not change."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from amp.utilities import enforce_magnetic_moments, get_hash  # noqa: F401 - for the levels above, which do not import Amp
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.io.formats import string2index

from amp.nft.errors import InputError, printable
from amp.nft.inputs.agreement import check_agreement
from amp.nft.inputs.arguments import ABSURD_FORCE
from amp.nft.inputs.cp2k import has_cp2k_forces, read_cp2k
from amp.nft.inputs.geometry import check_atoms, check_places
from amp.nft.inputs.label_keys import check_keys, labels_of

CENTRAL = "nft_central_atom"  # in info of a chunk that is an image: only the force on this atom is trained
_INDEX = {False: "", True: ", and after @ an index or a slice, such as 0, -1, :10 or ::5"}
Images = str | os.PathLike[str] | Atoms | Iterable[Atoms] | Mapping[str, Atoms]


def read_images(images: Images, name: str = "images") -> list[Atoms]:
    """Read images from a list, one Atoms, a hashed dictionary, or any file that ASE reads.

    Parameters
    ----------
    images : list of Atoms, Atoms, dict, str or path
        Argument of the user.
    name : str
        Its name in errors.

    Returns
    -------
    list of Atoms

    Raises
    ------
    FileNotFoundError, InputError, TypeError
        The file does not exist, cannot be read or is empty, or these are not Atoms.
    """
    if isinstance(images, Atoms):
        images = [images]
    elif isinstance(images, Mapping):
        images = images.values()
    elif isinstance(images, str | os.PathLike):
        images = _read_file(images, name)
    elif not isinstance(images, Iterable):
        raise TypeError(f"{name} is {images!r}: give Atoms, a list of them, or the name of a file that ASE reads.")
    found = list(images)
    wrong = next((image for image in found if not isinstance(image, Atoms)), None)
    if wrong is not None:
        raise TypeError(f"{name} contains a {type(wrong).__name__}: every item must be an ase.Atoms.")
    if not found:
        raise InputError(f"{name} is empty: give at least one structure.")
    return found


def _read_file(path: str | os.PathLike[str], name: str) -> list[Atoms]:
    file, literal = os.fspath(path), Path(path).exists()
    base, at, index = (file, "", ":") if literal else file.rpartition("@")  # core@shell.xyz is a name if there is such a file
    if not literal and not (at and os.sep not in index and Path(base).exists()):
        raise FileNotFoundError(f"{name}: there is no file {printable(file)!r} in {os.getcwd()}.")
    if Path(base).is_dir():
        raise InputError(f"{name}: {file!r} cannot be read (it is a directory); give a file that ase.io.read understands.")
    try:
        if has_cp2k_forces(Path(base)):
            steps: Any = read_cp2k(Path(base))
            found = steps[string2index(index)]
        else:
            found = read(file, index=":", do_not_split_by_at_sign=True) if literal else read(file)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except (IndexError, StopIteration) as error:
        raise InputError(f"{name}: {file!r} has no structure at this index: count from 0, or from the end with -1.") from error
    except Exception as error:  # ASE's readers raise many kinds
        raise InputError(
            f"{name}: {file!r} cannot be read ({type(error).__name__}: {error}); give a file that ase.io.read understands"
            f"{_INDEX[bool(at)]}."
        ) from error
    return found if isinstance(found, list) else [found]


def read_training_images(images: Images, energy_key: str | None = None, forces_key: str | None = None) -> list[Atoms]:
    """Read training images as labelled copies, each once.

    Amp's hash identifies an image, as in Amp.

    Parameters
    ----------
    images : Atoms, path, or list of these
        Images with energies and forces.
    energy_key, forces_key : str, optional
        Names of the energy in ``info`` and of the forces in the arrays of each image; ASE's results if not given.

    Returns
    -------
    list of Atoms

    Raises
    ------
    InputError
        An image lacks its energy or forces, or two labels of one geometry differ.
    """
    check_keys(energy_key=energy_key, forces_key=forces_key)
    found = read_images(images)
    for i, image in enumerate(found):
        check_atoms(image, f"images[{i}]")
    named = [(image, f"images[{i}] ({image.get_chemical_formula()})") for i, image in enumerate(found)]
    copies = [_labelled_copy(image, name, energy_key, forces_key) for image, name in named]
    check_agreement(copies)
    return list({get_hash(image): copy for image, copy in zip(found, copies, strict=True)}.values())


def _labelled_copy(image: Atoms, name: str, energy_key: str | None, forces_key: str | None) -> Atoms:
    energy, forces = labels_of(image, name, energy_key, forces_key)
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise InputError(f"{name} has an energy or force that is not finite: label it again, or remove it.")
    if (largest := np.abs(forces).max()) > ABSURD_FORCE:
        raise InputError(f"{name} has a force of {largest:.3g} eV/Å, beyond {ABSURD_FORCE:.0e}: check its units, or remove it.")
    check_places(image, name)
    atoms = image.copy()
    atoms.set_constraint()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def read_targets(target_image: Images) -> list[Atoms]:
    """Read targets as copies without calculator and constraints.

    Parameters
    ----------
    target_image : Atoms, path, or list of these

    Returns
    -------
    list of Atoms

    Raises
    ------
    InputError
        One cannot be a target.
    """
    targets = read_images(target_image, "target_image")
    return [_plain_copy(target, name) for target, name in zip(targets, target_names(targets), strict=True)]


def target_names(targets: list[Atoms]) -> list[str]:
    """Return the names of the targets in errors.

    Parameters
    ----------
    targets : list of Atoms

    Returns
    -------
    list of str
    """
    return ["target_image"] if len(targets) == 1 else [f"target_image[{i}]" for i in range(len(targets))]


def _plain_copy(target: Atoms, name: str) -> Atoms:
    check_atoms(target, name)
    check_places(target, name)
    plain = Atoms(numbers=target.numbers, positions=target.positions, cell=target.cell, pbc=target.pbc)
    for name, values in target.arrays.items():
        if name not in ("numbers", "positions"):
            plain.set_array(name, values)
    return plain


def check_elements(targets: list[Atoms], images: list[Atoms]) -> None:
    """Check that the training images have every element of the targets.

    Parameters
    ----------
    targets, images : list of Atoms

    Raises
    ------
    InputError
        An element of a target is in no training image.
    """
    known = {symbol for image in images for symbol in image.symbols}
    if missing := sorted({symbol for target in targets for symbol in target.symbols} - known):
        raise InputError(
            f"target_image contains {', '.join(missing)}, but the training images have only {', '.join(sorted(known))}: "
            "add bulk images that contain every element of the target."
        )


def central_atoms(images: list[Atoms], init_nft_ids: list[tuple[str, int]] | None) -> list[int | None]:
    """Return for each image the atom whose force alone is trained.

    Parameters
    ----------
    images : list of Atoms
    init_nft_ids : list of (str, int), optional
        Amp's hash of an image and the index of its atom. An image that is none of these may have the index in its ``info``, as
        ``nft_central_atom``.

    Returns
    -------
    list of int or None
        None for an image that is trained with its energy and all forces.

    Raises
    ------
    InputError
        A pair fits no image.
    """
    try:
        wanted = dict(init_nft_ids or [])
    except (TypeError, ValueError):
        raise InputError(f"init_nft_ids is {init_nft_ids!r}: it must be a list of pairs (hash, index).") from None
    hashes = [get_hash(image) for image in images]
    if unknown := set(wanted) - set(hashes):
        raise InputError(f"init_nft_ids names {sorted(unknown)[0]}, which is the hash of no image in images.")
    for image, key in zip(images, hashes, strict=True):
        if key in wanted and not 0 <= wanted[key] < len(image):
            raise InputError(f"init_nft_ids: image {key} has {len(image)} atoms, so no atom {wanted[key]}.")
    return [wanted.get(key, marked_atom(image)) for image, key in zip(images, hashes, strict=True)]


def marked_atom(image: Atoms) -> int | None:
    """Return the atom of a chunk whose force alone is trained, as its ``info`` names it.

    Parameters
    ----------
    image : Atoms

    Returns
    -------
    int or None
        None where ``info`` has none.

    Raises
    ------
    InputError
        The image has no such atom.
    """
    mark = image.info.get(CENTRAL)
    if mark is None:
        return None
    if not (isinstance(mark, int | np.integer) and 0 <= mark < len(image)):
        raise InputError(f"{CENTRAL} of an image with {len(image)} atoms is {mark!r}: it must be an index from 0 to {len(image) - 1}.")
    return int(mark)
