"""The loop: train, find the atoms where the members disagree, label chunks around them, train again.

A step whose result is in the run's files does nothing; this makes a restart exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from amp.nft.activelearner.batches import batch_size, informative_atoms, spread_atoms
from amp.nft.activelearner.beginning import first_chunks
from amp.nft.activelearner.chunk_labels import BatchStopped, ChunkLabels
from amp.nft.activelearner.corrected_labels import CorrectedLabels
from amp.nft.activelearner.identity import changed_structures, kept_images
from amp.nft.activelearner.inheritance import inherit
from amp.nft.activelearner.limits import Limits
from amp.nft.activelearner.output_files import RunFiles
from amp.nft.activelearner.parent_record import ParentRecord
from amp.nft.activelearner.random_test import RandomTest
from amp.nft.activelearner.resume import compare_settings
from amp.nft.activelearner.run_card import card_of_run
from amp.nft.activelearner.setup import Setup
from amp.nft.activelearner.stopping import Iteration, StopReason, StopRule, best_of, first_reason, nothing_above
from amp.nft.activelearner.verdict_stage import record_verdict
from amp.nft.calculator.members import Members, open_members
from amp.nft.errors import TrainingError
from amp.nft.labels.identity import identify
from amp.nft.records import Ensemble, MemberStep, Trainer, TrainingTask
from amp.nft.run.replay import LiveState
from amp.nft.run.second_labels import SecondLabels
from amp.nft.run.store import FORMAT, RunStore
from amp.nft.run.verdict import Verdict, recorded_verdict, verdict_of
from amp.nft.training.choose import sample_weights
from amp.nft.uncertainty.forces import select


class Loop:
    """Nearsighted force training of one or more targets.

    Parameters
    ----------
    setup : Setup
    store : RunStore
        The loop takes finished results from it and adds new ones.
    trainer : Trainer
    log : callable
        Takes a message.
    watch : callable, optional
        Called with the iteration and a MemberStep, as `amp.nft.records.Watch` has it.
    """

    def __init__(
        self,
        setup: Setup,
        store: RunStore,
        trainer: Trainer,
        log: Callable[[str], None],
        watch: Callable[[int, MemberStep], object] = lambda iteration, step: None,
    ) -> None:
        self.setup = setup
        self.store = store
        self.state = LiveState(store)
        self.trainer = trainer
        self.log = log
        self.watch = watch
        self.history: list[Iteration] = []
        self.limits = Limits.from_now(None, self.state, setup.method)
        self.inherited: list[int] = []  # atoms whose labels another run made
        self.begin: list[int] = []  # atoms whose chunks are in the first training set
        self.added: list[list[int]] = []  # atoms whose chunks were added, per iteration
        self.first = np.cumsum([0, *map(len, setup.targets)])  # first atom of each target
        self.files = RunFiles(setup.label, store.directory)
        parts = setup.carving, setup.labels, store, self.files.labels, log
        self.labels = ChunkLabels(*parts, baseline=setup.baseline)
        if setup.correction is not None:
            self.labels = CorrectedLabels(*parts, cheap=setup.correction)
        self.test = RandomTest(self.labels, store, self.state, setup.seed, log)

    def open(self, settings: dict[str, Any], notes: dict[str, Any]) -> None:
        """Resume the run in the store, or begin one.

        Parameters
        ----------
        settings : dict
            Settings that must not change when the run resumes.
        notes : dict
            Settings that may.

        Raises
        ------
        RunStoreError
            The run in the store has other settings.
        """
        if not self.store.events:
            self.files.check_fresh()
        before = self.state()
        if before.iterations:
            changed = changed_structures(self.store, before, self.setup.images, self.setup.targets)
            compare_settings(before.settings, settings, self.files.saved_info.parent, changed)
        else:  # nothing is lost that other settings would contradict
            self.store.append("run", format=FORMAT, settings=settings, **kept_images(self.store, self.setup.images))
        setup, options = self.setup, self.setup.labels
        parents = ParentRecord(self.store.events, identify(options.parent), options.accept_parent, self.files.saved_info.parent)
        targets = [self.store.keep_image(target) for target in self.setup.targets]
        self.store.append("start", **notes, **parents.start_fields(), targets=targets)
        setup.baseline.open(SecondLabels(self.store))
        setup.baseline.label(setup.targets)  # for the report: networks alone learn without them
        if setup.gate is not None and self.state().gate is None:
            self.store.append("gate", **setup.gate.as_dict())
        if setup.inherit is not None and not before.iterations:
            self.inherited = inherit(self.store, self.state(), setup.inherit, identify(options.parent), options.accept_parent)
        self.labels.open(parents, self.state())
        self.test.open(parents)
        if self.labels.images:
            self.log(f"Resuming the run in {self.store.directory}: {len(self.labels.images)} labelled chunks found.")

    def run(self, rules: Sequence[StopRule]) -> StopReason:
        """Iterate until a rule stops the run.

        The iterations in the store are replayed first, even if they go beyond the present rules.

        Parameters
        ----------
        rules : sequence of callable
            Each takes the history and returns a StopReason or None.

        Returns
        -------
        StopReason
        """
        reason: StopReason | None = None
        try:
            reason = self._iterate(rules)
            self._test(reason)
        except BatchStopped:
            reason = self.limits.cut_short(reason)
        self._finish(reason)
        return reason

    def _iterate(self, rules: Sequence[StopRule]) -> StopReason:
        """Train and label until a rule gives a reason to stop."""
        reason: StopReason | None = None
        self.begin = first_chunks(self.setup, self.labels, self.test.larger, self.state, self.log, self.limits.over, self.inherited)
        while reason is None:
            iteration = len(self.history)
            texts = self._train(iteration)
            delta = self._evaluate(iteration, texts)
            if self.state().at(iteration + 1).trained is None:
                reason = first_reason(rules, self.history)
            reason = reason or self._grow(iteration, delta)
        return reason

    # -- train ---------------------------------------------------------------------------------------------

    def _train(self, iteration: int) -> list[str]:
        """Return the members of this iteration's ensemble."""
        if self.state().at(iteration).trained is None:
            self._train_now(iteration)
        texts = self.store.texts(self.state().trained(iteration).file)
        self.files.save_ensemble(iteration, self.setup.baseline.marked(texts))
        return texts

    def _train_now(self, iteration: int) -> None:
        task = self._task(iteration)
        chunks = len(task.images) - len(self.setup.images)
        self.log(f"\nIteration {iteration}: training on {len(self.setup.images)} images and {chunks} chunks.")
        begin = time.perf_counter()
        outcome = self.trainer.train(task, partial(self.watch, iteration))
        seconds = time.perf_counter() - begin - outcome.compile_seconds
        missed = [report for report in outcome.reports if not report.converged]
        self.log(f"Trained {len(outcome.texts)} members in {seconds:.1f} s; {len(missed)} missed their criteria.")
        for report in missed:
            self.log(f"  member {report.member}: {report.message}")
        self.store.append(
            "trained",
            iteration=iteration,
            file=self.store.keep_texts(outcome.texts),
            reports=[report.as_dict() for report in outcome.reports],
            trainer=self.trainer.name,
            chunks=chunks,
            seconds=seconds,
        )

    def _task(self, iteration: int) -> TrainingTask:
        setup, atoms = self.setup, self._chunk_atoms()
        chunks, rows = self.labels.training_set(atoms, setup.method.forces, energies=not setup.images)
        place = {atom: len(setup.images) + k for k, atom in enumerate(atoms)}
        added = [[place[atom] for atom in batch] for batch in self.added]
        start, retry_m = setup.start, None
        if iteration > 0:
            last = self.state().trained(iteration - 1)
            start = self.store.texts(last.file)
            retry_m = tuple(report.converged for report in last.reports)  # a member that stalled there will stall again
        if setup.method.fit_until == "out-of-bag":  # weights that were fitted to other samples know the images that are to judge them
            start, retry_m = None, None
        return TrainingTask(
            images=setup.baseline.remainders(setup.images) + chunks,
            rows=[*setup.rows, *rows],
            weights_mi=sample_weights(setup.seed, setup.n, len(setup.images) + len(self.begin), added),
            start=start,
            seed=setup.seed,
            iteration=iteration,
            retry_m=retry_m,
            targets=setup.targets,
            until=setup.method.fit_until,
        )

    def _chunk_atoms(self) -> list[int]:
        """Return the central atoms of the chunks in the training set, in the order in which they were added."""
        return list(dict.fromkeys([*self.begin, *(atom for batch in self.added for atom in batch)]))

    def _used_atoms(self) -> set[int]:
        """Return the atoms that no batch takes: those with a chunk in the training set, and those of the test."""
        return {*self._chunk_atoms(), *self.state().test}

    # -- look ----------------------------------------------------------------------------------------------

    def _evaluate(self, iteration: int, texts: list[str]) -> np.ndarray:
        """Return the uncertainty on each atom of the targets; add to the history and save the best ensemble."""
        if self.state().at(iteration).evaluated is None:
            self._evaluate_now(iteration, texts)
        delta = self.store.array(self.state().evaluated(iteration).file)
        entry = self._entry(iteration, delta)
        self.history.append(entry)
        self.log(
            f"Iteration {iteration}: {entry.n_chunks} chunks, uncertainty max {entry.delta_max:.4f}, mean {entry.delta_mean:.4f} eV/Å."
        )
        if len(self.setup.targets) > 1:
            self.log("Largest on each target: " + ", ".join(f"{value:.4f}" for value in entry.structures) + " eV/Å.")
        if best_of(self.history) is entry:
            self._save_best(iteration, texts)
            self.log(f"Best so far: saved as {self.files.best.name}.")
        self.files.save_deltas(iteration, delta)
        self.files.save_metrics(self.state())
        return delta

    def _save_best(self, iteration: int, texts: list[str], verdict: Verdict | None = None) -> None:
        """Write the best ensemble with its model card."""
        card = card_of_run(self.setup, self.store.events, self.state(), texts, iteration, verdict)
        self.files.save_best(self.setup.baseline.marked(texts), card)

    def _evaluate_now(self, iteration: int, texts: list[str]) -> None:
        setup = self.setup
        members = self._open(texts)
        delta = np.concatenate([members.predict(target).uncertainty for target in setup.targets])
        if not np.isfinite(delta).all():
            raise TrainingError(
                f"The ensemble of iteration {iteration} predicts forces on atom {int(np.flatnonzero(~np.isfinite(delta))[0])} of the "
                "target that are not finite numbers: its training diverged. Check the labels and calc_text, and use another seed or label."
            )
        self.store.append(
            "evaluated",
            iteration=iteration,
            file=self.store.keep_array(delta),
            delta_max=delta.max(),
            delta_mean=delta.mean(),
            error95_factor=members.error95_factor,
        )

    def _open(self, texts: list[str]) -> Members:
        return open_members(texts, self.files.saved_info.parent, self.setup.dblabel, self.setup.threads)

    def _entry(self, iteration: int, delta: np.ndarray) -> Iteration:
        trained = self.state().trained(iteration)
        return Iteration(
            iteration,
            trained.chunks,
            float(delta.max()),
            float(delta.mean()),
            trained.reports,
            trained.trainer,
            tuple(float(part.max()) for part in np.split(delta, self.first[1:-1])),
        )

    # -- grow ----------------------------------------------------------------------------------------------

    def _grow(self, iteration: int, delta: np.ndarray) -> StopReason | None:
        """Label the environments of the most uncertain atoms and add them to the training set."""
        if self.state().at(iteration).added is None:
            chosen = self._choose(iteration, delta)
            if not len(chosen):
                return nothing_above(self.setup.threshold, float(delta.max()))
            self._label(iteration, self._without_duplicates(chosen, delta), delta)
        added = self.state().added(iteration)
        self.added.append(self.labels.restore(added.atoms))
        self.files.save_chunks(iteration, list(added.chosen), [self.labels.images[atom] for atom in self._chunk_atoms()])
        return None

    def _choose(self, iteration: int, delta: np.ndarray) -> np.ndarray:
        """Return the atoms of the next batch: those that `threshold` selects, or in "robust", where there is none, spread atoms."""
        if self.setup.threshold is not None or self.setup.method.name == "paper":
            chosen = np.setdiff1d(select(delta, self.setup.threshold), list(self.state().test))  # test labels are never trained
            size = len(chosen)
            if self.setup.method.batch == "top":
                return chosen
        else:
            size = batch_size(iteration + bool(self.begin))
        if self.setup.method.batch == "spread":
            texts = self.store.texts(self.state().trained(iteration).file)
            return informative_atoms(self.setup, self._task(iteration), texts, delta, size, self._used_atoms())
        return np.array(spread_atoms(self.setup.targets, delta, size, self.setup.carving.cutoff, self._used_atoms()), dtype=int)

    def _without_duplicates(self, chosen: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """Return the chosen atoms without those whose environment another one's chunk covers."""
        if self.setup.distinct is None:
            return chosen
        ranked = [int(atom) for atom in chosen[np.argsort(-delta[chosen], kind="stable")]]
        kept = self.setup.distinct(ranked, self._chunk_atoms())
        self.log(f"{len(chosen) - len(kept)} of {len(chosen)} atoms skipped: others have the same environment.")
        return np.sort(kept)

    def _with_new(self, chosen: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """Return the chosen atoms, with the next uncertain one if all are in the training set already: one new label, not a batch."""
        if self.setup.distinct is not None or not {*self._chunk_atoms()}.issuperset(chosen.tolist()):
            return chosen
        used = self._used_atoms()
        new = [atom for atom in np.argsort(-delta, kind="stable").tolist() if atom not in used][:1]
        self.log(f"All of {len(chosen)} chosen atoms are in the training set: {len(new)} next uncertain atom added.")
        return np.sort([*chosen, *new])

    def _label(self, iteration: int, chosen: np.ndarray, delta: np.ndarray) -> None:
        """Label chunks around the chosen atoms; the next most uncertain atom replaces one that fails."""
        wanted = self.limits.cut([int(atom) for atom in self._with_new(chosen, delta)], delta)
        if list(self.state().at(iteration).chosen) != wanted:
            self.store.append("chosen", iteration=iteration, atoms=wanted)
        atoms, failures = self.labels.label(wanted, delta, self._used_atoms(), self.limits.over)
        self.store.append("added", iteration=iteration, chosen=wanted, atoms=atoms, failed=sorted(failures))

    def _leave_training_directory(self) -> None:
        """Let a trainer without jobs write the files of Amp's jobs."""
        finish = getattr(self.trainer, "finish", None)
        if finish is not None:
            last = self.history[-1]
            texts = self.store.texts(self.state().trained(last.iteration).file)
            task = self._task(last.iteration)
            if self.setup.correction is not None:  # Amp tells images apart by their atoms alone: its files get the chunks as labelled
                chunks, rows = ChunkLabels.training_set(self.labels, self._chunk_atoms(), "centre", energies=False)
                task = replace(task, images=self.setup.images + chunks, rows=[*self.setup.rows, *rows])
            finish(task, Ensemble(self.setup.baseline.marked(texts), list(last.reports)))

    def _test(self, reason: StopReason) -> None:
        """Test the best ensemble by random labels."""
        if self.setup.method.test_labels and reason.name != "vanishing":
            members = self._open(self._best_texts())
            record_verdict(self.setup, self.test, self.history, members, self._chunk_atoms(), reason, self.limits.over)

    def _best_texts(self) -> list[str]:
        return self.store.texts(self.state().trained(best_of(self.history).iteration).file)

    def _finish(self, reason: StopReason) -> None:
        self.store.append("stopped", reason=reason.name, message=reason.message, converged=reason.converged)
        if self.history:
            self._save_best(best_of(self.history).iteration, self._best_texts(), recorded_verdict(self.state()))
            self._leave_training_directory()
        self.log(f"\n{reason}")
        for atom, failure in sorted(self.state().failures.items()):
            self.log(f"No label around atom {atom}: {failure.kind}: {failure.message}")
        if self.history:
            self.log(f"Best ensemble: {self.files.best.name} (iteration {best_of(self.history).iteration}).")
        self.log(f"Verdict: {verdict_of(self.state())}")
