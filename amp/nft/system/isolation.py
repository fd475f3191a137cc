"""Isolation of foreign code: the state of the process is restored after it, and the programs that it started are ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import psutil

from amp.nft.errors import printable
from amp.nft.system.processes import MARK, end
from amp.nft.system.signals import guards

GRACE = 2.0  # s from SIGTERM to SIGKILL for programs that are left
_TASKS = Path("/proc/self/task")  # Linux only
_GET_SUBREAPER, _SET_SUBREAPER = 37, 36  # of Linux's prctl: orphans of this process's descendants become its children


@dataclass
class Scope:
    """One block of isolated code.

    Attributes
    ----------
    keep_programs : bool
        True if its programs belong to an object that outlives the block.
    """

    keep_programs: bool = False


@contextlib.contextmanager
def isolated(mark: str) -> Iterator[Scope]:
    """Restore the state of this process after foreign code, and end the programs that the code started.

    The state is the working directory, umask, environment, standard streams and NumPy's error handling; in the main thread
    also signal handlers, the signal mask and the timer. Where blocks overlap in threads, the first one takes the state and
    the last one restores it. A fork of this process that the code leaves behind exits at the end of the block.

    Parameters
    ----------
    mark : str
        Name of the work, in the environment variable `amp.nft.system.processes.MARK` of its programs. Programs that start while
        blocks overlap have a mark of all.
    """
    process, scope = os.getpid(), Scope()
    _enter(mark)
    try:
        yield scope
    finally:
        if os.getpid() != process:
            os._exit(0)
        _leave(scope)


# -- one block at a time ----------------------------------------------------------------------------------------------

_lock = threading.Lock()
_blocks = 0
_state: _State | None = None


def _enter(mark: str) -> None:
    global _blocks, _state
    with _lock:
        _blocks += 1
        if _state is None:
            _state = _State()
            sys.stdout, sys.stderr = _Printable(sys.stdout), _Printable(sys.stderr)
        else:  # from now on it is not known which block starts a program
            mark = f"{mark} and others"
        _state.programs.enter(mark)
        os.environ[MARK] = mark


def _leave(scope: Scope) -> None:
    global _blocks, _state
    with _lock:
        _blocks -= 1
        if _blocks == 0 and _state is not None:
            state, _state = _state, None
            state.restore(scope.keep_programs)


# -- state of a process ------------------------------------------------------------------------------------------------


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


@dataclass
class _State:
    """The state of this process at the time of creation."""

    directory: str = field(default_factory=_directory)
    umask: int = field(default_factory=_umask)
    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    streams: tuple[TextIO, TextIO] = field(default_factory=lambda: (sys.stdout, sys.stderr))
    errors: Any = field(default_factory=np.geterr)
    signals: _Signals | None = field(default_factory=lambda: _Signals() if threading.current_thread() is threading.main_thread() else None)
    programs: _Programs = field(default_factory=lambda: _Programs())

    def restore(self, keep_programs: bool) -> None:
        """Restore changed state."""
        if self.signals is not None:
            self.signals.restore()
        sys.stdout, sys.stderr = self.streams
        os.umask(self.umask)
        np.seterr(**self.errors)
        if self.directory and _directory() != self.directory:
            with contextlib.suppress(OSError):
                os.chdir(self.directory)
        for name in os.environ.keys() - self.environ.keys():
            del os.environ[name]
        for name, value in self.environ.items():
            if os.environ.get(name) != value:
                os.environ[name] = value
        self.programs.restore(keep_programs)


class _Signals:
    """Handlers, mask, timer and wakeup descriptor of signals, which only the main thread can set."""

    def __init__(self) -> None:
        self._handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._timer = signal.getitimer(signal.ITIMER_REAL)
        self._wakeup = _wakeup_descriptor()

    def restore(self) -> None:
        """Restore changed state; a timer that was off is off again."""
        if not self._timer[0]:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._handlers.items():
            if handler is not None and signal.getsignal(number) != handler:  # None: not set from Python
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if _wakeup_descriptor() != self._wakeup:
            signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)


def _wakeup_descriptor() -> int:
    now = signal.set_wakeup_fd(-1)
    if now != -1:
        signal.set_wakeup_fd(now, warn_on_full_buffer=False)
    return now


class _Printable:
    """A stream that takes text without control characters."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


# -- programs ------------------------------------------------------------------------------------------------------------


class _Programs:
    """Children of this process; orphans of the descendants that it gets later become its children too.

    Foreign code did not start the children of other threads, which are those that ran before the block. The main thread is not one of them,
    because orphans become its children.
    """

    def __init__(self) -> None:
        self.marks: set[str] = set()
        self._other_threads = set(os.listdir(_TASKS)) - {str(os.getpid())} if _TASKS.exists() else set()
        self._before = _children()
        self._alone = not any(_runs(pid) for pid in self._before - _helpers())
        self._adopts = _adopt(True)

    def enter(self, mark: str) -> None:
        """Begin a block in this thread, whose children are foreign code's from now on."""
        self.marks.add(mark)
        self._other_threads.discard(str(threading.get_native_id()))

    def restore(self, keep: bool) -> None:
        """End those that were started since, with their descendants, unless they are to be kept."""
        if not keep and _children() - self._not_ours():
            end(self._left, GRACE)
            for process in self._left():
                with contextlib.suppress(OSError):
                    os.waitpid(process.pid, os.WNOHANG)
        _adopt(self._adopts)

    def _left(self) -> list[psutil.Process]:
        known = self._not_ours()
        new = [child for child in psutil.Process().children() if child.pid not in known]
        mine = [child for child in new if self._alone or self._started_here(child)]
        found = list(mine)
        for child in mine:
            with contextlib.suppress(psutil.Error):
                found += child.children(recursive=True)
        return found

    def _not_ours(self) -> set[int]:
        return self._before | _helpers() | _children_of(self._other_threads)

    def _started_here(self, child: psutil.Process) -> bool:
        """Return True if a new child belongs to this block, by its mark or as a plain fork, not to an older child."""
        try:
            return child.environ().get(MARK) in self.marks or child.cmdline() in ([], psutil.Process().cmdline())
        except psutil.Error:
            return False


def _children() -> set[int]:
    """Return the numbers of this process's children."""
    if not _TASKS.exists():
        return {child.pid for child in psutil.Process().children()}
    return _children_of(os.listdir(_TASKS))


def _children_of(threads: Iterable[str]) -> set[int]:
    """Return the numbers of the children that threads of this process have started, by the threads' numbers."""
    found: set[int] = set()
    for thread in threads:
        with contextlib.suppress(OSError):  # the thread has ended
            found.update(map(int, (_TASKS / thread / "children").read_text().split()))
    return found


def _runs(pid: int) -> bool:
    """Return True unless a process has ended, also if its parent has not yet read its status."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def _helpers() -> set[int]:
    """Return the processes that Python and this package start for themselves and expect to run."""
    return {getattr(getattr(resource_tracker, "_resource_tracker", None), "_pid", None) or 0} | guards()


def _adopt(orphans: bool) -> bool:
    """Make this process the parent of its descendants' orphans, or not, and return the setting before; Linux only."""
    try:
        before = ctypes.c_int()
        prctl = ctypes.CDLL(None).prctl
        prctl(_GET_SUBREAPER, ctypes.byref(before), 0, 0, 0)
        prctl(_SET_SUBREAPER, int(orphans), 0, 0, 0)
        return bool(before.value)
    except (OSError, AttributeError, TypeError):
        return False
