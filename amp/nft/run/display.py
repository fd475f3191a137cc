"""Live display of a run next to its log, and the driver's heartbeat for readers on other machines."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

from amp.nft.records import MemberStep, as_plain
from amp.nft.run.replay import LiveState
from amp.nft.run.screen import view
from amp.nft.run.status import BEAT_FILE, status
from amp.nft.run.store import RunRecord
from amp.nft.system.liveness import Heartbeat

PERIOD = 0.25  # s between two pictures
BEAT = 2.0  # s between two heartbeats
PATIENCE = 1.0  # s that a message waits for its turn

logger = logging.getLogger("amp.nft")


class Screen(Protocol):
    """Something that shows one rich renderable at a time."""

    def draw(self, renderable: Any) -> None:
        """Replace the shown content.

        Parameters
        ----------
        renderable : object
            Anything that rich can show.
        """

    def clear(self) -> None:
        """Reserve lines for text."""

    def close(self) -> None:
        """Show nothing any more."""


class Progress:
    """Display of a run's progress; keeps ``progress.json`` next to its journal while it runs.

    A context manager. What it is told through `step` costs the teller nothing but a dictionary entry; drawing is done
    in a thread of its own, a few times a second.

    Parameters
    ----------
    record : RunRecord
        The run.
    shown : bool
        Show it, in a notebook or on a terminal; without either nothing is shown.
    """

    def __init__(self, record: RunRecord, shown: bool = True) -> None:
        self._record = record
        self._state = LiveState(record)
        self._shown = shown
        self._screen: Screen | None = None
        self._steps: dict[int, tuple[int, MemberStep]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="amp.nft progress", daemon=True)
        self._heartbeat = Heartbeat(record.directory / BEAT_FILE, BEAT)

    def step(self, iteration: int, step: MemberStep) -> None:
        """Record the progress of a member; from any thread.

        Parameters
        ----------
        iteration : int
        step : MemberStep
        """
        self._steps[step.member] = iteration, step

    def __enter__(self) -> Progress:
        self._screen = find_screen() if self._shown else None
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)
        with contextlib.suppress(Exception):
            self._heartbeat.remove()
            if self._screen is not None:
                self._screen.close()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Take the display away while something else is written, so that its lines stay whole."""
        mine = self._lock.acquire(timeout=PATIENCE)
        try:
            if mine and self._screen is not None:
                self._screen.clear()
            yield
        finally:
            if mine:
                self._lock.release()

    def _work(self) -> None:
        while not self._over.wait(PERIOD):
            try:
                self._draw()
                self._beat()
            except Exception:  # a display must not end a run
                logger.debug("the progress display failed", exc_info=True)

    def _draw(self) -> None:
        if self._screen is None:
            return
        picture = view(status(self._record.directory, self._state(), dict(self._steps)))
        with self._lock:
            if not self._over.is_set():
                self._screen.draw(picture)

    def _beat(self) -> None:
        """Write the heartbeat, with the progress of the members; not where the directory was moved away."""
        if not self._record.directory.is_dir():
            return
        newest = max((iteration for iteration, _ in list(self._steps.values())), default=0)
        members = [as_plain(step) for iteration, step in list(self._steps.values()) if iteration == newest]
        self._heartbeat.beat(iteration=newest, members=members)


def find_screen() -> Screen | None:
    """Return a notebook's output, or the terminal at standard error or output.

    Returns
    -------
    Screen or None
        None if there is neither.
    """
    if _in_notebook():
        return NotebookScreen()
    for stream in (sys.stderr, sys.stdout):
        if stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb":
            return TerminalScreen(stream)
    return None


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


class TerminalScreen:
    """Lowest lines of a terminal; other output of Python appears above them.

    Parameters
    ----------
    stream : text stream
    """

    def __init__(self, stream: Any) -> None:
        from rich.console import Console, Group
        from rich.live import Live

        self._nothing = Group()
        console = Console(file=stream, highlight=False)
        self._streams = sys.stdout, sys.stderr
        self._live = Live(
            self._nothing, console=console, auto_refresh=False, transient=True,
            redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
        )  # fmt: skip
        self._live.start()
        console.show_cursor(True)  # a killed run cannot bring it back
        _screens.add(self)

    def draw(self, renderable: Any) -> None:
        """Replace the shown content.

        Parameters
        ----------
        renderable : object
            Anything that rich can show.
        """
        self._live.update(renderable, refresh=True)

    def clear(self) -> None:
        """Reserve lines for text."""
        self._live.update(self._nothing, refresh=True)

    def close(self) -> None:
        """Show nothing any more."""
        _screens.discard(self)
        self.clear()
        self._live.stop()

    def forget(self) -> None:
        """In a forked worker: print as if there were no display, whose locks nobody would release there."""
        sys.stdout, sys.stderr = self._streams


_screens: weakref.WeakSet[TerminalScreen] = weakref.WeakSet()


def _print_plainly() -> None:
    for screen in list(_screens):
        screen.forget()


os.register_at_fork(after_in_child=_print_plainly)


class NotebookScreen:
    """An output of a notebook's cell, above those that are printed."""

    def __init__(self) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._handle = display(HTML(""), display_id=True)

    def draw(self, renderable: Any) -> None:
        """Replace the shown content.

        Parameters
        ----------
        renderable : object
            Anything that rich can show.
        """
        from rich.console import Console

        console = Console(record=True, file=io.StringIO(), width=110, highlight=False)
        console.print(renderable)
        frame = '<pre style="line-height: 1.3; white-space: pre-wrap">{code}</pre>'
        self._handle.update(self._html(console.export_html(inline_styles=True, code_format=frame)))

    def clear(self) -> None:
        """Do nothing: a notebook has a separate output."""

    def close(self) -> None:
        """Show nothing any more."""
        self._handle.update(self._html(""))
