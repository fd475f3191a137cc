"""Heartbeats: files that name the process at work and show that it still works; the end of workers whose driver is gone."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amp.nft.system import files
from amp.nft.system.processes import Process, exit_now, has_ended, machine, this_process

DRIVER = "driver.alive"  # heartbeat of a driver that waits for labels
PERIOD = 5.0  # s between two beats
SILENCE = 300.0  # s without a beat after which a driver on another machine counts as gone; shared file systems are slow
CHECK = 1.0  # s between two checks of the driver
LARGEST = 2**20  # bytes of a heartbeat
CLOCKS = 60.0  # s by which the clocks of two machines may differ


# -- writing and reading heartbeats ----------------------------------------------------------------------------


class Heartbeat:
    """A JSON file that names this process and that it touches periodically while it works.

    Parameters
    ----------
    path : Path
        Its directory is made if missing.
    period : float
        Seconds between two beats.
    """

    def __init__(self, path: Path, period: float = PERIOD) -> None:
        self.path, self.period = path.absolute(), period
        self._last = -period
        self._content: dict[str, Any] | None = None

    def beat(self, **content: Any) -> None:
        """If a beat is due, touch the file, or write it if its content has changed.

        Errors of the file system are ignored: a full disk is reported elsewhere, and a touch needs no space.

        Parameters
        ----------
        **content : JSON values
            More entries of the file.
        """
        if (now := time.monotonic()) - self._last < self.period:
            return
        self._last = now
        with contextlib.suppress(OSError):
            if content != self._content or not self.path.exists():
                self._write(content)
                return
        with contextlib.suppress(OSError):
            self.path.touch()

    def remove(self) -> None:
        """Remove the file: the work is over."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _write(self, content: dict[str, Any]) -> None:
        files.write(self.path, json.dumps(asdict(this_process()) | content).encode(), durable=False)
        self._content = content


def read_heartbeat(path: Path) -> tuple[Process, dict[str, Any]] | None:
    """Return the process in a heartbeat file, and the other entries.

    Parameters
    ----------
    path : Path

    Returns
    -------
    (Process, dict) or None
        None if there is no valid file (yet).
    """
    try:
        content = json.loads(files.read(path, LARGEST))
        return Process(str(content.pop("machine")), int(content.pop("pid")), float(content.pop("start_time"))), content
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None


def read_process(path: Path) -> Process | None:
    """Return the process in a heartbeat file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Process or None
        None if there is no valid file (yet).
    """
    found = read_heartbeat(path)
    return None if found is None else found[0]


def heartbeat_age(path: Path) -> float | None:
    """Return the time since the last beat by the wall clock.

    Parameters
    ----------
    path : Path

    Returns
    -------
    float or None
        Seconds, at least 0. None if there is no file, or if its time is so far ahead that a clock must have been set.
    """
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    return max(age, 0.0) if age > -CLOCKS else None


class Unchanged:
    """Time since a value last changed, by this process's monotonic clock."""

    def __init__(self) -> None:
        self._look: object = None
        self._since = time.monotonic()

    def seconds(self, look: object) -> float:
        """Return the time since a value was first seen.

        Parameters
        ----------
        look : object
            Present value.

        Returns
        -------
        float
            Seconds; 0 if the value differs from the last one.
        """
        if look != self._look:
            self._look, self._since = look, time.monotonic()
        return time.monotonic() - self._since


def version(path: Path) -> tuple[int, int] | None:
    """Return a value that differs between two versions of a file.

    Parameters
    ----------
    path : Path

    Returns
    -------
    (int, int) or None
        Time of the last change in ns, and size in bytes; None if there is no file.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


class Watched:
    """A process at work: asked on this machine; on others, judged by its heartbeat.

    Parameters
    ----------
    process : Process
    heartbeat : Path
    silence : float
        Seconds without a beat after which a process on another machine counts as gone. A heartbeat that was never seen
        proves nothing: perhaps there is no common file system.
    """

    def __init__(self, process: Process, heartbeat: Path, silence: float) -> None:
        self._process, self._heartbeat, self._silence = process, heartbeat, silence
        self._beats = Unchanged()
        self._seen = False
        self.lost()

    def lost(self) -> str:
        """Return the reason why the process counts as gone.

        Returns
        -------
        str
            Empty while it does not.
        """
        host = self._process.machine.split()[0]
        if self._process.machine == machine():
            gone = has_ended(self._process)
            return f"its process {self._process.pid} on {host} has ended without a message (killed, or out of memory?)" if gone else ""
        beat = version(self._heartbeat)
        self._seen |= beat is not None
        silent = self._beats.seconds(beat) > self._silence and self._seen
        return f"no heartbeat from {host} for {self._silence:g} s" if silent else ""


# -- workers and their driver ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Driver:
    """The process that waits for a worker's labels.

    Attributes
    ----------
    process : Process
    heartbeat : str
        Its heartbeat file, for workers on other machines.
    owns : bool
        True if its workers work for it alone.
    """

    process: Process
    heartbeat: str
    owns: bool

    @property
    def is_parent(self) -> bool:
        """True if this process belongs to a process pool of the driver."""
        parent = multiprocessing.parent_process()
        return parent is not None and parent.pid == self.process.pid and self.process.machine == machine()


_labels_running = 0
_watched: set[str] = set()
_lock = threading.Lock()


def labels_running() -> bool:
    """Return True while any thread of this process makes a label.

    Returns
    -------
    bool
    """
    return _labels_running > 0


@contextlib.contextmanager
def working_for(driver: Driver | None) -> Iterator[None]:
    """Let this process exit when its driver is gone, but not before the work in this block is done.

    A worker of a process pool exits immediately: it shares a machine with the next start of the run.

    Parameters
    ----------
    driver : Driver or None
        None: nothing is watched.

    Yields
    ------
    None
    """
    global _labels_running
    if driver is not None and driver.process != this_process() and (driver.owns or driver.is_parent):
        _watch_once(driver)
    with _lock:
        _labels_running += 1
    try:
        yield
    finally:
        with _lock:
            _labels_running -= 1


def _watch_once(driver: Driver) -> None:
    with _lock:
        if driver.heartbeat in _watched:
            return
        _watched.add(driver.heartbeat)
    threading.Thread(target=_exit_after, args=(driver,), name="amp.nft driver watch", daemon=True).start()


def _exit_after(driver: Driver) -> None:
    watched = Watched(driver.process, Path(driver.heartbeat), SILENCE)
    while not watched.lost():
        time.sleep(CHECK)
    while labels_running() and not driver.is_parent:
        time.sleep(CHECK)
    exit_now(1)


_has_workers = False


def watch_forks() -> None:
    """Make process pool workers that this process forks from now on exit with it, even before their first label."""
    global _has_workers
    _has_workers = True


def _forked() -> None:
    global _has_workers
    if _has_workers:
        _has_workers = False  # the driver does not end processes that a worker forks
        threading.Thread(target=_exit_with_parent, args=(os.getppid(),), name="amp.nft parent watch", daemon=True).start()


def _exit_with_parent(parent: int) -> None:
    """Exit when the driver is gone, in its pool's workers; other processes, daemons of a parent among them, are left alone."""
    time.sleep(CHECK)  # multiprocessing has named its workers' parent by then
    pool = multiprocessing.parent_process()
    if pool is None or pool.pid != parent:
        return
    while os.getppid() == parent:
        time.sleep(CHECK)
    exit_now(1)


os.register_at_fork(after_in_child=_forked)
