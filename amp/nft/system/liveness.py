"""Workers that lost their driver end themselves: nobody else tells them, and a queue bills them as long as they wait."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from amp.nft.system.processes import Process, has_died, machine, this_process

SIGN = "driver.alive"  # touched by the driver as long as it waits for labels
BEAT = 5.0  # s between two touches
SILENCE = 300.0  # s without one, after which a driver on another machine counts as gone; shared file systems are slow
LOOK = 1.0  # s between two looks at the driver


@dataclass(frozen=True)
class Driver:
    """The process that waits for a worker's labels.

    Attributes
    ----------
    process : Process
    sign : str
        File that it touches as long as it lives, for workers on other machines.
    owns : bool
        Whether its workers work for it alone.
    """

    process: Process
    sign: str
    owns: bool

    @property
    def is_parent(self) -> bool:
        """Whether this process belongs to a process pool of the driver."""
        parent = multiprocessing.parent_process()
        return parent is not None and parent.pid == self.process.pid and self.process.machine == machine()


class SignOfLife:
    """A file that a driver touches now and then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = -BEAT

    def show(self) -> None:
        """Touch the file, if that is due."""
        _showing.add(self)
        if time.monotonic() - self._last > BEAT:
            self._last = time.monotonic()
            with contextlib.suppress(OSError):  # a full disk is for others to tell
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.touch()

    def end(self) -> None:
        """Remove it."""
        _showing.discard(self)
        self.path.unlink(missing_ok=True)


_showing: set[SignOfLife] = set()
_at_work = 0
_watched: set[str] = set()
_lock = threading.Lock()


@contextlib.contextmanager
def at_work(driver: Driver | None) -> Iterator[None]:
    """Let this process end itself when its driver is gone, but not before the work in here is done.

    A worker of a process pool ends at once: it shares a machine with whoever starts the run again.
    """
    global _at_work
    if driver is not None and driver.process != this_process() and (driver.owns or driver.is_parent):
        _watch_once(driver)
    with _lock:
        _at_work += 1
    try:
        yield
    finally:
        with _lock:
            _at_work -= 1


def _end_with_parent() -> None:
    """In a forked process, while a driver shows life: its pool's workers lose it, it may be, before their first label."""
    if _showing:
        threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)


os.register_at_fork(after_in_child=_end_with_parent)


def _watch_once(driver: Driver) -> None:
    with _lock:
        if driver.sign in _watched:
            return
        _watched.add(driver.sign)
    threading.Thread(target=_watch, args=(driver,), name="amp.nft driver watch", daemon=True).start()


def _watch(driver: Driver) -> None:
    gone = _Gone(driver)
    while not gone():
        time.sleep(LOOK)
    while _at_work and not driver.is_parent:
        time.sleep(LOOK)
    os._exit(1)


class _Gone:
    """Whether a driver has ended, or shows no sign of life any more, by this machine's clock.

    Where its file was never seen there is none to be seen, without a common file system: that tells nothing.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._sign, self._since = self._look(), time.monotonic()
        self._seen = self._sign is not None

    def __call__(self) -> bool:
        if self._driver.process.machine == machine():
            return has_died(self._driver.process)
        if (sign := self._look()) != self._sign:
            self._sign, self._since, self._seen = sign, time.monotonic(), True
        return self._seen and time.monotonic() - self._since > SILENCE

    def _look(self) -> float | None:
        try:
            return os.stat(self._driver.sign).st_mtime
        except OSError:
            return None
