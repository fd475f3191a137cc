"""The loop: train, find the atoms where the members disagree, label chunks around them, train again.

A step whose result is in the run's files does nothing; this makes a restart exact.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.activelearner.output_files import RunFiles
from amp.nft.activelearner.parent_record import ParentRecord
from amp.nft.activelearner.resume import compare_settings
from amp.nft.activelearner.stopping import Iteration, StopReason, StopRule, best_of, first_reason, nothing_above
from amp.nft.activelearner.stored_labels import carve_numbered, read_labels
from amp.nft.calculator.evaluate import target_uncertainty
from amp.nft.errors import LabellingError, TrainingError
from amp.nft.labels.identity import identify
from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import Label, LabelFailure, labelled
from amp.nft.records import Ensemble, ForceRows, LabelOptions, MemberStep, Trainer, TrainingTask
from amp.nft.run.replay import LiveState
from amp.nft.run.store import FORMAT, RunStore
from amp.nft.run.verdict import verdict_of
from amp.nft.training.choose import sample_weights
from amp.nft.uncertainty.forces import select


@dataclass(frozen=True)
class Setup:
    """Checked settings of a run, in copies that belong to the loop."""

    label: str
    images: list[Atoms]
    rows: list[ForceRows | None]
    targets: list[Atoms]
    n: int
    cutoff: float
    seed: int
    threshold: float | None
    labels: LabelOptions
    start: list[str] | None
    dblabel: str
    threads: int | None
    spread: Callable[[list[int], list[int]], list[int]] | None = None  # drops duplicate environments among chosen atoms, given known ones


class Loop:
    """Nearsighted force training of one or more targets, whose atoms are counted on from one to the next.

    Parameters
    ----------
    setup : Setup
    store : RunStore
        Results so far are taken from it, new ones go into it.
    trainer : Trainer
    log : callable
        Takes a message.
    watch : callable, optional
        Is told the iteration and a MemberStep, as `amp.nft.records.Watch` has it.
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
        self.added: list[list[int]] = []  # atoms whose chunks were added, per iteration
        self.labels: dict[int, Atoms] = {}
        self._chunks: dict[int, Atoms] = {}  # those that are being labelled
        self.first = np.cumsum([0, *map(len, setup.targets)])  # of each target the first atom
        self.files = RunFiles(setup.label, store.directory)

    def open(self, settings: dict[str, Any], notes: dict[str, Any]) -> None:
        """Resume the run in the store, or begin one; RunStoreError if it has other settings."""
        if not self.store.events:
            self.files.check_fresh()
        before = self.state()
        if before.iterations:
            compare_settings(before.settings, settings, self.files.saved_info.parent)
        else:  # nothing is lost that other settings would contradict
            self.store.append("run", format=FORMAT, settings=settings)
        options = self.setup.labels
        self.parents = ParentRecord(self.store.events, identify(options.parent), options.accept_parent, self.files.saved_info.parent)
        targets = [self.store.keep_image(target) for target in self.setup.targets]
        self.store.append("start", **notes, **self.parents.start_fields(), targets=targets)
        files = {atom: label.file for atom, label in before.labels.items()}
        self.labels = read_labels(self.store, files, self._carve(list(files)), self.log)
        if self.labels:
            self.log(f"Resuming the run in {self.store.directory}: {len(self.labels)} labelled chunks found.")

    def run(self, rules: Sequence[StopRule]) -> StopReason:
        """Iterate until a rule says stop; replay the iterations in the store first, even if they go beyond the present rules."""
        reason = None
        while reason is None:
            iteration = len(self.history)
            texts = self._train(iteration)
            delta = self._evaluate(iteration, texts)
            if self.state().at(iteration + 1).trained is None:
                reason = first_reason(rules, self.history)
            reason = reason or self._grow(iteration, delta)
        self._finish(reason)
        return reason

    # -- train ---------------------------------------------------------------------------------------------

    def _train(self, iteration: int) -> list[str]:
        """Return the members of this iteration's ensemble."""
        if self.state().at(iteration).trained is None:
            self._train_now(iteration)
        texts = self.store.texts(self.state().trained(iteration).file)
        self.files.save_ensemble(iteration, texts)
        return texts

    def _train_now(self, iteration: int) -> None:
        task = self._task(iteration)
        chunks = len(task.images) - len(self.setup.images)
        self.log(f"\nIteration {iteration}: training on {len(self.setup.images)} images and {chunks} chunks.")
        begin = time.perf_counter()
        outcome = self.trainer.train(task, partial(self.watch, iteration))
        seconds = time.perf_counter() - begin
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
        place = {atom: len(setup.images) + k for k, atom in enumerate(atoms)}
        added = [[place[atom] for atom in batch] for batch in self.added]
        start, retry_m = setup.start, None
        if iteration > 0:
            last = self.state().trained(iteration - 1)
            start = self.store.texts(last.file)
            retry_m = tuple(report.converged for report in last.reports)  # a member that stalled there will stall again
        return TrainingTask(
            images=setup.images + [self.labels[atom] for atom in atoms],
            rows=setup.rows + [ForceRows.central(0)] * len(atoms),
            weights_mi=sample_weights(setup.seed, setup.n, len(setup.images), added),
            start=start,
            seed=setup.seed,
            iteration=iteration,
            retry_m=retry_m,
            targets=setup.targets,
        )

    def _chunk_atoms(self) -> list[int]:
        """Return the central atoms of the chunks in the training set, in the order in which they were added."""
        return list(dict.fromkeys(atom for batch in self.added for atom in batch))

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
            self.files.save_best(texts)
            self.log(f"Best so far: saved as {self.files.best.name}.")
        self.files.save_deltas(iteration, delta)
        return delta

    def _evaluate_now(self, iteration: int, texts: list[str]) -> None:
        setup = self.setup
        deltas = [target_uncertainty(texts, some, setup.dblabel, setup.threads) for some in setup.targets]
        delta = np.concatenate(deltas)
        if not np.isfinite(delta).all():
            raise TrainingError(
                f"The ensemble of iteration {iteration} predicts forces on atom {int(np.flatnonzero(~np.isfinite(delta))[0])} of the "
                "target that are not finite numbers: its training diverged. Check the labels and calc_text, and use another seed or label."
            )
        self.store.append(
            "evaluated", iteration=iteration, file=self.store.keep_array(delta), delta_max=delta.max(), delta_mean=delta.mean()
        )

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
        """Label chunks around the most uncertain atoms and add them to the training set."""
        if self.state().at(iteration).added is None:
            chosen = select(delta, self.setup.threshold)
            if not len(chosen):
                return nothing_above(self.setup.threshold, float(delta.max()))
            self._label(iteration, self._without_twins(chosen, delta), delta)
        added = self.state().added(iteration)
        self.added.append(self._restore(list(added.atoms)))
        self.files.save_chunks(iteration, list(added.chosen), [self.labels[atom] for atom in self._chunk_atoms()])
        return None

    def _without_twins(self, chosen: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """Return the chosen atoms without those whose environment another chunk covers."""
        if self.setup.spread is None:
            return chosen
        ranked = [int(atom) for atom in chosen[np.argsort(-delta[chosen], kind="stable")]]
        kept = self.setup.spread(ranked, self._chunk_atoms())
        self.log(f"{len(chosen) - len(kept)} of {len(chosen)} atoms skipped: others have the same environment.")
        return np.sort(kept)

    def _label(self, iteration: int, chosen: np.ndarray, delta: np.ndarray) -> None:
        """Label chunks around the chosen atoms; the next most uncertain atom takes the place of one that fails."""
        wanted = [int(atom) for atom in chosen]
        taken = {*wanted, *self._chunk_atoms()}  # not self.labels: a batch cut short must go the same way again
        ranked = [int(atom) for atom in np.argsort(-delta, kind="stable")]
        spare = deque([atom for atom in ranked if atom not in taken][: len(wanted)])
        new = [atom for atom in wanted if atom not in self.labels]
        if list(self.state().at(iteration).chosen) != wanted:
            self.store.append("chosen", iteration=iteration, atoms=wanted)
        self.log(f"{len(wanted)} atoms chosen, {len(new)} of them to be labelled.")
        replacements: list[int] = []
        failures: dict[int, LabelFailure] = {}
        with self._pool() as pool:
            for atom, failure in self._make(pool, new):
                failures[atom] = failure
                replacements += self._replace(pool, spare)
        atoms = [atom for atom in wanted + replacements if atom in self.labels]
        if not atoms:
            raise LabellingError(_all_failed(failures))
        self.store.append("added", iteration=iteration, chosen=wanted, atoms=atoms, failed=sorted(failures))

    def _pool(self) -> LabelPool:
        on_retry = partial(self._note, "label-retried")
        return LabelPool(self.setup.labels, self.files.labels, on_retry=on_retry, log=self.log)

    def _request(self, pool: LabelPool, atoms: list[int]) -> None:
        """Request labels of the chunks around these atoms."""
        chunks = self._carve(atoms)
        self._chunks |= chunks
        for atom, chunk in chunks.items():
            pool.request(atom, chunk)

    def _carve(self, atoms: Sequence[int]) -> dict[int, Atoms]:
        """Chunks around atoms of the targets."""
        return carve_numbered(self.setup.targets, atoms, self.setup.cutoff)

    def _make(self, pool: LabelPool, atoms: list[int]) -> Iterator[tuple[int, LabelFailure]]:
        """Label the chunks around these atoms, keep the labels, and yield the failures."""
        self._request(pool, atoms)
        for atom, outcome in pool.done():
            if isinstance(outcome, Label):
                self._keep(atom, outcome)
                pool.tidy(atom)
            else:
                yield atom, self._note("label-failed", atom, outcome)

    def _restore(self, atoms: list[int]) -> list[int]:
        """Replace labels that were dropped, and return those of the atoms that have a label."""
        dropped = [atom for atom in atoms if atom not in self.labels]
        if dropped:
            self.log(f"Labelling {len(dropped)} chunks of the training set again.")
            with self._pool() as pool:
                for _ in self._make(pool, dropped):
                    pass
        return [atom for atom in atoms if atom in self.labels]

    def _replace(self, pool: LabelPool, spare: deque[int]) -> list[int]:
        """Return the next most uncertain atom, and request its label unless it exists; empty if no atom is left."""
        if not spare:
            return []
        atom = spare.popleft()
        if atom not in self.labels:
            self._request(pool, [atom])
        return [atom]

    def _keep(self, atom: int, label: Label) -> None:
        """Save a label."""
        parents = self.parents.label_fields(label)
        self.labels[atom] = labelled(self._chunks.pop(atom), label)
        self.store.append("label", atom=atom, file=self.store.keep_image(self.labels[atom]), seconds=label.seconds, **parents)

    def _note(self, event: str, atom: int, failure: LabelFailure) -> LabelFailure:
        """Record a failure in the journal and the log."""
        self.store.append(event, atom=atom, kind=failure.kind, message=failure.message)
        what = "is tried again" if event == "label-retried" else "could not be labelled"
        self.log(f"  the chunk around atom {atom} {what}: {failure}")
        return failure

    def _leave_training_directory(self) -> None:
        """Let a trainer without jobs write the files of Amp's jobs."""
        finish = getattr(self.trainer, "finish", None)
        if finish is not None:
            last = self.history[-1]
            texts = self.store.texts(self.state().trained(last.iteration).file)
            finish(self._task(last.iteration), Ensemble(texts, list(last.reports)))

    def _finish(self, reason: StopReason) -> None:
        self.store.append("stopped", reason=reason.name, message=reason.message, converged=reason.converged)
        self._leave_training_directory()
        self.log(f"\n{reason}")
        for atom, failure in sorted(self.state().failures.items()):
            self.log(f"No label around atom {atom}: {failure.kind}: {failure.message}")
        self.log(f"Best ensemble: {self.files.best.name} (iteration {best_of(self.history).iteration}).")
        self.log(f"Verdict: {verdict_of(self.state())}")


def _all_failed(failures: dict[int, LabelFailure]) -> str:
    atom, failure = next(iter(failures.items()))
    return (
        f"None of {len(failures)} chunks could be labelled; the one around atom {atom} failed with {failure}. "
        f"Fix the cause and rerun the script: finished work is kept.\n{failure.traceback}"
    )
