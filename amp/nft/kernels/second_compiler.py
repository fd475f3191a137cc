"""A second process that compiles some kernels at the same time as this one, where none is in numba's cache on disk yet.

It reports on a pipe when it begins and ends a kernel, and leaves the code in the cache. This process waits for a kernel that the second one
compiles at the moment, first doing work that it needs later, and compiles every other one itself. So nothing depends on the second process:
if it is killed, or cannot write the cache, this process compiles all kernels, as it does where it may use one processor only.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from numba.core import event

IS_SECOND = "AMP_NFT_SECOND_COMPILER"  # in the environment of a second process, which starts no other one
WAITING = "amp.nft:compiled by a second process"  # numba event while this process waits
PATIENCE = 120.0  # s that this process waits for one kernel
_LINE = 4096  # bytes read at a time; a report is shorter
# The kernels do not need what Amp's own package imports, which takes longer than all else that they import;
# and the process is too short for garbage
_CODE = """
import gc, json, sys, types
gc.disable()
amp = sys.modules["amp"] = types.ModuleType("amp")
sys.path[:], amp.__path__ = json.loads(sys.argv[1])
from amp.nft.kernels.first_use import compile_kernels
compile_kernels()
"""


class SecondCompiler:
    """The second process of this one, started at the first kernel that is not in the cache."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._process: subprocess.Popen | None = None
        self._begun, self._rest = "", b""
        self._ended: set[str] = set()
        self._work: list[Callable[[], object]] = []

    def start(self) -> None:
        """Start the process, once, where that is possible and of use."""
        if self._owner != os.getpid() or self._process is not None or not _may_start():
            return
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _CODE, json.dumps([sys.path, list(sys.modules["amp"].__path__)])],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=os.environ | {IS_SECOND: "1"},
            )  # fmt: skip
        except (OSError, ValueError):  # no such file, no memory, no more processes
            self._owner = -1
            return
        atexit.register(self.stop)

    def wait_for(self, name: str) -> bool:
        """Wait while the second process compiles a kernel.

        Parameters
        ----------
        name : str
            Of the kernel's function.

        Returns
        -------
        bool
            True if the second process has compiled the kernel.
        """
        if self._owner != os.getpid() or self._process is None:
            return False
        self._read(0.0)
        if self._begun == name:
            with event.trigger_event(WAITING):
                if self._work:
                    self._work.pop()()
                end = time.monotonic() + PATIENCE
                self._read(0.0)
                while self._begun == name and (left := end - time.monotonic()) > 0.0:
                    self._read(left)
        return name in self._ended

    @contextmanager
    def work_while_waiting(self, work: Callable[[], object]) -> Iterator[None]:
        """Do some work once if this process has to wait while the block runs.

        Parameters
        ----------
        work : callable
        """
        self._work.append(work)
        try:
            yield
        finally:
            self._work.clear()

    def stop(self) -> None:
        """End the second process."""
        if self._owner == os.getpid() and self._process is not None and self._process.stdout is not None:
            self._process.kill()
            self._process.stdout.close()
            self._process.wait()

    def _read(self, seconds: float) -> None:
        """Read the reports that have come; wait for one for so long."""
        pipe = self._process.stdout if self._process is not None else None
        while pipe is not None and not pipe.closed and select.select([pipe], [], [], seconds)[0]:
            data, seconds = os.read(pipe.fileno(), _LINE), 0.0
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                if not line:
                    self._ended.add(self._begun)
                self._begun = line.decode()
            if not data:  # it has ended
                self._begun = ""
                self.stop()


def _may_start() -> bool:
    """Return True if this process is the first one, may use more than one processor, and is not part of an MPI program."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    is_part = IS_SECOND in os.environ or "mpi4py.MPI" in sys.modules
    return processors > 1 and os.name == "posix" and bool(sys.executable) and not is_part


second_compiler = SecondCompiler()
