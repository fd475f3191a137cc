"""Energy and forces of an image, under ASE's names or under the names that another program gave them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from amp.nft.errors import InputError

SHOWN = 12  # names of an image in an error
WHERE = "in Python and in [system] of nft.toml; --energy-key and --forces-key of fit, evaluate, report and import"


def labels_of(image: Atoms, name: str, energy_key: str | None = None, forces_key: str | None = None) -> tuple[float, np.ndarray]:
    """Return the energy and forces of an image.

    Parameters
    ----------
    image : Atoms
    name : str
        Its name in errors.
    energy_key : str, optional
        Name of the energy in ``info``; that of the calculator if not given.
    forces_key : str, optional
        Name of the forces in the arrays; those of the calculator if not given.

    Returns
    -------
    energy : float
        eV.
    forces : ndarray, shape (atoms, 3)
        eV/Å.

    Raises
    ------
    InputError
        The image lacks one of them; the error lists the names that it has.
    """
    try:
        if image.calc is None and None in (energy_key, forces_key):
            raise PropertyNotImplementedError("no calculator")
        energy = image.get_potential_energy(apply_constraint=False) if energy_key is None else _energy(image, energy_key)
        forces = image.get_forces(apply_constraint=False) if forces_key is None else _forces(image, forces_key)
    except (PropertyNotImplementedError, RuntimeError, _Missing) as error:
        raise InputError(f"{name} has no energy or no forces ({error}): every training image needs both. {_remedy(image)}") from error
    return float(energy), np.array(forces, dtype=float)


def forces_of(image: Atoms, name: str, forces_key: str | None = None) -> np.ndarray:
    """Return the forces of an image, whose energy may be missing.

    Parameters
    ----------
    image : Atoms
    name : str
        Its name in errors.
    forces_key : str, optional
        Name of the forces in the arrays; those of the calculator if not given.

    Returns
    -------
    ndarray, shape (atoms, 3)
        eV/Å.

    Raises
    ------
    InputError
        The image has none; the error lists the names that it has.
    """
    try:
        if image.calc is None and forces_key is None:
            raise PropertyNotImplementedError("no calculator")
        forces = image.get_forces(apply_constraint=False) if forces_key is None else _forces(image, forces_key)
    except (PropertyNotImplementedError, RuntimeError, _Missing) as error:
        raise InputError(f"{name} carries no forces ({error}). {_remedy(image, energies=False)}") from error
    return np.array(forces, dtype=float)


def check_keys(**keys: str | None) -> None:
    """Check that the names of labels are texts.

    Parameters
    ----------
    **keys : str or None
        By the names of the arguments that the user gave.

    Raises
    ------
    InputError
        A name is not a text.
    """
    for name, key in keys.items():
        if key is not None and not (isinstance(key, str) and key):
            raise InputError(f"{name} is {key!r}: it must be a name in the file, such as 'REF_{name.removesuffix('_key')}'.")


class _Missing(Exception):
    """A name that an image does not have, or whose value is not a label."""


def _energy(image: Atoms, key: str) -> float:
    if not _is_energy(image, image.info.get(key)):
        raise _Missing(_fault("energy_key", key, image.info, "info", "one number"))
    return float(np.asarray(image.info[key]).item())


def _forces(image: Atoms, key: str) -> np.ndarray:
    if not _is_forces(image, image.arrays.get(key)):
        raise _Missing(_fault("forces_key", key, image.arrays, "arrays", "three numbers for each atom"))
    return image.arrays[key]


def _fault(argument: str, key: str, values: Any, place: str, rule: str) -> str:
    return f"{argument} is {key!r}, " + (f"which is not {rule} in its {place}" if key in values else f"which is not in its {place}")


def _is_energy(image: Atoms, value: Any) -> bool:
    found = np.asarray(value)
    return found.size == 1 and found.dtype.kind in "fiu"


def _is_forces(image: Atoms, value: Any) -> bool:
    found = np.asarray(value)
    return found.shape == (len(image), 3) and found.dtype.kind in "fiu"


def _remedy(image: Atoms, energies: bool = True) -> str:
    """Return the names that an image has, and those that may be its labels."""
    own = {name: value for name, value in image.arrays.items() if name not in ("numbers", "positions")}
    results = {} if image.calc is None else {name: value for name, value in image.calc.results.items() if value is not None}
    places = {"info": image.info, "arrays": own, "ASE's results": results}
    found = "; ".join(f"{place}: {_listed(values)}" for place, values in places.items() if values)
    energy = _like(image, image.info, _is_energy, "energ") if energies and "energy" not in results else []
    forces = [] if "forces" in results else _like(image, own, _is_forces, "forc")
    keys = [f"{argument}={' or '.join(map(repr, names))}" for argument, names in (("energy_key", energy), ("forces_key", forces)) if names]
    listed = f"It has {found}. " if found else ""
    if keys:
        return f"{listed}Give {' and '.join(keys)} ({WHERE})."
    return f"{listed}Compute them with the parent calculator before you save the image."


def _like(image: Atoms, values: Any, is_label: Callable[[Atoms, Any], bool], word: str) -> list[str]:
    """Return the names that may be a label."""
    return [str(name) for name, value in values.items() if word in str(name).lower() and is_label(image, value)]


def _listed(values: Any) -> str:
    names = [str(name) for name in values]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
