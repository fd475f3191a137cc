"""A request to stop, from a queue that is out of time or from the keyboard, ends a run cleanly and at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

PATIENCE = 10.0  # s from SIGTERM to the end of the process, at the latest
GO_ON = "What is finished is safe: run the same script again to go on."


class Terminated(BaseException):
    """SIGTERM came; no `except Exception` or `except SystemExit` of a parent swallows this."""


@contextlib.contextmanager
def stops_cleanly(note: Callable[[str], object], log: Callable[[str], None]) -> Iterator[None]:
    """Turn SIGTERM into an orderly end with exit status 143, and say how to go on, also after Ctrl-C.

    Parameters
    ----------
    note : callable
        Is told the name of the signal before the end.
    log : callable
        Takes a message.

    Notes
    -----
    The process ends within `PATIENCE` seconds of SIGTERM, whatever is left to be done in it. Signal handlers of the
    user's own are left alone, and so are runs in another thread than the main one.
    """

    def farewell(name: str) -> None:
        note(name)
        log(f"\nStopped by {name}. {GO_ON}")

    try:
        with _listening(farewell):
            yield
    except KeyboardInterrupt:
        farewell("SIGINT")
        raise
    except Terminated:
        farewell("SIGTERM")
        raise SystemExit(128 + signal.SIGTERM) from None


@contextlib.contextmanager
def _listening(farewell: Callable[[str], None]) -> Iterator[None]:
    """Raise Terminated in here when SIGTERM comes; end the process if that takes too long."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def handler(*_: object) -> None:
        raise Terminated

    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    gone = threading.Event()
    threading.Thread(target=_last_resort, args=(ear, gone, farewell), daemon=True).start()
    signal.signal(signal.SIGTERM, handler)
    before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    _ears.add(mouth)
    try:
        yield
    finally:
        gone.set()
        _ears.discard(mouth)
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        mouth.close()


_ears: set[socket.socket] = set()


def _do_not_listen() -> None:
    """In a forked worker: its signals are not the driver's, and it has nothing to tidy up."""
    if _ears:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _ears.clear()


os.register_at_fork(after_in_child=_do_not_listen)


def _last_resort(ear: socket.socket, gone: threading.Event, farewell: Callable[[str], None]) -> None:
    """End the process some time after SIGTERM: compiled code may not come back, an executor wait for its labels."""
    with ear:
        while heard := ear.recv(1):
            if heard[0] == signal.SIGTERM:
                time.sleep(PATIENCE)
                if not gone.is_set():
                    farewell("SIGTERM")
                os._exit(128 + signal.SIGTERM)
