"""Labels that a run's journal names, by the index of their atom."""

from __future__ import annotations

from collections.abc import Callable

from ase import Atoms

from amp.nft.errors import ContentError, RunStoreError
from amp.nft.labels.gate import Label, LabelFailure, check, stored
from amp.nft.labels.single_point import labelled
from amp.nft.run.store import RunRecord


def read_labels(record: RunRecord, files: dict[int, str], chunks: dict[int, Atoms], log: Callable[[str], object]) -> dict[int, Atoms]:
    """Read labelled chunks from the content of a run, through the gate for new labels.

    Parameters
    ----------
    record : RunRecord
    files : dict of int to str
        Content by the number of the chunk.
    chunks : dict of int to Atoms
        The chunks as they would be labelled now.
    log : callable
        Takes a message on each label that is dropped, so that the run makes it again.

    Returns
    -------
    dict of int to Atoms
    """
    labels = {}
    for number, name in files.items():
        outcome = _read(record, name, chunks.get(number))
        if isinstance(outcome, Label):
            labels[number] = labelled(chunks[number], outcome)  # a .traj file lacks the arrays of a chunk
        else:
            log(f"The stored label of chunk {number} ({name}) is dropped and made again: {outcome}")
    return labels


def _read(record: RunRecord, name: str, chunk: Atoms | None) -> Label | LabelFailure:
    """Return the judgement of the gate on an image of the run's content."""
    if chunk is None:
        return LabelFailure("BadLabel", "the targets have no such atom")
    try:
        return check(chunk, stored(record.image(name)))
    except Exception as error:  # ASE's readers raise many kinds
        if isinstance(error, RunStoreError) and not isinstance(error, ContentError):
            raise  # the file is gone or damaged: restoring it keeps the label
        return LabelFailure(type(error).__name__, str(error))
