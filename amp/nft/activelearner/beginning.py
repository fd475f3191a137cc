"""First stage of a run: chunks of the first training set, and the judgement of a correction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from amp.nft.activelearner.batches import START_BATCH, spread_atoms
from amp.nft.activelearner.chunk_labels import ChunkLabels
from amp.nft.activelearner.setup import Setup
from amp.nft.chunks.correction import FEWEST, Gate, judge
from amp.nft.errors import CorrectionError, LabellingError
from amp.nft.records import Purpose, random_stream
from amp.nft.run.replay import LiveState

GATE_ATOMS = 10  # atoms that judge a correction; two may fail


def first_chunks(
    setup: Setup, labels: ChunkLabels, larger: ChunkLabels, state: LiveState, log: Callable[[str], object],
    stop: Callable[[], bool] = lambda: False, inherited: Sequence[int] = (),
) -> list[int]:  # fmt: skip
    """Label chunks around spread atoms of the targets, where there are no images or a correction is to be judged.

    Parameters
    ----------
    setup : Setup
    labels, larger : ChunkLabels
        Of chunks, and of larger ones.
    state : LiveState
    log : callable
        Takes a message.
    stop : callable
        Returns True when no further label is to begin.
    inherited : sequence of int
        Atoms that another run has labelled; with those that `setup.inherit` names they are all of the first chunks.

    Returns
    -------
    list of int
        Atoms whose chunks are in the first training set: no label is spent on the judgement alone.

    Raises
    ------
    CorrectionError
        If the correction does not move the forces towards those of larger chunks.
    LabellingError
        If none of the atoms that `setup.inherit` names can be labelled.
    BatchStopped
        If `stop` kept a label from beginning.
    """
    unjudged = setup.correction is not None and state().gate is None
    n_atoms = sum(map(len, setup.targets))
    if state().begun is None and setup.inherit is not None:
        atoms, failures = labels.label([*inherited, *setup.inherit.atoms], np.zeros(n_atoms), range(n_atoms), stop)
        if setup.inherit.atoms and not {*atoms} & {*setup.inherit.atoms}:
            raise LabellingError(
                f"None of {len(setup.inherit.atoms)} new chunks could be labelled: {next(iter(failures.values()))}. Fix parent_calc and "
                "start again: finished work is kept."
            )
        labels.store.append("begun", atoms=atoms)
    elif state().begun is None and (not setup.images or unjudged):
        ranking = np.random.default_rng(random_stream(setup.seed, Purpose.SELECTION)).uniform(size=n_atoms)
        size = GATE_ATOMS if setup.images else START_BATCH
        chosen = spread_atoms(setup.targets, ranking, size, 2 * setup.carving.cutoff)
        labels.store.append("begin-chosen", atoms=chosen)
        atoms, _ = labels.label(chosen, ranking, (), stop)
        labels.store.append("begun", atoms=atoms)
    atoms = labels.restore(state().begun or ())
    if setup.correction is not None:
        known = state().gate
        gate = Gate.from_dict(known) if known is not None else _judge(atoms[:GATE_ATOMS], labels, larger, log, stop)
        log(str(gate))
        gate.raise_if_failed()
    return atoms


def _judge(atoms: Sequence[int], labels: ChunkLabels, larger: ChunkLabels, log: Callable[[str], object], stop: Callable[[], bool]) -> Gate:
    """Judge the correction by labels in larger chunks, and record the judgement if there are enough."""
    log(f"\nThe correction is judged by {len(atoms)} larger chunks.")
    every = range(max(atoms) + 1)
    known, failures = larger.label(atoms, np.zeros(len(every)), every, stop)
    plain, corrected, true = (
        np.array([of(atom) for atom in known])
        for of in (
            lambda atom: labels.images[atom].get_forces(apply_constraint=False)[0],
            lambda atom: labels.forces(atom)[0],
            lambda atom: larger.images[atom].get_forces(apply_constraint=False)[0],
        )
    )
    gate = judge(plain, corrected, true)
    if gate.n_atoms < FEWEST:  # not recorded: a rerun labels those that failed again
        reason = f" {len(failures)} labels failed, for example {next(iter(failures.values()))}." if failures else ""
        raise CorrectionError(f"{gate}{reason} Give a larger target, or fix the labels that failed and rerun the script.")
    labels.store.append("gate", **gate.as_dict())
    return gate
