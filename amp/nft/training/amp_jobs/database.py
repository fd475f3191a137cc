"""Fingerprint database of Amp that several jobs can share."""

from __future__ import annotations

import os
import pickle
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from amp.utilities import FileDatabase

from amp.nft.system import files

PROGRESS = 20.0  # s between two lines in the log
KEPT = 8  # entries in memory; the derivatives of a chunk of 79 atoms take about 20 MB


class SharedDatabase(FileDatabase):
    """Amp's database with atomic writes, and with the entries used last in memory.

    Amp writes an entry in place: another job may read a part of it, and a killed job leaves a truncated entry. Amp also
    opens an entry's file again for each derivative.

    Parameters
    ----------
    filename : str
    """

    def __init__(self, filename: str) -> None:
        super().__init__(filename)
        os.makedirs(self.loosepath, exist_ok=True)
        self._recent: OrderedDict[str, Any] = OrderedDict()
        self._written = 0
        self._reported = time.monotonic()

    @staticmethod
    def log(message: str) -> None:
        """Report progress; a subclass says where."""

    def __setitem__(self, key: str, value: Any) -> None:
        # all files of loosepath count as entries, also those that a killed job leaves
        data = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        files.write(os.path.join(self.loosepath, key), data, scratch=self.path, durable=False)
        self._keep(key, value)
        self._report()

    def __getitem__(self, key: str) -> Any:
        if key not in self._recent:
            self._keep(key, super().__getitem__(key))
        return self._recent[key]

    def _keep(self, key: str, value: Any) -> None:
        self._recent[key] = value
        if len(self._recent) > KEPT:
            self._recent.popitem(last=False)

    def _report(self) -> None:
        """Report progress periodically: a job whose log does not change counts as hung."""
        self._written += 1
        if time.monotonic() - self._reported > PROGRESS:
            self._reported = time.monotonic()
            self.log(f"amp.nft: {self._written} images so far.")


def share(descriptor: Any, elements: list[str], log: Callable[[str], None]) -> None:
    """Make one of Amp's descriptors use shared databases, created as it creates its own.

    Parameters
    ----------
    descriptor : amp.descriptor.gaussian.Gaussian
        Or another descriptor with its databases.
    elements : list of str
        Its elements if it has none.
    log : callable
        Takes a message.
    """
    database = type("LoggingDatabase", (SharedDatabase,), {"log": staticmethod(log)})
    if descriptor.parameters.elements is None:
        descriptor.parameters.elements = elements
    descriptor.calculate_fingerprints({}, calculate_derivatives=True)
    for name in ("neighborlist", "fingerprints", "fingerprintprimes"):
        data = getattr(descriptor, name, None)
        if data is not None:
            data.close()
            data.db = database
