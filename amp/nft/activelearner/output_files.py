"""Files that Amp users know, derived from the run's journal and written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.amp_io import with_card
from amp.nft.amp_io.committee_file import COMMITTEE, save_committee
from amp.nft.amp_io.external import is_external
from amp.nft.calculator.members import ENSEMBLE, best_path
from amp.nft.errors import RunStoreError
from amp.nft.run.metrics import metrics_csv
from amp.nft.run.state import RunState
from amp.nft.run.store import array_bytes, write_atomically
from amp.nft.system.trajectories import GrowingTrajectory


class RunFiles:
    """Ensembles, uncertainties and chunks of one run under their usual names.

    Parameters
    ----------
    label : str
        As in ``<label>.ensemble``.
    saved_info : path
        ``<label>-training/saved-info``.
    """

    def __init__(self, label: str, saved_info: Path) -> None:
        self.name = Path(label).absolute()
        self.best = best_path(label).absolute()
        self.saved_info = saved_info
        self.labels = saved_info.parent / "labels"  # one directory in it for each label
        self._deltas: list[np.ndarray] = []
        self._chunks = GrowingTrajectory()

    def check_fresh(self) -> None:
        """Raise RunStoreError if the training directory contains the work of a program without a journal."""
        training = self.saved_info.parent
        if (training / "training-images").exists():
            raise RunStoreError(
                f"{training} was left by another program (it has training-images, but no journal): "
                "move it away, or give this run another label=."
            )

    def save_ensemble(self, iteration: int, texts: list[str]) -> None:
        """Write ``<label>.ensemble`` and ``<label>.<k>.ensemble``, or directories of models.

        Parameters
        ----------
        iteration : int
            The k.
        texts : list of str
            The members.
        """
        for name in (self.name.name, f"{self.name.name}.{iteration}"):
            self._save(name, texts, None)

    def save_best(self, texts: list[str], card: dict[str, Any]) -> None:
        """Write ``best.<label>.ensemble``, or a directory of models.

        Parameters
        ----------
        texts : list of str
            The members.
        card : dict
            Their model card.
        """
        self.best = self._save(f"best.{self.name.name}", texts, card)

    def _save(self, name: str, texts: list[str], card: dict[str, Any] | None) -> Path:
        if is_external(texts[0]):
            path = self.name.with_name(name + COMMITTEE)
            save_committee(path, texts, self.saved_info.parent, card)
        else:
            path = self.name.with_name(name + ENSEMBLE)
            _ensure(path, json.dumps(texts if card is None else with_card(texts, card)).encode())
        return path

    def save_deltas(self, iteration: int, delta: np.ndarray) -> None:
        """Write ``deltas.npy``, shape (iterations, atoms), eV/Å.

        Parameters
        ----------
        iteration : int
        delta : ndarray, shape (atoms,)
            Uncertainty after this iteration, eV/Å.
        """
        self._deltas = [*self._deltas[:iteration], delta]
        _ensure(self.saved_info / "deltas.npy", array_bytes(np.array(self._deltas)))

    def save_metrics(self, state: RunState) -> None:
        """Write ``metrics.csv`` in the training directory.

        Parameters
        ----------
        state : RunState
        """
        _ensure(self.saved_info.with_name("metrics.csv"), metrics_csv(state).encode())

    def save_chunks(self, iteration: int, chosen: list[int], chunks: list[Atoms]) -> None:
        """Write the chosen atoms to ``indices_<k>.npy``, and all chunks to ``atomic_chunks_<k>.traj`` and ``atomic_chunks.traj``.

        Parameters
        ----------
        iteration : int
            The k.
        chosen : list of int
        chunks : list of Atoms
        """
        _ensure(self.saved_info / f"indices_{iteration}.npy", array_bytes(np.array(chosen, dtype=int)))
        data = self._chunks.content(chunks)
        _ensure(self.saved_info / f"atomic_chunks_{iteration}.traj", data)
        _ensure(self.saved_info / "atomic_chunks.traj", data)


def _ensure(path: Path, data: bytes) -> None:
    """Write a file unless it is there with this content."""
    if not (path.exists() and path.read_bytes() == data):
        write_atomically(path, data)
