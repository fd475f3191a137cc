"""Journals written event by event, as a driver in this process would write them."""

import os

from amp.nft.run.store import FORMAT
from amp.nft.system.processes import machine

ENSEMBLE, ARRAY, IMAGE = ("0" * 32 + suffix for suffix in (".ensemble", ".npy", ".traj"))
SETTINGS = {"n": 2, "n_images": 4, "target_atoms": [50]}


def begin(store, **changes):
    """Return the first events of a run."""
    store.append("run", format=FORMAT, settings=SETTINGS)
    start(store, **changes)


def start(store, **changes):
    """Start a driver."""
    process = {"machine": machine(), "pid": os.getpid(), "start_time": 0.0} | changes
    store.append("start", process=process, trainer="batched", parent="EMT", settings={"stop_delta": 0.01, "max_iterations": 9})


def trained(store, iteration):
    store.append("trained", iteration=iteration, file=ENSEMBLE, reports=[], trainer="batched", chunks=0, seconds=1.0)


def evaluated(store, iteration, delta, **more):
    trained(store, iteration)
    store.append("evaluated", iteration=iteration, file=ARRAY, delta_max=delta, delta_mean=delta / 2, **more)


def chosen(store, iteration, atoms):
    """Begin labelling."""
    evaluated(store, iteration, 1.0)
    store.append("chosen", iteration=iteration, atoms=atoms)


def label(store, atom, file=IMAGE):
    store.append("label", atom=atom, file=file, seconds=0.1)
