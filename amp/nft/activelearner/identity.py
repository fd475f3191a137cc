"""Identity of a run: the structures and settings that must be the same when it resumes.

A digest of each image and target is among the settings in the journal. Where digests differ, the structures that the run
stored are compared with the given ones, so that an error names the difference, and noise in the last digits is not a difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from amp.nft.run.state import RunState
from amp.nft.run.store import RunRecord, RunStore

ATOL = 1e-6  # Å, eV, eV/Å, e, Bohr magnetons, u: text formats keep eight decimals, and sums in another order change the last digits
RTOL = 1e-9  # of large values: a total energy of -1e5 eV has ten digits in a text file
SHOWN = 5  # differences in an error

Part = Callable[[Atoms], np.ndarray]


def _label(name: str) -> Part:
    """Return a function that gives a result of an image; it gives no values for a target, which has no calculator."""
    return lambda atoms: np.asarray(atoms.calc.results.get(name, []) if atoms.calc is not None else [], dtype=float)


PARTS: dict[str, tuple[str, Part]] = {
    "position": ("Å", lambda atoms: atoms.positions),
    "cell vector": ("Å", lambda atoms: atoms.cell.array),
    "periodicity": ("", lambda atoms: atoms.pbc.astype(float)),
    "energy": ("eV", _label("energy")),
    "force": ("eV/Å", _label("forces")),
    "initial charge": ("e", lambda atoms: atoms.get_initial_charges()),
    "magnetic moment": ("Bohr magnetons", lambda atoms: atoms.get_initial_magnetic_moments()),
    "mass": ("u", lambda atoms: atoms.get_masses()),
    "tag": ("", lambda atoms: atoms.get_tags().astype(float)),
}


def digest(atoms: Atoms) -> str:
    """Return a digest of a structure and its label: every atom, in order, rounded to `ATOL`.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    found = hashlib.sha256(atoms.numbers.astype("<i8").tobytes())
    for name, (_, values) in PARTS.items():
        rounded = np.round(values(atoms) / ATOL).astype("<i8")
        found.update(f"{name} {rounded.shape}".encode() + rounded.tobytes())
    return found.hexdigest()[:16]


def difference(before: Atoms, now: Atoms) -> str | None:
    """Return the first difference between two structures or their labels in words; None if they are equal within the tolerance.

    Parameters
    ----------
    before, now : Atoms

    Returns
    -------
    str or None
    """
    if not np.array_equal(before.numbers, now.numbers):
        return f"was {before.get_chemical_formula()}, is {now.get_chemical_formula()}, or has its atoms in another order"
    for name, (unit, values) in PARTS.items():
        a, b = values(before), values(now)
        if a.shape != b.shape:
            return f"{name}: another number of values"
        if (wrong := np.abs(b - a) > ATOL + RTOL * np.abs(a)).any():
            return _in_words(name, unit, a, b, wrong)
    return None


def _in_words(name: str, unit: str, a: np.ndarray, b: np.ndarray, wrong: np.ndarray) -> str:
    """Return the first wrong value in words; of several values per atom, all of its atom."""
    if a.ndim == 0:
        return f"{name} was {a:.8g}, is {b:.8g} {unit}"
    k = int(np.argwhere(wrong)[0][0])
    was, found = (np.array2string(np.atleast_1d(x[k]), precision=8) for x in (a, b))
    where = f" {k}" if name in ("cell vector", "periodicity") else f" of atom {k}"
    return f"{name}{where} was {was}, is {found} {unit}".rstrip()


def digests(images: Sequence[Atoms], targets: Sequence[Atoms]) -> dict[str, list[str]]:
    """Return the digests of the structures of a run, as settings for its journal.

    Parameters
    ----------
    images, targets : sequence of Atoms

    Returns
    -------
    dict of str to list of str
    """
    return {"images": [digest(image) for image in images], "targets": [digest(target) for target in targets]}


def kept_images(store: RunStore, images: list[Atoms]) -> dict[str, str]:
    """Store the images of a run.

    Parameters
    ----------
    store : RunStore
    images : list of Atoms

    Returns
    -------
    dict of str to str
        Field for the first event of the run; empty without images.
    """
    return {"images": store.keep_images(images)} if images else {}


def changed_structures(record: RunRecord, state: RunState, images: Sequence[Atoms], targets: Sequence[Atoms]) -> list[str]:
    """Return one line for each image and target that differs from those that a run began with.

    Parameters
    ----------
    record : RunRecord
        With the structures that were stored.
    state : RunState
        Of a run that has started.
    images, targets : sequence of Atoms
        As they are given now.

    Returns
    -------
    list of str
    """
    now = digests(images, targets)
    lines: list[str] = []
    if now["images"] != state.settings.get("images"):
        lines += _compare("images", record.images(state.images) if state.images else [], images)
    if now["targets"] != state.settings.get("targets"):
        lines += _compare("target_image", [record.image(name) for name in state.starts[-1].targets], targets)
    return [*lines[:SHOWN], f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else lines


def _compare(name: str, before: Sequence[Atoms], now: Sequence[Atoms]) -> list[str]:
    """Return one line for each structure that differs."""
    if len(before) != len(now):
        return [f"  {name}: was {len(before)} structures, is {len(now)}"]
    pairs = enumerate(zip(before, now, strict=True))
    return [f"  {name}[{i}] ({b.get_chemical_formula()}): {what}" for i, (a, b) in pairs if (what := difference(a, b)) is not None]
