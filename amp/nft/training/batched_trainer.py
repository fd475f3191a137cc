"""Trainer: all members at once, in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from amp.nft import amp_io
from amp.nft.amp_io import CalculatorSpec
from amp.nft.records import Purpose, TrainingOutcome, TrainingTask, Watch, random_stream, unwatched

if TYPE_CHECKING:
    from amp.nft.kernels.fingerprints.gaussian import Fingerprints, Rows


class BatchedTrainer:
    """Train an ensemble of Gaussian + NeuralNetwork members with the kernels.

    Fingerprints of an image are computed once, for all members and all iterations.

    Parameters
    ----------
    spec : CalculatorSpec
        What the user's ``calc_text`` built.
    targets : list of Atoms
        The inputs of the networks are ranged over the training images and these.
    threads : int, optional
        The results do not depend on it.
    log : callable, optional
        Takes a message.
    leave : callable, optional
        ``leave(task, outcome)`` is called at the end of a run, with what its last training was and came to.
    """

    name = "batched"

    def __init__(
        self,
        spec: CalculatorSpec,
        targets: list[Atoms],
        threads: int | None = None,
        log: Callable[[str], None] = print,
        leave: Callable[[TrainingTask, TrainingOutcome], None] | None = None,
    ) -> None:
        self.spec = spec
        self.targets = targets
        self.threads = threads
        self.log = log
        self.leave = leave
        self._fingerprints: Fingerprints | None = None
        self._rows: dict[int, tuple[Atoms, Rows]] = {}
        self._target_rows: list[Rows] = []

    def train(self, task: TrainingTask, watch: Watch = unwatched) -> TrainingOutcome:
        """Train every member of `task`."""
        from amp.nft.training import batched_fit  # numba: only where it is needed

        images = list(zip(task.images, task.centres, strict=True))
        elements = sorted({symbol for image in [*task.images, *self.targets] for symbol in image.symbols})
        spec = self.spec.resolved(elements)
        fingerprints = self._functions(spec)
        rows = self._fingerprint(fingerprints, images)
        models, reports = batched_fit.fit(
            spec,
            rows,
            energies=np.array([np.nan if centre is not None else image.get_potential_energy() for image, centre in images]),
            forces=[_forces(image, centre) for image, centre in images],
            n_atoms=np.array([len(image) for image in task.images]),
            weights_mi=task.weights_mi,
            start=[amp_io.read_amp(text) for text in task.start] if task.start else None,
            fprange=self._range(fingerprints, rows),
            seeds=[random_stream(task.seed, Purpose.WEIGHTS, task.iteration, member) for member in range(task.n_members)],
            threads=self.threads,
            retry_m=task.retry_m,
            unlabelled=self._target_rows,
            watch=watch,
        )
        return TrainingOutcome([amp_io.write_amp(model) for model in models], reports)

    def finish(self, task: TrainingTask, outcome: TrainingOutcome) -> None:
        """Leave what Amp's own jobs leave."""
        if self.leave is not None:
            self.leave(task, outcome)

    def _functions(self, spec: CalculatorSpec) -> Fingerprints:
        """Return the compiled fingerprints, made at the first training."""
        from amp.nft.kernels.fingerprints.gaussian import Fingerprints

        if self._fingerprints is None:
            self._fingerprints = Fingerprints(spec.gs, spec.cutoff)
        return self._fingerprints

    def _fingerprint(self, fingerprints: Fingerprints, images: list[tuple[Atoms, int | None]]) -> list[Rows]:
        """Rows of every image; each image is fingerprinted once in the life of this trainer."""
        for image, centre in images:
            if id(image) not in self._rows:
                self._rows[id(image)] = image, fingerprints.rows(image, centre)  # holding it keeps its id
        return [self._rows[id(image)][1] for image, _ in images]

    def _range(self, fingerprints: Fingerprints, rows: list[Rows]) -> dict[str, np.ndarray]:
        """Smallest and largest value of each fingerprint over the training images and the target."""
        if not self._target_rows:
            self._target_rows = [fingerprints.values(target) for target in self.targets]
        x = np.concatenate([some.x for some in [*rows, *self._target_rows]])
        kind = np.concatenate([some.kind for some in [*rows, *self._target_rows]])
        ranges = {}
        for number, element in enumerate(fingerprints.elements):
            values = x[kind == number, : fingerprints.n_features[number]]
            ranges[element] = np.column_stack([values.min(axis=0), values.max(axis=0)])
        return ranges


def _forces(image: Atoms, centre: int | None) -> np.ndarray:
    """The forces that are trained, shape (forces, 3)."""
    forces = image.get_forces(apply_constraint=False)
    return forces if centre is None else forces[[centre]]
