"""One place for messages: Amp's Logger, as before, and the logging module under ``amp.nft``."""

from __future__ import annotations

import logging
import sys

from amp.utilities import Logger

logger = logging.getLogger("amp.nft")
logger.addHandler(logging.NullHandler())


class RunLog:
    """A callable that takes a message.

    Parameters
    ----------
    log : str, Logger or None
        A file name, an Amp Logger, or None for standard output.
    """

    def __init__(self, log: str | Logger | None = None) -> None:
        self._amp: Logger = Logger(log or sys.stdout) if log is None or isinstance(log, str) else log

    def __call__(self, message: str) -> None:
        self._amp(message)
        logger.info(message)
