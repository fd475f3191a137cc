"""Trainer of all members by a user's command, for models of other programs."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from amp.nft.amp_io.external import ExternalMember, Loader, files_below, is_external, read_external
from amp.nft.errors import TrainingError
from amp.nft.inputs.geometry import with_cell
from amp.nft.records import Ensemble, ForceRows, MemberReport, Purpose, TrainingTask, Watch, random_stream, unwatched
from amp.nft.training.columns import with_columns
from amp.nft.training.command import Command
from amp.nft.training.command_jobs import Job, carry_out, end_started
from amp.nft.training.trained_labels import calibrating_forces, energy_weight, trained_energy
from amp.nft.uncertainty.calibration import OutOfBag, calibrate_out_of_bag

FLOOR = 0.1  # of the mean force of the chunks: the floor of the weights in amp.nft.chunks.label_error
MODELS = "models"  # in the training directory: models/<iteration>/<member>


class CommandTrainer:
    """Train each member by a command that gets the member's data and leaves a model.

    Parameters
    ----------
    settings : Command
    directory : Path
        Training directory of the run.
    log : callable
        Takes a message.
    """

    name = "command"

    def __init__(self, settings: Command, directory: Path, log: Callable[[str], object]) -> None:
        self.settings, self.directory, self.log = settings, directory, log
        where, colon, what = settings.name_of_calculator.rpartition(":")
        self.factory = Path(where).absolute() if colon else None
        name = f"{Path(where).name}:{what}" if colon else settings.name_of_calculator
        self.loader = Loader(name, settings.argument, dict(settings.options))

    def train(self, task: TrainingTask, watch: Watch = unwatched) -> Ensemble:
        """Train every member of a task, and calibrate the committee out of bag.

        Parameters
        ----------
        task : TrainingTask
        watch : callable
            Receives the state of each member.

        Returns
        -------
        Ensemble

        Raises
        ------
        JobError
            A command failed too often; finished members are not trained again.
        TrainingError
            A model gives forces that are not finite.
        """
        for token in sorted((self.directory / MODELS).glob("*/*/token")):
            if end_started(token.parent):
                self.log(f"Ended the training in {token.parent} that an earlier driver left.")
        if self.settings.samples == "all":
            task = replace(task, weights_mi=np.ones_like(task.weights_mi))
        frames = self._frames(task)
        jobs = [self._job(task, frames, member) for member in range(task.n_members)]
        carry_out(jobs, self.settings, watch, self.log)
        members = [self._member(job) for job in jobs]
        errors = self._predictions(task, members)
        known = bool(task.iteration) and self.settings.from_previous
        found = None if known else _calibrate(task, [forces for _, forces in errors])
        if found is not None:
            members = [replace(member, nft={"out_of_bag": asdict(found)}) for member in members]
        reports = [_report(task, member, job, *errors[member]) for member, job in enumerate(jobs)]
        return Ensemble([member.text() for member in members], reports)

    def _frames(self, task: TrainingTask) -> list[Atoms]:
        """Return the images with columns for the trainer."""
        forces = [image.get_forces(apply_constraint=False) for image in task.images]
        chunks = [known for known, rows in zip(forces, task.rows, strict=True) if rows is not None]
        floor = FLOOR * float(np.linalg.norm(np.concatenate(chunks or forces), axis=1).mean())
        found = []
        for image, rows, known in zip(task.images, task.rows, forces, strict=True):
            energy = trained_energy(image, rows)
            frame = with_columns(image, energy, known, _weights(image, rows), energy_weight(rows), floor, self.settings.sigma)
            if math.isnan(energy):
                del frame.info["REF_energy"]
            frame.info["config_type"] = "nft_image" if rows is None else "nft_chunk"
            found.append(frame)
        return found

    def _job(self, task: TrainingTask, frames: list[Atoms], member: int) -> Job:
        """Return the training of a member, with its data in its directory."""
        place = (self.directory / MODELS / str(task.iteration) / str(member)).absolute()
        place.mkdir(parents=True, exist_ok=True)
        times = task.weights_mi[member]
        samples = {
            "train": [frame for frame, count in zip(frames, times, strict=True) for _ in range(count)],
            "valid": [frame for frame, count in zip(frames, times, strict=True) if not count],
        }
        digest = hashlib.sha256(json.dumps(self.settings.identity, sort_keys=True).encode())
        for name, some in samples.items():
            path = place / f"{name}.extxyz"
            path.unlink(missing_ok=True)
            if some:
                write(path, some, format="extxyz")
                digest.update(path.read_bytes())
        stream = random_stream(task.seed, Purpose.WEIGHTS, task.iteration, (task.members or range(task.n_members))[member])
        variables = {
            "NFT_TRAIN": str(place / "train.extxyz"),
            "NFT_VALID": str(place / "valid.extxyz") if samples["valid"] else "",
            "NFT_MODEL": str(place / "model" / self.settings.model),
            "NFT_MEMBER": str(member),
            "NFT_SEED": str(int(stream.generate_state(1)[0] >> 1)),  # below 2**31
            "NFT_ITERATION": str(task.iteration),
            "NFT_START": self._start(task, member),
        }
        return Job(place, member, digest.hexdigest(), variables, lambda path: self._check(path, frames[0]))

    def _start(self, task: TrainingTask, member: int) -> str:
        """Return the path of the model that a member begins with, or an empty text."""
        if task.iteration and self.settings.from_previous and task.start and is_external(task.start[member]):
            return str((self.directory / read_external(task.start[member]).model).absolute())
        if task.iteration and self.settings.from_previous:
            return ""
        return str(Path(self.settings.start[member]).absolute()) if self.settings.start else ""

    def _check(self, path: Path, frame: Atoms) -> None:
        """Raise an error unless a new model gives energies and forces; keep the file of its factory with it."""
        if self.factory is not None:
            shutil.copyfile(self.factory, path.parent / self.factory.name)
        energy, forces = _evaluate(self.loader.load(path), frame)
        if not (math.isfinite(energy) and np.isfinite(forces).all() and forces.shape == (len(frame), 3)):
            raise TrainingError("its energy or forces on the first image are not finite numbers")

    def _member(self, job: Job) -> ExternalMember:
        base = self.directory.absolute()
        return ExternalMember(self.loader, job.model.relative_to(base).as_posix(), files_below(job.model.parent, base))

    def _predictions(self, task: TrainingTask, members: list[ExternalMember]) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        """Return the energy and the forces on each image, by each member."""
        images = [with_cell(image) for image in task.images]
        found = []
        for number, member in enumerate(members):
            calculator = member.open(self.directory)
            some = [_evaluate(calculator, image) for image in images]
            if not all(np.isfinite(forces).all() for _, forces in some):
                raise TrainingError(
                    f"The model of member {number} in {self.directory / member.model} gives forces that are not finite numbers: change the "
                    "command, remove the directory of the member, and rerun the script."
                )
            found.append((np.array([energy for energy, _ in some]), [forces for _, forces in some]))
        return found


def _evaluate(calculator: Any, atoms: Atoms) -> tuple[float, np.ndarray]:
    plain = with_cell(atoms)
    forces = np.array(calculator.get_property("forces", plain), dtype=float)
    return float(calculator.get_property("energy", plain)), forces


def _weights(image: Atoms, rows: ForceRows | None) -> np.ndarray:
    """Return the weight of the force on each atom of an image."""
    if rows is None:
        return np.ones(len(image))
    weights = np.zeros(len(image))
    weights[list(rows.atoms)] = rows.weights
    return weights


def _calibrate(task: TrainingTask, forces_m: list[list[np.ndarray]]) -> OutOfBag | None:
    """Calibrate the uncertainty by the forces on central atoms that members' samples lack."""
    chosen = [(image, _indices(task, image, some)) for image, some in enumerate(calibrating_forces(task)) if len(some)]
    if not chosen or task.n_members < 2:
        return None
    known = np.concatenate([task.images[image].get_forces(apply_constraint=False)[atoms] for image, atoms in chosen])
    forces_mni = np.array([np.concatenate([forces[image][atoms] for image, atoms in chosen]) for forces in forces_m])
    counts = np.repeat(task.weights_mi[:, [image for image, _ in chosen]], [len(atoms) for _, atoms in chosen], axis=1)
    return calibrate_out_of_bag(forces_mni, known, counts)


