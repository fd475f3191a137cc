"""The gate for labels: data becomes a `Label` here only, checked against the image of which it was requested.

The driver calls `check` at the moment it accepts a label, whether this process, a worker, an executor, a directory that a
worker left or a run's journal delivers it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.errors import printable
from amp.nft.inputs.arguments import ABSURD_FORCE

SAME = 1e-5  # Å; the positions and cells of a parent that reads them back from a file differ by rounding
SHOWN = 80  # characters of a wrong value in a message


@dataclass(frozen=True)
class Label:
    """Energy (eV) and forces (atoms, 3; eV/Å) of one image, the seconds that they took, and the calculator's identity."""

    energy: float
    forces: np.ndarray
    seconds: float
    calculator: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelFailure:
    """Reason why a label failed: the kind of error, its message, its traceback."""

    kind: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def check(image: Atoms, data: Any) -> Label | LabelFailure:
    """Accept or refuse a label.

    Parameters
    ----------
    image : Atoms
        The image of which the label was requested.
    data : dict
        A failure as ``kind``, ``message`` and ``traceback``, or a label: ``atoms``, which maps a time, such as 'after the
        call', to the `geometry` at that time; ``energy``, ``forces`` and ``converged`` as `plain` data; ``seconds``;
        ``calculator``, its identity.

    Returns
    -------
    Label or LabelFailure
        A Label if all geometries are that of `image`, the energy is one finite real number (eV), the forces (eV/Å) are
        finite real numbers of shape (atoms, 3) within `ABSURD_FORCE`, and the parent does not report that it did not
        converge. This function does not raise.
    """
    try:
        if "kind" in data:
            return LabelFailure(*(printable(str(data[name])) for name in ("kind", "message", "traceback")))
        if (fault := next(_faults(image, data), None)) is not None:
            return LabelFailure("BadLabel", fault)
        forces = np.array(data["forces"]["values"], dtype=float)
        return Label(float(_array(data["energy"]).item()), forces, float(data["seconds"]), dict(data["calculator"]))
    except Exception as error:  # an executor may return anything
        return LabelFailure("WrongResult", printable(f"{str(data)[:SHOWN]!r} is not a label ({type(error).__name__}: {error})"))


def geometry(atoms: Atoms) -> dict[str, Any]:
    """Return numbers, positions (Å), cell (Å) and periodicity of atoms as plain data.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    dict
    """
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": np.asarray(atoms.cell).tolist(),
        "pbc": atoms.pbc.tolist(),
    }


def plain(value: Any) -> dict[str, Any] | None:
    """Return a value as plain data.

    Parameters
    ----------
    value : object
        A number or an array; only the type and the text of any other value are kept.

    Returns
    -------
    dict or None
        None for None.
    """
    if value is None:
        return None
    array = np.asarray(value)
    number = array.dtype.kind in "biuf" and not np.ma.is_masked(value)
    kind = type(value).__name__ if array.dtype.kind == "O" else array.dtype.name
    if array.dtype.kind == "f":
        array = array.astype(float)  # also from types that JSON does not know
    return {"type": kind, "values": array.tolist() if number else str(value)[:SHOWN]}


def stored(atoms: Atoms) -> dict[str, Any]:
    """Return the data for `check` of an image that has its label.

    Parameters
    ----------
    atoms : Atoms
        With a calculator that has energy and forces; ASE raises an error otherwise.

    Returns
    -------
    dict
    """
    return {
        "atoms": {"in the file": geometry(atoms)},
        "energy": plain(atoms.get_potential_energy(apply_constraint=False)),
        "forces": plain(atoms.get_forces(apply_constraint=False)),
        "converged": None,
        "seconds": 0.0,
        "calculator": {},
    }


def _faults(image: Atoms, data: dict[str, Any]) -> Iterator[str]:
    """Yield the faults of a label."""
    if not data["atoms"]:
        yield "the label does not say of which atoms it is"
    for time, atoms in data["atoms"].items():
        yield from _other_atoms(geometry(image), atoms, time)
    yield from _bad_energy(data["energy"])
    yield from _bad_forces(data["forces"], len(image))
    yield from _unconverged(data["converged"])


def _other_atoms(asked: dict[str, Any], found: dict[str, Any], time: str) -> Iterator[str]:
    """Yield the differences between the atoms of the image and those at some time."""
    rule = "a label is a single point of the atoms as given: turn sorting, wrapping and relaxation off in the parent"
    if asked["numbers"] != found["numbers"]:
        yield f"{time} the atoms have other elements or another order; {rule}"
    elif asked["pbc"] != found["pbc"]:
        yield f"{time} the periodicity is {found['pbc']}, not {asked['pbc']}; {rule}"
    else:
        for name in ("positions", "cell"):
            same_shape = np.shape(asked[name]) == np.shape(found[name])
            distance = np.abs(np.subtract(asked[name], found[name])).max(initial=0.0) if same_shape else np.inf
            if not distance <= SAME:
                yield f"{time} the {name} differ by up to {distance:.3g} Å; {rule}"


def _array(data: dict[str, Any] | None) -> np.ndarray:
    return np.asarray(None if data is None else data["values"])


def _bad_energy(data: dict[str, Any] | None) -> Iterator[str]:
    energy = _array(data)
    if energy.dtype.kind not in "iuf" or energy.size != 1:
        yield f"the energy is {_shown(data)}: it must be one real number, in eV"
    elif not np.isfinite(energy).all():
        yield f"the energy is not finite ({energy.item()} eV)"


def _bad_forces(data: dict[str, Any] | None, n_atoms: int) -> Iterator[str]:
    forces = _array(data)
    if forces.dtype.kind not in "iuf":
        yield f"the forces are {_shown(data)}: they must be real numbers, in eV/Å"
    elif forces.shape != (n_atoms, 3):
        yield f"the forces have shape {forces.shape}, not {(n_atoms, 3)}"
    elif not np.isfinite(forces).all():
        yield f"the forces are not finite, first that on atom {np.flatnonzero(~np.isfinite(forces).all(axis=1))[0]}"
    elif (largest := np.abs(forces).max(initial=0.0)) > ABSURD_FORCE:
        yield f"a force component of {largest:.3g} eV/Å is beyond {ABSURD_FORCE:.0e} eV/Å"


def _unconverged(data: dict[str, Any] | None) -> Iterator[str]:
    """Return the failure in the parent's `converged`, if it has one: False or 0, also in an array, or a value of another kind."""
    flag = _array(data)
    if data is None:
        return
    if flag.size != 1 or flag.dtype.kind not in "biu" or flag.item() not in (0, 1):
        yield f"the parent's converged is {_shown(data)}: it must be True, False or None"
    elif not flag.item():
        yield "the parent calculator reports that it did not converge"


def _shown(data: dict[str, Any] | None) -> str:
    return "None" if data is None else printable(f"{str(data['values'])[:SHOWN]} ({data['type']})")
