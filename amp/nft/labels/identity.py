"""Identity of a parent: the method and settings that determine its labels, as plain data that a journal records."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms

EXCLUDED = frozenset(
    """
    directory label prefix txt log logfile outfile trajectory outdir wfcdir tmpdir scratch restart
    command profile parallel mpi comm communicator device
    cores ncores nproc nprocs ncore npar kpar nsim threads nthreads num_threads num_workers
    memory mem maxmem port host unixsocket socketname timeout
    verbosity verbose print_level cache_api
    """.split()
)  # settings of the place, the resources and the output of a calculation, in lower case; docs/formats.rst lists them
STATE = frozenset({"atoms", "results", "converged", "use_cache", "name", "implemented_properties"})  # not settings of a calculator
DEEP = 6  # levels of objects inside objects that an identity follows
LARGE = 50  # numbers above which an array is represented by its hash

Identity = dict[str, Any]


def identify(parent: Any) -> Identity:
    """Return the identity of a parent.

    Parameters
    ----------
    parent : ASE calculator, or callable

    Returns
    -------
    dict
        Plain data. Of a calculator the class and its parameters (``todict()`` and ``parameters``; its public attributes if
        both are empty); of a function the qualified name, with the arguments of a partial. Settings whose names are in
        `EXCLUDED` are skipped.
    """
    if is_calculator(parent):
        return {"calculator": _name(type(parent)), "parameters": settings(parent) or _attributes(parent, DEEP)}
    return _plain(parent, DEEP)


def settings(calculator: Any, directory: str = "") -> dict[str, Any]:
    """Return the settings that a calculator states in ``todict()`` and ``parameters``.

    Parameters
    ----------
    calculator : object
    directory : str
        Directory of its label, replaced by a placeholder; none if empty.

    Returns
    -------
    dict
    """
    try:
        stated = dict(calculator.todict())
    except Exception:  # not every calculator has it, and some raise
        stated = {}
    parameters = getattr(calculator, "parameters", None)
    found = _plain({**stated, **(parameters if isinstance(parameters, Mapping) else {})}, DEEP)
    return json.loads(json.dumps(found).replace(json.dumps(directory)[1:-1], "<directory>")) if directory else found


def made(calculator: Any, directory: str | os.PathLike[str]) -> Identity:
    """Return the identity of the calculator of one label: its class and settings.

    Parameters
    ----------
    calculator : object
    directory : str or path
        Directory of its label.

    Returns
    -------
    dict
    """
    return {"calculator": _name(type(calculator)), "parameters": settings(calculator, os.fspath(directory))}


def digest_of(identity: Identity) -> str:
    """Return a short name of an identity.

    Parameters
    ----------
    identity : dict

    Returns
    -------
    str
        Equal for equal identities.
    """
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def structure_key(atoms: Atoms) -> str:
    """Return a name made of all that a calculator sees of a structure; a copy that was stored and read has the same.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    str
        32 hexadecimal digits.
    """
    parts = (atoms.positions, atoms.cell.array, atoms.pbc, atoms.get_initial_charges(), atoms.get_initial_magnetic_moments())
    data = [atoms.numbers.astype("<i8").tobytes(), *(np.asarray(part, dtype="<f8").tobytes() for part in parts)]
    return hashlib.sha256(b"".join(data)).hexdigest()[:32]


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Yield one line for each setting in which two identities differ.

    Parameters
    ----------
    before, now : object
    path : str
        Name of the setting that contains them.

    Yields
    ------
    str
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif before != now:
        yield f"  {path or 'parent'}: was {before!r}, is {now!r}"


def is_calculator(thing: object) -> bool:
    """Return True for an object, not a class, that computes energies and forces as ASE's calculators do.

    Parameters
    ----------
    thing : object

    Returns
    -------
    bool
    """
    return not isinstance(thing, type) and all(hasattr(thing, method) for method in ("get_potential_energy", "get_forces"))


def _plain(value: Any, depth: int) -> Any:
    """Return any value as plain data, without places in memory, so that two processes give the same."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(float(value))  # JSON has none
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth == 0:
        return _name(type(value))
    for kinds, convert in _CONVERSIONS:
        if isinstance(value, kinds):
            return convert(value, depth - 1)
    if is_calculator(value):
        return identify(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return _function(value, depth - 1)
    return {"class": _name(type(value)), **_attributes(value, depth - 1)}


def _mapping(value: Mapping, depth: int) -> dict[str, Any]:
    kept = {str(key): item for key, item in value.items() if str(key).lower() not in EXCLUDED}
    return {key: _plain(kept[key], depth) for key in sorted(kept)}


def _array(value: np.ndarray, depth: int) -> Any:
    if value.dtype.kind in "biuf" and value.size <= LARGE:
        return value.tolist()
    kind = f"{value.dtype} {value.shape}"
    return f"{kind} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]}" if value.dtype != object else kind


def _partial(value: partial, depth: int) -> dict[str, Any]:
    inner = _plain(value.func, depth)
    arguments = {**{str(k): argument for k, argument in enumerate(value.args)}, **value.keywords}
    return {**inner, "arguments": {**inner.get("arguments", {}), **_mapping(arguments, depth)}}


def _function(value: Callable, depth: int) -> dict[str, Any]:
    """Return the qualified name of a function or class, and of a bound method its object."""
    owner = getattr(value, "__self__", None)
    bound = {} if owner is None or isinstance(owner, type) or type(owner).__name__ == "module" else {"of": _plain(owner, depth)}
    return {"function": _name(value), **bound}


def _attributes(value: Any, depth: int) -> dict[str, Any]:
    """Return the public attributes of an object that are not methods or state."""
    found = getattr(value, "__dict__", {})
    return _mapping({name: item for name, item in found.items() if name[0] != "_" and name not in STATE and not callable(item)}, depth)


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


_CONVERSIONS: tuple[tuple[Any, Callable[[Any, int], Any]], ...] = (
    (Mapping, _mapping),
    (list | tuple, lambda value, depth: [_plain(item, depth) for item in value]),
    (set | frozenset, lambda value, depth: sorted(str(_plain(item, depth)) for item in value)),
    (np.ndarray, _array),
    (np.generic, lambda value, depth: value.item() if value.dtype.kind in "biuf" else str(value)),
    (complex | bytes, lambda value, depth: repr(value)),
    (os.PathLike, lambda value, depth: os.fspath(value)),
    (Enum, lambda value, depth: str(value)),
    (partial, _partial),
)
