"""A request to stop, from a queue that is out of time or from the keyboard, ends a run cleanly and at once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator

PATIENCE = 10.0  # s that the main thread has to come out of compiled code
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
    Signal handlers of the user's own are left alone, and so are runs in another thread than the main one.
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
    here = os.getpid()

    def handler(*_: object) -> None:
        if os.getpid() != here:  # a forked worker, which has nothing to tidy up
            os._exit(128 + signal.SIGTERM)
        raise Terminated

    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    gone = threading.Event()
    threading.Thread(target=_last_resort, args=(ear, gone, farewell), daemon=True).start()
    signal.signal(signal.SIGTERM, handler)
    before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        gone.set()
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        mouth.close()


def _last_resort(ear: socket.socket, gone: threading.Event, farewell: Callable[[str], None]) -> None:
    """End the process when SIGTERM came and the main thread does not get round to it."""
    with ear:
        while heard := ear.recv(1):
            if heard[0] == signal.SIGTERM and not gone.wait(PATIENCE):
                farewell("SIGTERM")
                os._exit(128 + signal.SIGTERM)
