"""End another process some time after its SIGTERM, even while compiled code keeps Python from running in it.

Run as a script, by path: it imports nothing of the package, and starts in some 20 ms.

Standard input: the other process's signal numbers, one byte each; its end of the line closes when it exits or needs no guard.
Standard output: one byte when the time is up, so that the other process can exit by itself.
Arguments: seconds of patience, and seconds from that byte to SIGKILL.
"""

import os
import select
import signal
import sys
import time


def main(patience: float, grace: float) -> None:
    """Wait for a SIGTERM, then for the end of the parent process, and kill it if it does not end.

    Parameters
    ----------
    patience : float
        Seconds from the signal until the notice that the guard writes.
    grace : float
        Seconds from the notice until the kill.
    """
    parent = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a queue or a terminal sends them to all processes
        signal.signal(number, signal.SIG_IGN)
    while received := os.read(0, 1):
        if received[0] == signal.SIGTERM:
            break
    if not received or _closes_within(patience):
        return
    os.write(1, b"!")
    if not _closes_within(grace) and os.getppid() == parent:
        _kill(parent)


def _closes_within(seconds: float) -> bool:
    """Read and ignore more signals, until the line closes (True) or the time is up."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([0], [], [], left)[0] and not os.read(0, 64):
            return True
    return False


def _kill(pid: int) -> None:
    """Kill a process and its descendants other than this one."""
    doomed = []
    try:
        import psutil

        doomed = [child for child in psutil.Process(pid).children(recursive=True) if child.pid != os.getpid()]
    except Exception:  # without psutil, the process alone
        pass
    os.kill(pid, signal.SIGKILL)
    for child in doomed:
        child.kill()  # psutil ignores none of: gone, not ours; both end this script, whose work is done


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]))
