"""Waits for conditions, for the tests of processes: bounded so generously that only a fault reaches the bound."""

import time

PATIENCE = 300.0  # s; a loaded machine is slow, a fault lasts


def wait_for(condition, process=None):
    """Return the first true value of `condition`; fail early if `process`, which should bring it about, has ended."""
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert process is None or process.poll() is None or condition(), "the process ended before"
        assert time.monotonic() < deadline, "the condition was never met"
        time.sleep(0.02)
    return found
