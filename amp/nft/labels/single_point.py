"""Single points of the parent calculator, reported as plain data for the gate.

This module may run in a worker on another machine, so it imports little.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import json
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from ase.calculators.singlepoint import SinglePointCalculator

from amp.nft.labels.gate import Label, LabelFailure, check, geometry, plain
from amp.nft.labels.identity import is_calculator, made
from amp.nft.system import files
from amp.nft.system.isolation import isolated
from amp.nft.system.liveness import Driver, Heartbeat, working_for
from amp.nft.system.signals import Terminated

Parent = BaseCalculator | Callable[[str], BaseCalculator]

WORKER = "worker.json"  # in a label's directory: who works on it
RESULT = "label.json"  # and the outcome
LARGEST, LARGEST_ATOM = 2**24, 2**11  # bytes of an outcome, and more per atom: geometries and forces take some 400
_PLACE = re.compile(r"(\d{1,9})-\w+")


def labelled_atom(directory: Path) -> int | None:
    """Return the atom for whose label a directory was made.

    Parameters
    ----------
    directory : Path

    Returns
    -------
    int or None
        None if its name is not ``<atom>-<id>``.
    """
    found = _PLACE.fullmatch(directory.name)
    return None if found is None else int(found[1])


@dataclass(frozen=True)
class LabelTask:
    """Data that a worker needs to make one label.

    Attributes
    ----------
    name : str
        No other task has it.
    parent : ASE calculator, or callable
    image : Atoms
    directory : str
        This task's own.
    timeout : float or None
        Seconds that the label may take.
    driver : Driver or None
        Who waits for it.
    parent_digest : str
        Of the identity of `parent`.
    """

    name: str
    parent: Parent
    image: Atoms
    directory: str
    timeout: float | None = None
    driver: Driver | None = None
    parent_digest: str = ""


class LabelTimeout(BaseException):
    """A label takes longer than it may; no `except Exception` of a parent swallows this."""


def check_parent(parent: Parent | None) -> Parent:
    """Check that a parent is an ASE calculator or a callable.

    Parameters
    ----------
    parent : calculator or callable

    Returns
    -------
    calculator or callable
        The parent.

    Raises
    ------
    TypeError
        It is not.
    """
    if isinstance(parent, type):
        raise TypeError(f"parent_calc is the class {parent.__name__}: give an instance, {parent.__name__}().")
    if parent is None or not (is_calculator(parent) or callable(parent)):
        raise TypeError(
            f"parent_calc is {parent!r}: give an ASE calculator such as EMT(), or a function f(directory) that returns a fresh one."
        )
    return parent


def parent_name(parent: Parent) -> str:
    """Return the name of the parent for logs and reports.

    Parameters
    ----------
    parent : calculator or callable

    Returns
    -------
    str
    """
    if isinstance(parent, partial):
        return parent_name(parent.func)
    named = parent if not is_calculator(parent) else type(parent)
    return getattr(named, "__qualname__", None) or type(named).__qualname__


def carry_out(task: LabelTask) -> dict[str, Any]:
    """Make a label in a worker.

    Parameters
    ----------
    task : LabelTask
        Its directory is made. While the worker is busy a note there says who it is; a good label is left there too,
        for a driver that has exited since.

    Returns
    -------
    dict
        Plain data for `amp.nft.labels.gate.check`: nothing of the parent has to travel back. This function does not raise.
    """
    directory = Path(task.directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        Heartbeat(directory / WORKER).beat()
        with working_for(task.driver):
            data = {"name": task.name, **measure(task.parent, task.image, directory, task.timeout)}
            if isinstance(check(task.image, data), Label):
                files.write(directory / RESULT, json.dumps({**data, "image": digest(task.image), "parent": task.parent_digest}).encode())
    except Exception as error:  # a disk that is full, for example
        data = {"name": task.name, **_failure(error)}
    return data


def left_label(directory: Path, image: Atoms, parent_digest: str) -> Label | LabelFailure | None:
    """Return the label that a worker left in a directory.

    Parameters
    ----------
    directory : Path
    image : Atoms
        Chunk to label.
    parent_digest : str
        Name of the parent's identity; see `amp.nft.labels.identity.digest_of`.

    Returns
    -------
    Label, LabelFailure or None
        A failure if it is bad; None if there is none of this image by this parent.
    """
    try:
        data = json.loads(files.read(directory / RESULT, LARGEST + LARGEST_ATOM * len(image)))
        return check(image, data) if (data["image"], data["parent"]) == (digest(image), parent_digest) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def digest(image: Atoms) -> str:
    """Return a name made of all data of an image that a parent sees.

    Parameters
    ----------
    image : Atoms

    Returns
    -------
    str
    """
    parts = {"cell": np.asarray(image.cell), "pbc": image.pbc, **image.arrays}
    described = [f"{name} {parts[name].dtype} {parts[name].shape}".encode() + parts[name].tobytes() for name in sorted(parts)]
    return hashlib.sha256(b"".join(described)).hexdigest()[:32]


def single_point(parent: Parent, image: Atoms, directory: str | os.PathLike[str], timeout: float | None = None) -> Label | LabelFailure:
    """Label one image.

    Parameters
    ----------
    parent : ASE calculator, or callable
        A calculator is copied where it can be, so that the caller's stays as it was. A callable gets
        `directory`, which is then made, and returns a fresh calculator.
    image : Atoms
        Not changed.
    directory : path
        This label's own directory.
    timeout : float, optional
        Seconds after which to give up. The parent is interrupted as Ctrl-C would do it, so this works in a main thread
        only, and not inside of compiled code that never comes back.

    Returns
    -------
    Label or LabelFailure
        Exceptions of the parent, a label that takes too long and one that the gate refuses become a LabelFailure.
    """
    label = check(image, measure(parent, image, directory, timeout))
    remove_if_empty(directory)  # ASE makes it for calculators that write nothing
    return label


def measure(parent: Parent, image: Atoms, directory: str | os.PathLike[str], timeout: float | None = None) -> dict[str, Any]:
    """Run the parent on an image as `single_point` does.

    The state of this process is restored afterwards, and the parent's programs end; see `amp.nft.system.isolation`.

    Parameters
    ----------
    parent : calculator or callable
    image : Atoms
    directory : str or path
    timeout : float, optional
        Limit in s.

    Returns
    -------
    dict
        Plain data for `amp.nft.labels.gate.check`.

    Raises
    ------
    KeyboardInterrupt, Terminated
        They end the run; any other error is part of the returned data.
    """
    start = time.perf_counter()
    try:
        with isolated(Path(directory).name) as scope, _deadline(timeout):
            atoms = image.copy()
            atoms.calc = make_calculator(parent, directory)
            scope.keep_programs = atoms.calc is parent  # it may need its programs for the next label
            identity = made(atoms.calc, directory)
            data = _report(atoms) | {"calculator": identity}
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException as error:  # of any kind that a parent raises
        return _failure(error)
    return data | {"seconds": time.perf_counter() - start}


def report(atoms: Atoms) -> dict[str, Any]:
    """Compute energy and forces by the calculator of atoms.

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    dict
        Plain data for `amp.nft.labels.gate.check`, also of an error.
    """
    try:
        return _report(atoms)
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException as error:  # of any kind that a parent raises
        return _failure(error)


def _report(atoms: Atoms) -> dict[str, Any]:
    seen = {"before the call": geometry(atoms)}
    data = {
        "energy": plain(atoms.get_potential_energy(apply_constraint=False)),
        "forces": plain(atoms.get_forces(apply_constraint=False)),
        "converged": plain(_converged(atoms.calc)),
    }
    seen["after the call"] = geometry(atoms)
    if isinstance(kept := getattr(atoms.calc, "atoms", None), Atoms):
        seen["in the calculator after the call"] = geometry(kept)
    return {"atoms": seen, **data, "seconds": 0.0, "calculator": {}}


def remove_if_empty(directory: str | os.PathLike[str]) -> None:
    """Remove a directory if it exists and is empty.

    Parameters
    ----------
    directory : str or path
    """
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def labelled(image: Atoms, label: Label) -> Atoms:
    """Return a copy of an image with its label.

    Parameters
    ----------
    image : Atoms
    label : Label

    Returns
    -------
    Atoms
    """
    atoms = image.copy()
    atoms.calc = SinglePointCalculator(atoms, energy=label.energy, forces=label.forces)
    return atoms


@contextlib.contextmanager
def _deadline(seconds: float | None) -> Iterator[None]:
    """Raise LabelTimeout in this block after the given number of seconds, if signals are available."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def give_up(*_: object) -> None:
        raise LabelTimeout(f"the label took longer than label_timeout = {seconds:g} s")

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _failure(error: BaseException) -> dict[str, Any]:
    try:
        message, trace = str(error), "".join(traceback.format_exception(error))
    except Exception as fault:  # an exception whose text raises
        message, trace = f"no message ({type(fault).__name__})", ""
    return {"kind": type(error).__name__, "message": message, "traceback": trace}


