"""One place for messages: Amp's Logger, as before, and the logging module under ``amp.nft``."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from amp.utilities import Logger

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

        self._aside: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    def __call__(self, message: str) -> None:
        """Write a message."""
        with self._aside():
            self._amp(message)
            logger.info(message)

    @contextlib.contextmanager
    def beside(self, aside: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Write each message inside the context that `aside` returns, which hides a display."""
        before, self._aside = self._aside, aside
        try:
            yield
        finally:
            self._aside = before
