"""Labelling: two worker processes against one, and what it costs to make a label safe: ``python benchmarks/labels.py``."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from data import pt260

from amp.nft.chunks import carve_chunks
from amp.nft.labels.pool import LabelPool
from amp.nft.labels.single_point import Label, labelled
from amp.nft.records import LabelOptions
from amp.nft.run.store import FORMAT, RunStore

RESULTS = Path(__file__).with_name("results") / "labels.json"


class Slow(EMT):
    """EMT that takes as long as asked."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def calculate(self, *args, **kwargs) -> None:
        """Sleep, then do as EMT does."""
        time.sleep(self.seconds)
        super().calculate(*args, **kwargs)


def build(directory: str, seconds: float) -> Slow:
    """Return a fresh parent."""
    return Slow(seconds)


def seconds_for(chunks: list[Atoms], seconds: float, workers: int) -> float:
    """Time from the first request to the last label safe in a store; the workers are there already."""
    with tempfile.TemporaryDirectory() as scratch, ProcessPoolExecutor(workers) as executor:
        list(executor.map(time.sleep, [0.2] * workers))
        with RunStore(scratch) as store, LabelPool(LabelOptions(partial(build, seconds=seconds), executor), Path(scratch)) as pool:
            begin_labelling(store, len(chunks))
            begin = time.perf_counter()
            for atom, chunk in enumerate(chunks):
                pool.request(atom, chunk)
            for atom, outcome in pool.done():
                assert isinstance(outcome, Label), outcome
                keep(store, atom, chunks[atom], outcome)
                pool.tidy(atom)
            return time.perf_counter() - begin


def begin_labelling(store: RunStore, atoms: int) -> None:
    """Return the events before the first label."""
    name = store.keep_array(np.ones(atoms))
    store.append("run", format=FORMAT, settings={})
    store.append("start", trainer="batched", parent="EMT", settings={})
    store.append("trained", iteration=0, file=name, chunks=0, trainer="batched", seconds=0.0, reports=[])
    store.append("evaluated", iteration=0, file=name, delta_max=1.0, delta_mean=1.0)
    store.append("chosen", iteration=0, atoms=list(range(atoms)))


def keep(store: RunStore, atom: int, chunk: Atoms, label: Label) -> None:
    """Make a label safe, as the loop does."""
    image = labelled(chunk, label)
    store.append("label", atom=atom, file=store.keep_image(image), seconds=label.seconds)


def journal_overhead(chunks: list[Atoms], directory: str) -> list[float]:
    """Seconds that each of these labels takes to be safe on the disk."""
    times = []
    with tempfile.TemporaryDirectory(dir=directory) as scratch, RunStore(scratch) as store:
        begin_labelling(store, len(chunks))
        for atom, chunk in enumerate(chunks):
            atoms = chunk.copy()
            atoms.calc = EMT()
            label = Label(atoms.get_potential_energy(), atoms.get_forces(), 0.0)
            begin = time.perf_counter()
            keep(store, atom, chunk, label)
            times.append(time.perf_counter() - begin)
    return times


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.1, help="that the parent takes for a label")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="where the journal is written")
    options = parser.parse_args()
    chunks = carve_chunks(pt260(), range(options.labels), 5.0)
    ratios, rates = [], []
    for _ in range(options.repeats):
        one, two = (seconds_for(chunks, options.seconds, workers) for workers in (1, 2))
        ratios.append(one / two)
        rates.append(options.labels / two)
    overhead = 1e3 * statistics.median(journal_overhead(chunks, options.directory))
    result = {
        "labels": options.labels, "seconds_per_label": options.seconds, "speedup_2_processes": statistics.median(ratios),
        "labels_per_second_2_processes": statistics.median(rates), "journal_ms_per_label": overhead,
    }  # fmt: skip
    print(f"{options.labels} labels of {options.seconds} s, chunks of about {len(chunks[-1])} atoms")
    print(f"two worker processes against one: {result['speedup_2_processes']:.2f} times as fast")
    print(f"a label in the journal: {overhead:.2f} ms ({options.directory})")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
