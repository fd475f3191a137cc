"""One place for messages: Amp's Logger, as before, and the logging module under ``amp.nft``."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from amp.utilities import Logger

from amp.nft.errors import printable

logger = logging.getLogger("amp.nft")
logger.addHandler(logging.NullHandler())


class RunLog:
    """A callable that takes a message.

    Parameters
    ----------
    log : str, path, Logger or None
        A file name, an Amp Logger or another callable, or None for standard output.
    """

    def __init__(self, log: str | os.PathLike[str] | Logger | None = None) -> None:
        if isinstance(log, os.PathLike):
            log = os.fspath(log)
        if not (log is None or isinstance(log, str) or callable(log)):
            raise TypeError(f"log is {log!r}: it must be a file name, a callable such as amp.utilities.Logger, or None.")
        self._amp: Logger = Logger(log or sys.stdout) if log is None or isinstance(log, str) else log
        if isinstance(log, str):
            self._amp.file.reconfigure(encoding="utf-8", errors="backslashreplace")
            weakref.finalize(self, self._amp.file.close).atexit = False  # Amp's Logger leaves it open; messages may come until the exit
        self._aside: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    def __call__(self, message: str) -> None:
        """Write a message, without control characters; a stream that cannot write it does not end a run."""
        message = printable(message)
        with self._aside():
            self._write(message)
            logger.info(message)

    def _write(self, message: str) -> None:
        try:
            self._write_encoded(message)
        except BrokenPipeError:  # as of `python script.py | head`: the reader is gone
            if getattr(self._amp, "file", None) is sys.stdout:
                _discard_stdout()
            self._amp = Logger(None)

    def _write_encoded(self, message: str) -> None:
        try:
            self._amp(message)
        except UnicodeEncodeError as error:  # an ASCII locale
            self._amp(message.encode(error.encoding, "backslashreplace").decode(error.encoding))

    @contextlib.contextmanager
    def beside(self, aside: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Write each message inside a context that hides a display.

        Parameters
        ----------
        aside : callable
            Returns the context.

        Yields
        ------
        None
        """
        before, self._aside = self._aside, aside
        try:
            yield
        finally:
            self._aside = before


def _discard_stdout() -> None:
    """Redirect standard output to the null device, so that Python can close it at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
