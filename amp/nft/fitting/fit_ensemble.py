"""Fit an ensemble to a data set, so that a killed fit resumes with the members that it lacks."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import Atoms

from amp.nft import features as feature_sets
from amp.nft.amp_io import AmpModel, CalculatorSpec, calc_text_of, read_amp, read_calc_text, spec_of, with_data, write_amp
from amp.nft.amp_io.card import TERMS, checked_terms
from amp.nft.calculator.baseline import Baseline
from amp.nft.errors import InputError, RunStoreError
from amp.nft.fitting.ensemble import Ensemble
from amp.nft.fitting.fit_card import with_card_of_fit
from amp.nft.inputs.arguments import check_count, check_lengths, checked_indices
from amp.nft.inputs.structures import Images, marked_atom, read_images, read_training_images
from amp.nft.labels.single_point import Parent
from amp.nft.records import ForceRows, MemberReport, Purpose, TrainingTask, random_stream
from amp.nft.run.replay import report_of
from amp.nft.run.schema import FORMAT
from amp.nft.run.second_labels import SecondLabels
from amp.nft.run.store import RunStore
from amp.nft.system.packages import versions
from amp.nft.training.batched_trainer import BatchedTrainer
from amp.nft.training.choose import sample_weights
from amp.nft.training.out_of_bag import UNTIL, Until

if TYPE_CHECKING:
    from amp.nft.kernels.training.descent import Fit

logger = logging.getLogger("amp.nft")
Forces = Literal["all", "centre"] | Sequence[Any]
EnergyStage = bool | Literal["all"]
LEAST_IMAGES = 2
ON_ALL = "all-images"  # event of a member after its stage on all images


def fit(
    images: Images,
    *,
    calc_text: Any = None,
    features: str | dict[str, Any] = "g2x",
    hiddenlayers: Any = (10, 10),
    cutoff: float = 6.0,
    n: int = 10,
    valid: float = 0.1,
    directory: str | os.PathLike[str] = "fit",
    seed: int = 0,
    forces: Forces = "all",
    fit_until: Until = "out-of-bag",
    energy_stage: EnergyStage = True,
    threads: int | None = None,
    baseline: Parent | None = None,
    card: Mapping[str, str | None] | None = None,
    energy_key: str | None = None,
    forces_key: str | None = None,
    log: Callable[[str], Any] = logger.info,
) -> Ensemble:
    """Fit an ensemble of Gaussian + NeuralNetwork members to labelled images.

    Run it again after a kill: members that are finished are kept in `directory`.

    Parameters
    ----------
    images : list of Atoms, dict, or a file that ASE reads
        With energies (eV) and forces (eV/Å); duplicates count once.
    calc_text : str, dict or Amp, optional
        Python text that leaves an Amp calculator in ``calc``, settings of one as for `NFT.run`, or the calculator. In place of it give
        `features`, `hiddenlayers` and `cutoff`.
    features : str or dict
        'g2x', 'large', 'larger', 'large5' or 'paper20' of :mod:`amp.nft.features`, or Amp's ``Gs``.
    hiddenlayers : tuple of int, or dict by element
    cutoff : float
        Radius of the fingerprints, Å.
    n : int
        Number of members, each fitted to a bootstrap sample of the images.
    valid : float
        Fraction of the images, drawn at random, that no member is fitted to; 0 for none.
    directory : path
        Where the fit keeps its files; one fit each.
    seed : int
        Of everything random.
    forces : 'all', 'centre', or one item per image
        Forces that are trained. 'centre' trains the first atom of each image, as for chunks; 'all' trains one atom of an image with
        ``nft_central_atom`` in its ``info``. An item is None (energy and all forces),
        indices of atoms, or a float array with a weight for each atom. An image of which forces are chosen trains no energy.
    fit_until : {'out-of-bag', 'criteria'}
        A member keeps the parameters of its smallest error on the images that its sample lacks, or stops at the criteria
        of `calc_text`.
    energy_stage : bool or 'all'
        End an out-of-bag fit with a few steps in which energies count more. On the data sets of the benchmarks they reduce
        the errors of the energies by a third and add two percent to those of the forces. 'all': then ten such steps on all images,
        after the calibration, so that each member learns from the images that its sample lacks too.
    threads : int, optional
        The result does not depend on it.
    baseline : ASE calculator, or callable, optional
        A cheap calculator to which the members add: they learn what the labels have beyond it. See :doc:`/baseline`.
    card : dict, optional
        ``parent``, ``licence``, ``citation`` and ``date`` as texts for the model card; the data set does not say them.
    energy_key, forces_key : str, optional
        Names of the energy in ``info`` and of the forces in the arrays of the images, where they are not ASE's results.
    log : callable
        Is called with each line of progress.

    Returns
    -------
    Ensemble

    Raises
    ------
    InputError
        An argument or an image cannot be used.
    UnsupportedModel
        The calculator is not Gaussian + NeuralNetwork.
    RunStoreError
        `directory` contains a fit of other images or settings.
    """
    _check(n, valid, fit_until, calc_text, cutoff)
    _check_stage(energy_stage, fit_until)
    terms = checked_terms(card, ("parent", *TERMS))
    labelled, rows = _read(images, forces, energy_key, forces_key)
    spec = _spec(calc_text, features, hiddenlayers, cutoff, sorted({s for image in labelled for s in image.symbols}), Path(directory))
    trained, validation = _split(len(labelled), valid, seed)
    first = Baseline(baseline).begin(labelled)
    identity = {
        "images": [_digest(labelled, rows)], "calculator": repr(spec), "n": n, "valid": valid, "seed": seed, "fit_until": fit_until,
        "energy_stage": energy_stage, **first.settings,
    }  # fmt: skip
    log(f"Fitting {n} members to {len(trained)} images; {len(validation)} images for validation.")
    with RunStore(directory) as store:
        made_with = _begin(store, identity)
        first.open(SecondLabels(store))
        task = TrainingTask(
            images=first.remainders([labelled[i] for i in trained]),
            rows=[rows[i] for i in trained],
            weights_mi=sample_weights(seed, n, len(trained), []),
            start=None,
            seed=seed,
            iteration=0,
            until=fit_until,
            end_with_energies=bool(energy_stage),
        )
        trainer = BatchedTrainer(spec, threads, log)
        run = _Fit(trainer, task, store, log)
        texts = _calibrated(run.members(), task, trainer)
        if energy_stage == "all":
            texts = run.continued(texts)
    members = Ensemble(first.marked(texts), validation)
    ensemble = with_card_of_fit(members, labelled, rows, identity, {**terms, "versions": made_with}, baseline)
    ensemble.save(Path(directory) / "fit.ensemble")
    log(f"Saved {Path(directory) / 'fit.ensemble'}.")
    return ensemble


@dataclass(frozen=True)
class _Fit:
    """The members of one fit, finished ones from its files."""

    trainer: BatchedTrainer
    task: TrainingTask
    store: RunStore
    log: Callable[[str], Any]

    def members(self) -> list[str]:
        """Return all members; fit those that are missing, as many together as there are threads."""
        from amp.nft.kernels.compilation import announced  # numba: only where it is needed
        from amp.nft.kernels.first_use import evaluation
        from amp.nft.kernels.threads import available_cpus

        missing = self._missing("member")
        if len(missing) < self.task.n_members:
            self.log(f"Resuming: {self.task.n_members - len(missing)} of {self.task.n_members} members found.")
        together = self.trainer.threads or available_cpus()
        with announced(self.log, meanwhile=evaluation):
            for k in range(0, len(missing), together):
                self._fit(missing[k : k + together])
        return self._texts("member")

    def continued(self, texts: list[str]) -> list[str]:
        """Return calibrated members after a stage on all images; the band remains as wide as before, on average over the forces."""
        before = [read_amp(text) for text in texts]
        if missing := self._missing(ON_ALL):
            models, fits = self.trainer.continue_on_all(self.task, [before[m] for m in missing])
            for member, model, fit in zip(missing, models, fits, strict=True):
                report = _continued(report_of(before[member].nft["report"]), fit)
                self._keep(ON_ALL, model, report)
        texts, known = self._texts(ON_ALL), before[0].nft.get("out_of_bag")
        if known is None:
            return texts
        ratio = self.trainer.spread_ratio(self.task, before, [read_amp(text) for text in texts])
        return [with_data(text, out_of_bag={**known, "factor": ratio * known["factor"]}) for text in texts]

    def _missing(self, event: str) -> list[int]:
        """Return the members of which no file is stored."""
        finished = _finished(self.store, event)
        return [m for m in range(self.task.n_members) if m not in finished]

    def _texts(self, event: str) -> list[str]:
        """Return all members from their files."""
        finished = _finished(self.store, event)
        return [self.store.content(finished[member]).decode() for member in range(self.task.n_members)]

    def _keep(self, event: str, model: AmpModel, report: MemberReport) -> None:
        """Store a member with its report."""
        text = with_data(write_amp(model), report=report.as_dict())
        self.store.append(event, member=report.member, file=self.store.keep(text.encode(), ".amp"))
        self.log(_line(report))

    def _fit(self, members: list[int]) -> None:
        """Fit some members and store each."""
        task = replace(self.task, weights_mi=self.task.weights_mi[members], members=tuple(members))
        models, reports = self.trainer.fit_models(task)
        for member, model, report in zip(members, models, reports, strict=True):
            self._keep("member", model, replace(report, member=member))


def _finished(store: RunStore, of: str) -> dict[int, str]:
    """Return the files of the members that are finished, by the event that names them."""
    return {event["member"]: event["file"] for event in store.events if event["event"] == of}


def _continued(report: MemberReport, fit: Fit) -> MemberReport:
    """Return the report on a member after its stage on all images."""
    energy_rmse, energy_maxresid, force_rmse, force_maxresid = map(float, fit.measures)
    return replace(
        report, steps=report.steps + fit.steps, loss=fit.loss, energy_rmse=energy_rmse, energy_maxresid=energy_maxresid,
        force_rmse=force_rmse, force_maxresid=force_maxresid, message=f"{report.message}; then {fit.steps} steps on all images",
    )  # fmt: skip


def _line(report: MemberReport) -> str:
    return f"Member {report.member}: {report.message}"


def _calibrated(texts: list[str], task: TrainingTask, trainer: BatchedTrainer) -> list[str]:
    """Return the members with the out-of-bag calibration of the whole ensemble."""
    found = trainer.calibrate(task, [read_amp(text) for text in texts])
    return texts if found is None else [with_data(text, out_of_bag=asdict(found)) for text in texts]


def _begin(store: RunStore, identity: dict[str, Any]) -> dict[str, str]:
    """Note the settings of the fit, or compare them with those in its files; return the versions that began it."""
    begun = next((event for event in store.events if event["event"] == "run"), None)
    identity = json.loads(json.dumps(identity))
    if begun is None:
        store.append("run", format=FORMAT, settings=identity, versions=versions())
        return versions()
    before = begun.get("settings", {})
    different = sorted(key for key in identity.keys() | before.keys() if before.get(key) != identity.get(key))
    if different:
        raise RunStoreError(f"{store.directory} contains a fit with other {', '.join(different)}: use another directory=, or remove it.")
    return begun.get("versions", {})


# -- inputs ----------------------------------------------------------------------------------------------------


def _check(n: int, valid: float, fit_until: str, calc_text: Any, cutoff: float) -> None:
    """Raise InputError for settings that cannot be used."""
    check_count("n", n, least=1)
    check_lengths(cutoff=cutoff)
    if not 0.0 <= valid < 1.0:
        raise InputError(f"valid is {valid!r}: it must be a fraction from 0 to below 1, for example 0.1.")
    if fit_until not in UNTIL:
        raise InputError(f"fit_until is {fit_until!r}: it must be one of {', '.join(map(repr, UNTIL))}.")
    if fit_until == "criteria" and calc_text is None:
        raise InputError("fit_until is 'criteria', but there are none: give calc_text with convergence=..., or use 'out-of-bag'.")


def _check_stage(energy_stage: EnergyStage, fit_until: str) -> None:
    """Raise InputError for an energy stage that cannot be."""
    if not isinstance(energy_stage, bool) and energy_stage != "all":
        raise InputError(f"energy_stage is {energy_stage!r}: it must be True, False or 'all'.")
    if energy_stage == "all" and fit_until != "out-of-bag":
        raise InputError(f"energy_stage is 'all', but fit_until is {fit_until!r}: give fit_until='out-of-bag', or energy_stage=False.")


def _read(images: Images, forces: Forces, energy_key: str | None, forces_key: str | None) -> tuple[list[Atoms], list[ForceRows | None]]:
    """Return labelled copies of the images, each once, and the forces that are trained."""
    given = read_images(images)
    labelled = read_training_images(given, energy_key, forces_key)
    if len(labelled) < LEAST_IMAGES:
        raise InputError(f"images contains {len(labelled)} different image: give at least {LEAST_IMAGES}.")
    if isinstance(forces, str):
        if forces not in ("all", "centre"):
            raise InputError(f"forces is {forces!r}: it must be 'all', 'centre', or one item per image.")
        centres = [marked_atom(image) if forces == "all" else 0 for image in labelled]
        return labelled, [None if atom is None else ForceRows.central(atom) for atom in centres]
    if len(forces) != len(given) or len(labelled) != len(given):
        raise InputError(f"forces has {len(forces)} items for {len(given)} images, {len(labelled)} of them different: give one per image.")
    return labelled, [_rows(f"forces[{i}]", some, labelled[i]) for i, some in enumerate(forces)]


def _rows(name: str, chosen: Any, image: Atoms) -> ForceRows | None:
    """Return the forces of one image that are trained."""
    if chosen is None:
        return None
    values = np.asarray(chosen)
    if values.dtype.kind == "f":
        if values.shape != (len(image),) or not (np.isfinite(values) & (values >= 0)).all() or not values.any():
            raise InputError(f"{name} is not {len(image)} weights of 0 or more, one per atom and one above 0.")
        atoms = np.flatnonzero(values)
        return ForceRows(tuple(map(int, atoms)), tuple(map(float, values[atoms])))
    atoms = checked_indices(name, chosen, len(image))
    return ForceRows(tuple(map(int, atoms)), (1.0,) * len(atoms))


def _spec(calc_text: Any, features: Any, hiddenlayers: Any, cutoff: float, elements: list[str], directory: Path) -> CalculatorSpec:
    """Return the settings of the calculator, from a text, an object or names."""
    if isinstance(calc_text, str | Mapping):
        return read_calc_text(calc_text_of(calc_text, elements), directory=directory)
    if calc_text is not None:
        return spec_of(calc_text)
    gs = feature_sets.named(features, elements) if isinstance(features, str) else features
    return CalculatorSpec(
        gs=gs, elements=tuple(elements), cutoff={"name": "Cosine", "kwargs": {"Rc": float(cutoff)}}, hiddenlayers=hiddenlayers,
        activation="tanh", energy_coefficient=1.0, force_coefficient=0.04, overfit=0.0, maxiter=100_000, convergence={}, model=None,
    )  # fmt: skip


def _split(n_images: int, valid: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the images to train on, and those for validation."""
    order = np.random.default_rng(random_stream(seed, Purpose.VALIDATION)).permutation(n_images)
    n_valid = min(round(valid * n_images), n_images - LEAST_IMAGES)
    return sorted(map(int, order[n_valid:])), sorted(map(int, order[:n_valid]))


def _digest(images: list[Atoms], rows: list[ForceRows | None]) -> str:
    """Return a digest of structures, labels and trained forces."""
    digest = hashlib.sha256(repr(rows).encode())
    for image in images:
        numbers = (image.numbers, image.positions, image.cell.array, image.pbc, image.get_potential_energy(), image.get_forces())
        for values in map(partial(np.asarray, dtype=float), numbers):
            digest.update(values.tobytes())
    return digest.hexdigest()[:32]