def make_calculator(parent: Any, directory: str | os.PathLike[str]) -> BaseCalculator:
    """Return a calculator that works in a directory.

    Parameters
    ----------
    parent : calculator or callable
    directory : str or path

    Returns
    -------
    calculator
        A fresh one, or a copy of `parent`; `parent` itself if it cannot be copied.

    Raises
    ------
    TypeError
        The function `parent` returned something else.
    """
    if not is_calculator(parent):
        Path(directory).mkdir(parents=True, exist_ok=True)
        made = parent(str(directory))
        if not is_calculator(made):
            raise TypeError(f"parent_calc returned {made!r}: a function f(directory) must return an ASE calculator")
        return made
    try:
        copied = copy.deepcopy(parent)
    except Exception:  # some calculators contain files, sockets or libraries, which cannot be copied
        return parent
    for number, writer in enumerate(_inside(copied)):
        _move(writer, Path(directory, *([str(number)] if number else [])))
    return copied


def _inside(thing: Any, depth: int = 3) -> Iterator[BaseCalculator]:
    """Yield a calculator, and those of which it is made."""
    if is_calculator(thing):
        yield thing
    if depth:
        held = thing if isinstance(thing, list | tuple) else getattr(thing, "__dict__", {}).values()
        for part in held:
            if is_calculator(part) or isinstance(part, list | tuple) or type(part).__module__.startswith("ase.calculators"):
                yield from _inside(part, depth - 1)


def _move(calculator: Any, directory: Path) -> None:
    """Let a calculator write its files in a directory."""
    before = getattr(calculator, "directory", None)
    if isinstance(before, str | Path):
        calculator.directory = type(before)(directory)


def _converged(calculator: BaseCalculator) -> Any:
    """Return the calculator's `converged`, called if it is a method without arguments; None if there is none."""
    flag = getattr(calculator, "converged", None)
    if not callable(flag):
        return flag
    try:
        inspect.signature(flag).bind()
    except (TypeError, ValueError):  # a method for another purpose
        return None
    return flag()
