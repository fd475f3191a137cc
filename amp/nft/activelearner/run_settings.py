"""Settings of a run as its journal keeps them: those that stay the same while it lasts, and those that may change."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
from ase import Atoms

from amp.nft.activelearner.loop import Setup
from amp.nft.inputs import structures
from amp.nft.labels.executors import executor_name
from amp.nft.labels.single_point import parent_name
from amp.nft.system.processes import this_process
from amp.nft.training import Choice

PACKAGES = ("amp-nft", "amp-atomistics", "numpy", "ase", "numba")  # whose versions the journal names


def circumstances(rules: Mapping[str, Any], setup: Setup, choice: Choice) -> dict[str, Any]:
    """Return the settings that may change when a run resumes."""
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
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "method": setup.method.name,
        "trainer": choice.trainer.name,
        "criteria": None if choice.spec is None else choice.spec.convergence,
        "parent": parent_name(setup.labels.parent),
        "settings": settings,
    }


def identity(setup: Setup, calc_text: str, train_line: str, init_nft_ids: Any) -> dict[str, Any]:
    """Return the settings that must not change when a run resumes."""
    return {
        "target": _short_hash(setup.targets),
        "target_atoms": [len(target) for target in setup.targets],
        "images": _short_hash(setup.images),
        "n_images": len(setup.images),
        "image_labels": _label_sums(setup.images),
        "n": setup.n,
        "cutoff": setup.carving.cutoff,
        "seed": setup.seed,
        "calc_text": calc_text,
        "train_line": train_line,
        "init_nft_ids": [list(pair) for pair in init_nft_ids or []],
        "load": setup.start is not None,
        **setup.method.identity,
    }


def _label_sums(images: list[Atoms]) -> str:
    """Return sums of energies and force norms, rounded to be insensitive to numerical noise."""
    energy = sum(image.get_potential_energy() for image in images)
    force = sum(np.linalg.norm(image.get_forces(apply_constraint=False), axis=1).sum() for image in images)
    return f"energies add up to {energy:.3f} eV, lengths of forces to {force:.2f} eV/Å"


def _short_hash(images: list[Atoms]) -> str:
    return hashlib.sha256("".join(structures.get_hash(image) for image in images).encode()).hexdigest()[:16]
