"""Parents of the labels in a journal: a run whose parent changed stops before labels of two parents mix."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from amp.nft.errors import RunStoreError
from amp.nft.labels.gate import Label
from amp.nft.labels.identity import Identity, differences, digest_of

LABELS = ("label", "chunk-label")  # events that name a label
UNKNOWN: Identity = {"parent": "not recorded"}


def recorded_parents(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parents of the labels in a journal; of a run without labels the parent of its last start.

    Parameters
    ----------
    events : iterable of dict

    Returns
    -------
    list of dict
        Of each the ``identity``, the identity of the ``calculator`` that it returned (None if not known), and a ``digest`` of the first.
    """
    texts: dict[str, Identity] = {}
    pairs: set[tuple[str, str]] = set()
    last = ""
    for event in events:
        texts |= {digest_of(text): text for text in (event.get("identity"), event.get("made")) if text is not None}
        if event["event"] in LABELS and "parent" in event:
            pairs.add((event["parent"], event.get("calculator", "")))
        elif event["event"] == "start" and "identity" in event:
            last = digest_of(event["identity"])
    found = sorted(pairs) or ([(last, "")] if last else [])
    return [{"identity": texts.get(one, UNKNOWN), "calculator": texts.get(other), "digest": one} for one, other in found]


class ParentRecord:
    """Identities of the parents that made a run's labels, and of the one that makes the next.

    An event of a label has ``parent`` and ``calculator``, digests of the identities of the parent and of the calculator
    that it returned. The identities themselves are in the events of starts, as ``identity``, and in that of the first label
    by a calculator, as ``made``.

    Parameters
    ----------
    events : iterable of dict
        The journal so far.
    identity : dict
        Of the parent that makes the next labels.
    accept : bool
        Accept labels of other parents in this run, now and after each later start with this parent.
    directory : path
        For messages.

    Raises
    ------
    RunStoreError
        If labels are there of another parent that is not accepted.
    """

    def __init__(self, events: Iterable[dict[str, Any]], identity: Identity, accept: bool, directory: Path) -> None:
        self._identity, self._accept, self._directory = identity, accept, directory
        self.digest = digest_of(identity)
        self._texts: dict[str, Identity] = {}
        labels = self._unaccepted(events)
        for event in labels.values():
            if event.get("parent") != self.digest:
                raise self._error(self._texts.get(event.get("parent", ""), UNKNOWN), identity)
        self._made = {event["calculator"] for event in labels.values() if "calculator" in event}

    def _unaccepted(self, events: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Return the last event of each label that this parent must have made."""
        labels: dict[int, dict[str, Any]] = {}
        for event in events:
            if event["event"] in LABELS:
                labels[event["atom"] if "atom" in event else event["chunk"]] = event
            elif event.get("accept_parent") and digest_of(event.get("identity", UNKNOWN)) == self.digest:
                labels.clear()
            for text in (event.get("identity"), event.get("made")):
                if text is not None:
                    self._texts[digest_of(text)] = text
        return {} if self._accept else labels

    def start_fields(self) -> dict[str, Any]:
        """Return the fields of the event of a start.

        Returns
        -------
        dict
        """
        self._texts[self.digest] = self._identity
        return {"identity": self._identity, "accept_parent": self._accept}

    def label_fields(self, label: Label) -> dict[str, Any]:
        """Return the fields of the event of a new label.

        Parameters
        ----------
        label : Label

        Returns
        -------
        dict

        Raises
        ------
        RunStoreError
            The parent returned another calculator than for the labels before: a changed function of the same name.
        """
        made = digest_of(label.calculator)
        if self._made and made not in self._made and not self._accept:
            raise self._error(self._texts.get(next(iter(self._made)), UNKNOWN), label.calculator)
        self._made.add(made)
        return {"parent": self.digest, "calculator": made, **self._new("identity", self._identity), **self._new("made", label.calculator)}

    def _new(self, name: str, text: Identity) -> dict[str, Identity]:
        """Return the identity, unless an earlier event has it."""
        known = digest_of(text) in self._texts
        self._texts[digest_of(text)] = text
        return {} if known else {name: text}

    def _error(self, before: Identity, now: Identity) -> RunStoreError:
        lines = "\n".join(differences(before, now))
        return RunStoreError(
            f"{self._directory} has labels by another parent than parent_calc:\n{lines}\n"
            "Labels of two parents must not mix. Use the parent of before, or another label= for a run with the new one; "
            "accept_parent=True accepts both in this run."
        )
