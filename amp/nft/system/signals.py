"""End a run cleanly and soon after a request to stop, from a queue that is out of time or from the keyboard."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from amp.nft.system.liveness import labels_running
from amp.nft.system.processes import exit_now

PATIENCE = 10.0  # s from SIGTERM to the exit of the process, at the latest
GRACE = 5.0  # s more for compiled code that keeps Python from running
RESUME = "Finished work is saved: rerun the same script or command to resume."


class Terminated(BaseException):
    """SIGTERM arrived; no `except Exception` or `except SystemExit` of a parent catches this."""


@contextlib.contextmanager
def stops_cleanly(note: Callable[[str], object], log: Callable[[str], None]) -> Iterator[None]:
    """Turn SIGTERM into an orderly end with exit status 143, and log how to resume, also after Ctrl-C.

    Parameters
    ----------
    note : callable
        Called with the name of the signal before the end.
    log : callable
        Takes a message.

    Notes
    -----
    If this block, or a label in a thread of this process, has not ended `PATIENCE` seconds after SIGTERM, the process exits.
    If compiled code keeps Python from running, the process is killed `GRACE` seconds later, without a note.
    The caller's own signal handlers stay in place, and runs outside the main thread handle no signals.
    """

    def farewell(name: str) -> None:
        note(name)
        log(f"\nStopped by {name}. {RESUME}")

    try:
        with _terminable(farewell):
            yield
    except KeyboardInterrupt as interrupt:
        farewell("SIGINT")
        interrupt.add_note(RESUME)  # the log says so already
        raise
    except Terminated:
        farewell("SIGTERM")
        raise SystemExit(128 + signal.SIGTERM) from None


@contextlib.contextmanager
def _terminable(farewell: Callable[[str], None]) -> Iterator[None]:
    """Raise Terminated in this block when SIGTERM arrives; see that the block ends then."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    guard = _Guard(farewell)

    def handler(*_: object) -> None:
        guard.asked = True
        raise Terminated

    signal.signal(signal.SIGTERM, handler)
    before = signal.set_wakeup_fd(guard.sender.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        guard.leave_block()


class _Guard:
    """A small process that counts the seconds from SIGTERM, since no thread runs while compiled code keeps Python's lock.

    Python's signal handler in C writes each signal's number to `sender`.
    """

    def __init__(self, farewell: Callable[[str], None]) -> None:
        self.asked = False
        self._in_block = True
        self._farewell = farewell
        self.sender, self._receiver = socket.socketpair()
        self.sender.setblocking(False)
        script = Path(__file__).with_name("guard.py")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(script), str(PATIENCE), str(GRACE)],
            stdin=self._receiver.fileno(),
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid
        _guards.add(self)
        threading.Thread(target=self._exit_when_told, name="amp.nft guard", daemon=True).start()

    def leave_block(self) -> None:
        """Stop guarding, unless SIGTERM has arrived and labels still run in threads: their executor would wait for them."""
        self._in_block = False
        if not (self.asked and labels_running()):
            self.close()

    def close(self) -> None:
        """Release the process."""
        self.detach()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE)

    def detach(self) -> None:
        """Close this process's ends of the line to the guard."""
        _guards.discard(self)
        self.sender.close()
        self._receiver.close()

    def _exit_when_told(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as told:
            if not told.read(1):
                return
        if self._in_block:
            self._farewell("SIGTERM")
        if self._in_block or labels_running():
            exit_now(128 + signal.SIGTERM)
        self.close()


_guards: set[_Guard] = set()


def guards() -> set[int]:
    """Return the numbers of the processes that guard a run of this process.

    Returns
    -------
    set of int
    """
    return {guard.pid for guard in _guards}


def _forked() -> None:
    """In a forked worker: its signals are not the driver's."""
    if _guards:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for guard in list(_guards):
        guard.detach()


os.register_at_fork(after_in_child=_forked)
