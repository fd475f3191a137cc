"""Trainer of all members together, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from amp.nft import amp_io
from amp.nft.amp_io import AmpModel, CalculatorSpec
from amp.nft.kernels.training.labelled import LabelledImages
from amp.nft.records import Ensemble, ForceRows, MemberReport, Purpose, TrainingTask, Watch, random_stream, unwatched
from amp.nft.training.input_ranges import DISPLACEMENT, ranges_of
from amp.nft.training.trained_labels import calibrating_forces, energy_weight, force_divisor, force_weights, trained_energy, trained_forces

if TYPE_CHECKING:
    from amp.nft.kernels.fingerprints.gaussian import Fingerprints, Rows
    from amp.nft.kernels.training.descent import Fit
    from amp.nft.uncertainty.calibration import OutOfBag


class BatchedTrainer:
    """Train an ensemble of Gaussian + NeuralNetwork members with the kernels.

    Fingerprints of an image are computed once, for all members and all iterations.

    Parameters
    ----------
    spec : CalculatorSpec
        Calculator that the user's ``calc_text`` built.
    threads : int, optional
        The results do not depend on it.
    log : callable, optional
        Takes a message.
    leave : callable, optional
        ``leave(task, outcome)`` is called at the end of a run, with its last training and the result.
    """

    name = "batched"

    def __init__(
        self,
        spec: CalculatorSpec,
        threads: int | None = None,
        log: Callable[[str], None] = print,
        leave: Callable[[TrainingTask, Ensemble], None] | None = None,
    ) -> None:
        self.spec = spec
        self.threads = threads
        self.log = log
        self.leave = leave
        self._fingerprints: Fingerprints | None = None
        self._rows: dict[tuple[int, tuple[int, ...] | None], tuple[Atoms, Rows]] = {}
        self._target_rows: list[Rows] = []

    def train(self, task: TrainingTask, watch: Watch = unwatched) -> Ensemble:
        """Train every member of a task, and calibrate the ensemble out of bag.

        Parameters
        ----------
        task : TrainingTask
        watch : callable
            Is called with the progress of the members.

        Returns
        -------
        Ensemble
        """
        from amp.nft.kernels.compilation import announced  # numba: only where it is needed
        from amp.nft.kernels.first_use import evaluation

        with announced(self.log, meanwhile=evaluation) as compiled:
            models, reports = self.fit_models(task, watch)
            found = self.calibrate(task, models)
        if found is not None:
            models = [replace(model, nft={**model.nft, "out_of_bag": asdict(found)}) for model in models]
        return Ensemble([amp_io.write_amp(model) for model in models], reports, compiled.seconds)

    def calibrate(self, task: TrainingTask, models: list[AmpModel]) -> OutOfBag | None:
        """Calibrate the members of `task` out of bag: by the labels that their bootstrap samples lack.

        Parameters
        ----------
        task : TrainingTask
        models : list of AmpModel
            All members.

        Returns
        -------
        OutOfBag or None
            None if too few forces are out of the samples of two members.
        """
        from amp.nft.training.calibration import calibrate, least_factor  # numba: only where it is needed

        used, rows, known = self._calibrating(task)
        if not used or len(models) < 2:
            return None
        least = least_factor([task.images[i] for i in used if task.rows[i] is not None])
        return calibrate(models, rows, known, task.weights_mi[:, used], self.threads, least)

    def continue_on_all(self, task: TrainingTask, models: list[AmpModel]) -> tuple[list[AmpModel], list[Fit]]:
        """Continue members on all images, whatever their samples.

        Parameters
        ----------
        task : TrainingTask
        models : list of AmpModel
            As :meth:`fit_models` made them.

        Returns
        -------
        models : list of AmpModel
            Without a calibration.
        fits : list of Fit
        """
        from amp.nft.training import batched_fit  # numba: only where it is needed

        spec, labelled, fprange = self._data(task)
        return batched_fit.continue_on_all(spec, labelled, fprange, models, unlabelled=self._target_rows, threads=self.threads)

    def spread_ratio(self, task: TrainingTask, before: list[AmpModel], after: list[AmpModel]) -> float:
        """Return the ratio of the uncertainties of two ensembles on the forces that calibrate.

        Parameters
        ----------
        task : TrainingTask
        before, after : list of AmpModel

        Returns
        -------
        float
            Root mean square of the members' standard deviation before, over that after.
        """
        from amp.nft.training.calibration import spread  # numba: only where it is needed

        _, rows, known = self._calibrating(task)
        return spread(before, rows, known, self.threads) / spread(after, rows, known, self.threads)

    def _calibrating(self, task: TrainingTask) -> tuple[list[int], list[Rows], list[np.ndarray]]:
        """Return the images whose forces calibrate, their fingerprints and their labels."""
        chosen = calibrating_forces(task)
        used = [i for i, forces in enumerate(chosen) if len(forces)]
        images = list(zip(task.images, task.rows, strict=True))
        rows = self._fingerprint(self._functions(self.spec.resolved(_elements(task))), images) if used else []
        known = [trained_forces(*images[i])[chosen[i]] for i in used]
        return used, [rows[i].some_forces(chosen[i]) for i in used], known

    def fit_models(self, task: TrainingTask, watch: Watch = unwatched) -> tuple[list[AmpModel], list[MemberReport]]:
        """Fit every member of `task`.

        Parameters
        ----------
        task : TrainingTask
        watch : callable
            Is called with the progress of the members.

        Returns
        -------
        models : list of AmpModel
            Without a calibration.
        reports : list of MemberReport
        """
        from amp.nft.training import batched_fit  # numba: only where it is needed

        spec, labelled, fprange = self._data(task)
        return batched_fit.fit(
            spec,
            labelled,
            task.weights_mi,
            fprange=fprange,
            seeds=[random_stream(task.seed, Purpose.WEIGHTS, task.iteration, member) for member in task.members or range(task.n_members)],
            start=[amp_io.read_amp(text) for text in task.start] if task.start else None,
            retry_m=task.retry_m,
            chunk_i=[some is not None for some in task.rows],
            unlabelled=self._target_rows,
            until=task.until,
            end_with_energies=task.end_with_energies,
            threads=self.threads,
            watch=watch,
        )

    def _data(self, task: TrainingTask) -> tuple[CalculatorSpec, LabelledImages, dict[str, np.ndarray]]:
        """Return the calculator, the labelled images and the ranges of the fingerprints."""
        images = list(zip(task.images, task.rows, strict=True))
        spec = self.spec.resolved(_elements(task))
        fingerprints = self._functions(spec)
        rows = self._fingerprint(fingerprints, images)
        labelled = LabelledImages(
            rows,
            energies=np.array([trained_energy(*image) for image in images]),
            forces=[trained_forces(*image) for image in images],
            n_atoms=np.array([len(image) for image in task.images]),
            force_weights=_force_weights(images),
            energy_weights=np.array([energy_weight(chosen) for chosen in task.rows]),
            divisors=np.array([force_divisor(*image) for image in images]),
        )
        return spec, labelled, self._range(fingerprints, rows, task)

    def finish(self, task: TrainingTask, outcome: Ensemble) -> None:
        """Write the files that Amp's own jobs write, if the trainer was made with `leave`.

        Parameters
        ----------
        task : TrainingTask
        outcome : Ensemble
            Its result.
        """
        if self.leave is not None:
            self.leave(task, outcome)

    def _functions(self, spec: CalculatorSpec) -> Fingerprints:
        """Return the compiled fingerprints, made at the first training."""
        from amp.nft.kernels.fingerprints.gaussian import Fingerprints

        if self._fingerprints is None:
            self._fingerprints = Fingerprints(spec.gs, spec.cutoff)
        return self._fingerprints

    def _fingerprint(self, fingerprints: Fingerprints, images: list[tuple[Atoms, ForceRows | None]]) -> list[Rows]:
        """Return the rows of every image; an image is not fingerprinted again while it stays in the training set."""
        keys = [(id(image), None if chosen is None or _needs_all(image, chosen) else chosen.atoms) for image, chosen in images]
        kept = {key: self._rows[key] for key in keys if key in self._rows}
        for key, (image, _) in zip(keys, images, strict=True):
            if key not in kept:
                kept[key] = image, fingerprints.rows(image, key[1])  # the reference keeps the id unique
        self._rows = kept
        found = [kept[key][1] for key in keys]
        return [
            rows.some_forces(chosen.atoms) if chosen is not None and key[1] is None else rows
            for rows, key, (_, chosen) in zip(found, keys, images, strict=True)
        ]

    def _range(self, fingerprints: Fingerprints, rows: list[Rows], task: TrainingTask) -> dict[str, np.ndarray]:
        """Return the range of each fingerprint over images and targets; it is Amp's unless members stop out of bag on chunks."""
        if not self._target_rows:
            self._target_rows = [fingerprints.values(target) for target in task.targets]
        on_chunks = task.until == "out-of-bag" and any(some is not None for some in task.rows)
        return ranges_of(fingerprints, [*rows, *self._target_rows], DISPLACEMENT if on_chunks else 0.0)


def _elements(task: TrainingTask) -> list[str]:
    """Return the elements of the images and targets, sorted."""
    return sorted({symbol for image in [*task.images, *task.targets] for symbol in image.symbols})


def _needs_all(image: Atoms, chosen: ForceRows) -> bool:
    """Return True if the fingerprints of all atoms are needed: for the energy, or if most forces are trained."""
    return chosen.energy > 0.0 or 2 * len(chosen.atoms) > len(image)


def _force_weights(images: list[tuple[Atoms, ForceRows | None]]) -> list[np.ndarray] | None:
    """Return the weight of each trained force, or None where all are 1."""
    weights = [force_weights(*image) for image in images]
    return None if all((some == 1.0).all() for some in weights) else weights
