"""Dynamics of LAMMPS that halts where an uncertainty is large, learns on the first process, and continues."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from ase.io import read

from amp.nft.amp_io import AmpModel
from amp.nft.interfaces.deck import compare_baseline, lammps_errors, packages, read_deck, run_lines, split_deck, variables_of
from amp.nft.interfaces.dumps import cut_after
from amp.nft.interfaces.halts import continuing
from amp.nft.interfaces.lammps import Attached, attach
from amp.nft.interfaces.waiting import from_first
from amp.nft.records import Checkpoint, Halt

SAME = 1e-2  # Å; a dumped frame this near to the halted one is the same


class Teacher(Protocol):
    """Anything that makes new ensembles, on the first process."""

    reason: str

    @property
    def to_begin_again(self) -> str:
        """Remedy of a user who repeats the dynamics from its first step, in words."""
        ...

    @property
    def finished_at(self) -> int | None:
        """Last step of dynamics that has finished before."""
        ...

    def begin(self) -> tuple[list[AmpModel] | None, Checkpoint | None]:
        """Return the members to begin with and the halt to resume from; None for members if the dynamics must not continue.

        Returns
        -------
        list of AmpModel or None
        Checkpoint or None
        """
        ...

    def learn(self, halt: Halt) -> list[AmpModel] | None:
        """Return the members to continue with, or None if a bound ends the dynamics.

        Parameters
        ----------
        halt : Halt

        Returns
        -------
        list of AmpModel or None
        """
        ...

    def end(self, step: int) -> None:
        """Record that the dynamics has reached its last step.

        Parameters
        ----------
        step : int
        """
        ...

    def rounds(self) -> tuple[Any, ...]:
        """Return a record of each halt.

        Returns
        -------
        tuple
        """
        ...


@dataclass(frozen=True)
class RelearnedDynamics:
    """Dynamics that learned from its halts.

    Attributes
    ----------
    finished : bool
        True if all runs of the deck have reached their last step.
    reason : str
        Reason of an end before this, or of nothing to do.
    rounds : tuple
        Each halt: step, uncertainty before and after, labels, ensemble.
    """

    finished: bool
    reason: str
    rounds: tuple[Any, ...]


def run_and_relearn(
    open_teacher: Callable[[str], AbstractContextManager[Teacher]],
    directory: str,
    deck: str,
    arguments: Sequence[str] = (),
    elements: Sequence[str] | None = None,
    baseline: str | None = None,
    every: int = 0,
) -> RelearnedDynamics:
    """Run a deck, learn at each halt, and continue; all processes call it together.

    Parameters
    ----------
    open_teacher : callable
        Takes the text of the deck; the first process alone calls it.
    directory : str
        Of restart files.
    deck : str
        Path of the deck.
    arguments : sequence of str
        Of LAMMPS.
    elements : sequence of str, optional
        Element of each atom type.
    baseline : str, optional
        Pair style that gives the baseline of the ensemble; see `attach`.
    every : int
        Steps between restart files of a run; 0: halts alone write them.

    Returns
    -------
    RelearnedDynamics

    Raises
    ------
    InputError, AmpFileError, UnsupportedModel, FileNotFoundError, RunStoreError
        On all processes, if a file does not fit.
    LammpsError
        If LAMMPS stops with an error.
    """
    mpi, lammps = packages()
    comm = mpi.COMM_WORLD
    with ExitStack() as stack:
        text, members, teacher, done, point = _begin(comm, stack, open_teacher, directory, deck)
        if done is not None or members is None:
            return from_first(comm, lambda: _result(teacher, done))
        parts = continuing(split_deck(text), directory, point, every)
        compare_baseline(comm, parts.head, members, arguments, elements, baseline)
        lmp = lammps(cmdargs=list(arguments), comm=comm)
        try:
            with lammps_errors(comm, members), tempfile.TemporaryDirectory() as scratch:
                for line in [*_variables(members, point), *(f"variable {name} string NONE" for name, _ in parts.dumps)]:
                    lmp.command(line)
                run_lines(lmp, Path(scratch, "head"), parts.head, comm)
                attached = attach(lmp, members, elements, fix=parts.fix, baseline=baseline)
                pupil = _Pupil(lmp, comm, attached, teacher, 0 if point is None else point.size)
                attached.again = pupil.look
                if point is not None:
                    attached.first = lambda step: pupil.cut_dumps(step, parts.dumps)
                run_lines(lmp, Path(scratch, Path(deck).name), parts.rest, comm)
                step, stopped = int(lmp.extract_global("ntimestep")), lmp.extract_variable("nft_stop") == "1"
        finally:
            lmp.close()
        if teacher is not None and not stopped:
            teacher.end(step)
        return from_first(comm, lambda: _result(teacher, None if stopped else step, has_run=True))


def _begin(
    comm: Any, stack: ExitStack, open_teacher: Callable[[str], AbstractContextManager[Teacher]], directory: str, deck: str
) -> tuple[str, list[AmpModel] | None, Teacher | None, int | None, Checkpoint | None]:
    """Return the text of the deck, the members, the teacher on the first process, the last step if all is done, and the last halt."""
    opened: list[Teacher] = []

    def begin() -> tuple[str, list[AmpModel] | None, int | None, Checkpoint | None]:
        text = read_deck(deck)
        continuing(split_deck(text), directory)  # refuses a deck before any work starts
        teacher = stack.enter_context(open_teacher(text))
        opened.append(teacher)
        if teacher.finished_at is not None:
            return text, None, teacher.finished_at, None
        members, point = teacher.begin()
        return text, members, None, point

    text, members, done, point = from_first(comm, begin)
    return text, members, opened[0] if opened else None, done, point


def _result(teacher: Teacher | None, end: int | None, has_run: bool = False) -> RelearnedDynamics:
    """Return the result of dynamics that reached its last step `end`, or none of it."""
    assert teacher is not None  # on the first process
    reason = teacher.reason
    if end is not None and not has_run:
        reason = f"The dynamics has finished before, at step {end}: {teacher.to_begin_again}."
    return RelearnedDynamics(end is not None, reason, teacher.rounds())


def _variables(members: list[AmpModel], point: Checkpoint | None) -> list[str]:
    """Return commands that define the variables of a deck."""
    run, first, last = (0, 0, 0) if point is None else (point.run, point.first, point.last)
    return [
        *variables_of(members),
        "variable nft_dump string NONE",
        "variable nft_stop string 0",
        "variable nft_run equal 0",
        "variable nft_halts equal 0",
        f"variable nft_resume equal {run}",
        f"variable nft_first_before equal {first}",
        f"variable nft_last_before equal {last}",
    ]


class _Pupil:
    """The side of each process: it gives a halt to the teacher and takes the new ensemble."""

    def __init__(self, lmp: Any, comm: Any, attached: Attached, teacher: Teacher | None, size: int) -> None:
        self._lmp, self._comm, self._attached, self._teacher = lmp, comm, attached, teacher
        self._halts, self._size = 0, size

    def look(self, step: int) -> None:
        """Learn if the deck has halted since the last look.

        Parameters
        ----------
        step : int
        """
        halts = int(self._lmp.extract_variable("nft_halts"))
        if halts == self._halts:
            return
        self._halts = halts
        atoms = self._gathered()
        self._lmp.flush_buffers()
        members = from_first(self._comm, lambda: self._taught(step, atoms), raised=True)
        if members is None:
            self._lmp.set_string_variable("nft_stop", "1")
            self._lmp.force_timeout()
        else:
            self._attached.reload(members)

    def cut_dumps(self, step: int, dumps: Sequence[tuple[str, str]]) -> None:
        """Remove frames after a step from the dumps: the process that was killed has written them, and they are made again.

        Parameters
        ----------
        step : int
            First one of the run that continues.
        dumps : sequence of (str, str)
            Variables with their paths, and their styles.
        """
        paths = [(self._lmp.extract_variable(name), style) for name, style in dumps]
        learned = self._lmp.extract_variable("nft_dump")
        for pattern, style in paths if self._comm.rank == 0 else []:
            for path in map(Path, glob(escape(pattern).replace("%", "[0-9]*"))):
                cut_after(path, step, self._size if pattern == learned else 0, style)

    def _taught(self, step: int, atoms: Atoms | None) -> list[AmpModel] | None:
        assert atoms is not None and self._teacher is not None  # on the first process
        run, first, last = (int(self._lmp.extract_variable(f"nft_{name}")) for name in ("run", "first", "last"))
        path = self._lmp.extract_variable("nft_dump")
        frames, size = ([], 0) if path == "NONE" else self._dumped(Path(path), atoms)
        directory = Path(self._lmp.extract_variable("nft_restart"))
        checkpoint = Checkpoint(str(directory), run, first, last, "" if path == "NONE" else path, size)
        members = self._teacher.learn(Halt(step, float(self._lmp.extract_variable("nft_limit")), atoms, frames, checkpoint))
        sys.stdout.flush()
        return members

    def _gathered(self) -> Atoms | None:
        """Return the atoms of all processes in the order of their IDs, on the first one."""
        n = self._lmp.extract_global("nlocal")
        get = self._lmp.numpy.extract_atom
        local = (get("id", nelem=n).copy(), get("type", nelem=n).copy(), get("x", nelem=n, dim=3).copy()) if n else None
        parts = [part for part in self._comm.gather(local) or [] if part is not None]
        if self._comm.rank:
            return None
        ids, types, positions = (np.concatenate([part[k] for part in parts]) for k in range(3))
        order = np.argsort(ids)
        low, high, xy, yz, xz, periodic, _ = self._lmp.extract_box()
        a, b, c = np.subtract(high, low)
        pbc = np.array(periodic, dtype=bool)
        numbers = [atomic_numbers[self._attached.elements[kind]] for kind in types[order].tolist()]
        cell = [[a, 0, 0], [xy, b, 0], [xz, yz, c]] if pbc.any() else None
        return Atoms(numbers=numbers, positions=positions[order], cell=cell, pbc=pbc)

    def _dumped(self, path: Path, atoms: Atoms) -> tuple[list[Atoms], int]:
        """Return the frames that were dumped since the last halt and differ from the halted one, and the size of the file."""
        if not path.is_file():
            return [], 0
        with open(path, encoding="utf-8") as file:
            file.seek(self._size if path.stat().st_size >= self._size else 0)
            text = file.read()
            self._size = file.tell()
        order = [self._attached.elements.get(number, "X") for number in range(1, max(self._attached.elements) + 1)]
        found = read(io.StringIO(text), ":", format="lammps-dump-text", specorder=order) if text.strip() else []
        assert isinstance(found, list)
        frames = [_like(frame, atoms) for frame in found if len(frame) == len(atoms) and (frame.numbers == atoms.numbers).all()]
        return [frame for frame in frames if np.abs(frame.positions - atoms.positions).max() > SAME], self._size


def _like(frame: Atoms, atoms: Atoms) -> Atoms:
    """Return a frame as the halted one is: without velocities, and without a cell where nothing is periodic."""
    cell = frame.cell if atoms.pbc.any() else None
    return Atoms(numbers=frame.numbers, positions=frame.positions, cell=cell, pbc=atoms.pbc)
