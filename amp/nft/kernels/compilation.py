"""Detect compilation of kernels, and measure its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numba.core import event

from amp.nft.kernels.second_compiler import WAITING, second_compiler

MESSAGE = "Compiling kernels, once per machine; this takes about half a minute of processor time."


@dataclass
class Compiled:
    """Seconds spent in compilation so far, on any thread, or in waiting for that of a second process."""

    seconds: float = 0.0


class _Listener(event.Listener):
    """Report the first compilation, and add up the time of all."""

    def __init__(self, tell: Callable[[str], object], compiled: Compiled) -> None:
        self._tell, self._compiled = tell, compiled
        self._depth, self._begin, self._told, self._lock = 0, 0.0, False, threading.RLock()

    def on_start(self, event: Any) -> None:
        """Note that a compilation starts; those of inner functions are part of a kernel's."""
        with self._lock:
            if self._depth == 0:
                self._begin = time.perf_counter()
                if not self._told:
                    self._told = True
                    self._tell(MESSAGE)
            self._depth += 1

    def on_end(self, event: Any) -> None:
        """Note that a compilation ends."""
        with self._lock:
            self._depth -= 1
            if self._depth == 0:
                self._compiled.seconds += time.perf_counter() - self._begin


@contextmanager
def announced(tell: Callable[[str], object], meanwhile: Callable[[], object] = lambda: None) -> Iterator[Compiled]:
    """Report the first compilation within the block, and measure the time of all.

    Parameters
    ----------
    tell : callable
        Called once with a message, where kernels are not in numba's cache on disk yet.
    meanwhile : callable
        Compiles kernels that are needed later; called once if this thread has to wait for a kernel of a second process.

    Yields
    ------
    Compiled
        Its `seconds` are the wall time during which some thread compiled.
    """
    compiled = Compiled()
    listener = _Listener(tell, compiled)
    with (
        event.install_listener("numba:compile", listener),
        event.install_listener(WAITING, listener),
        second_compiler.work_while_waiting(meanwhile),
    ):
        yield compiled
