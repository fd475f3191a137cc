"""Settings of a run in its journal: those that must not change, and those that may change when it resumes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from amp.nft.activelearner.identity import digests
from amp.nft.activelearner.setup import Setup
from amp.nft.errors import RunStoreError
from amp.nft.labels.executors import executor_name
from amp.nft.labels.identity import identify
from amp.nft.labels.single_point import parent_name
from amp.nft.run.state import Start
from amp.nft.run.store import RunStore
from amp.nft.system.packages import versions
from amp.nft.system.processes import this_process
from amp.nft.training import Choice


def circumstances(rules: Mapping[str, Any], setup: Setup, choice: Choice) -> dict[str, Any]:
    """Return the settings that may change when a run resumes.

    Parameters
    ----------
    rules : dict
        Settings of the selection and of the end of a run.
    setup : Setup
    choice : Choice

    Returns
    -------
    dict
    """
    settings = {
        **rules,
        "threads": setup.threads,
        "label_timeout": setup.labels.timeout,
        "label_retries": setup.labels.retries,
        **setup.method.circumstances,
    }
    if setup.labels.executor is not None:
        settings["executor"] = executor_name(setup.labels.executor)
    return {
        "process": asdict(this_process()),
        "versions": versions(),
        "method": setup.method.name,
        "trainer": choice.trainer.name,
        "criteria": None if choice.spec is None else choice.spec.convergence,
        "parent": parent_name(setup.labels.parent),
        "settings": settings,
    }


def note_interruption(store: RunStore, name: str) -> None:
    """Write a note on a signal into the journal of a run that has begun.

    Parameters
    ----------
    store : RunStore
    name : str
        Of the signal.
    """
    if store.events:
        with contextlib.suppress(RunStoreError):  # the stop continues without a note
            store.append("interrupted", signal=name)


def changed_versions(before: Sequence[Start], now: Mapping[str, str]) -> str:
    """Return a message on packages whose versions differ from those of the last start.

    Parameters
    ----------
    before : sequence of Start
    now : dict of str to str
        Versions by package.

    Returns
    -------
    str
        Empty if none differs.
    """
    last = before[-1].event.get("versions", {}) if before else {}
    changed = [f"{name} {last[name]} is now {now[name]}" for name in now if last.get(name, now[name]) != now[name]]
    return (
        f"Versions changed since the last start: {', '.join(changed)}. Finished work is kept; new numbers may differ in their last digits "
        "from those of an unchanged installation, and later choices of atoms with them."
        if changed
        else ""
    )


def identity(setup: Setup, calc_text: str, train_line: str) -> dict[str, Any]:
    """Return the settings that must not change when a run resumes.

    Parameters
    ----------
    setup : Setup
    calc_text, train_line : str
        Arguments of `NFT`.

    Returns
    -------
    dict
    """
    correction = {} if setup.correction is None else {"correction": identify(setup.correction)}
    return {
        **digests(setup.images, setup.targets),
        "target_atoms": [len(target) for target in setup.targets],
        "n_images": len(setup.images),
        "n": setup.n,
        "cutoff": setup.carving.cutoff,
        "seed": setup.seed,
        "calc_text": calc_text,
        "train_line": train_line,
        "init_nft_ids": [[i, *row.atoms] for i, row in enumerate(setup.rows) if row is not None],
        "load": setup.start is not None,
        **setup.method.identity,
        **correction,
        **setup.baseline.settings,
        **({} if setup.inherit is None else {"begins_with": list(setup.inherit.atoms)}),
    }