def _indices(task: TrainingTask, image: int, some: range) -> list[int]:
    """Return the atoms of some of an image's trained forces."""
    rows = task.rows[image]
    return list(some) if rows is None else [rows.atoms[place] for place in some]


def _report(task: TrainingTask, member: int, job: Job, energies: np.ndarray, forces: list[np.ndarray]) -> MemberReport:
    """Return the residuals of a member on its sample, and of the forces that its sample lacks."""
    used, lacking, per_atom = [], [], []
    for image, rows, count, energy, predicted in zip(task.images, task.rows, task.weights_mi[member], energies, forces, strict=True):
        weights, difference = _weights(image, rows), predicted - image.get_forces(apply_constraint=False)
        trained = weights > 0
        if count:
            used.append((difference[trained], count * weights[trained]))
            if energy_weight(rows) > 0:
                per_atom.append((energy - trained_energy(image, rows)) / len(image))
        elif rows is not None:
            lacking.append((difference[trained], weights[trained]))
    largest = max((float(np.abs(difference).max()) for difference, _ in used if len(difference)), default=math.nan)
    record = job.finished or {}
    return MemberReport(
        member=member, converged=True, steps=0, attempts=int(record.get("attempts", 1)), loss=math.nan,
        energy_rmse=float(np.sqrt(np.mean(np.square(per_atom)))) if per_atom else math.nan,
        energy_maxresid=float(np.abs(per_atom).max()) if per_atom else math.nan,
        force_rmse=_rms(used), force_maxresid=largest, oob_force_rmse=_rms(lacking),
        message=f"trained in {record.get('seconds', 0.0):.0f} s",
    )  # fmt: skip


def _rms(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the weighted root mean square of force residuals, per component; nan without any."""
    if not parts or not sum(weights.sum() for _, weights in parts):
        return math.nan
    squares = sum(float(weights @ (difference**2).sum(axis=1)) for difference, weights in parts)
    return math.sqrt(squares / (3.0 * sum(float(weights.sum()) for _, weights in parts)))
