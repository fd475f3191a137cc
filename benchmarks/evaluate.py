"""Energies, forces and uncertainties of ten members in one pass. One command:

    python benchmarks/evaluate.py [--largest 1000000] [--skip-amp]

Three tables: Pt1415 on one thread and on all; Pt260 against Amp's BootStrap of the same ten members (Fortran modules, cores 1);
time per atom and peak memory of rattled fcc platinum from a thousand atoms to a million, each size in a process of its own.
Members have random weights and Amp's eight default fingerprints: what is in the weights does not matter for the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import numpy as np
from amp.descriptor.gaussian import make_default_symmetry_functions
from ase import Atoms
from ase.build import bulk
from data import pt260, pt1415

from amp.nft.amp_io import AmpModel, write_ensemble
from amp.nft.amp_io.model import write_amp
from amp.nft.kernels.fingerprints.gaussian import Fingerprints
from amp.nft.kernels.prediction.evaluate import Evaluator
from amp.nft.kernels.threads import available_cpus

RESULTS = Path(__file__).parent / "results" / "evaluate.json"
MEMBERS, HIDDEN = 10, (5, 5)
CUTOFF = {"name": "Cosine", "kwargs": {"Rc": 6.5}}
SIZES = (864, 10976, 108000, 1000188)


def ensemble(target: Atoms) -> list[AmpModel]:
    """Members with random weights, ranged over the fingerprints of the target."""
    gs = {"Pt": make_default_symmetry_functions(["Pt"])["Pt"]}
    x = Fingerprints(gs, CUTOFF).rows(target).x
    rng, sizes = np.random.default_rng(0), [x.shape[1], *HIDDEN, 1]
    ranges = np.array([x.min(axis=0), x.max(axis=0)]).T
    return [
        AmpModel(
            gs=gs, cutoff=CUTOFF, hiddenlayers={"Pt": HIDDEN}, activation="tanh",
            weights={"Pt": [rng.uniform(-1, 1, (a + 1, b)) for a, b in itertools.pairwise(sizes)]},
            scalings={"Pt": (0.0, 1.0)}, fprange={"Pt": ranges},
        ) for _ in range(MEMBERS)
    ]  # fmt: skip


def evaluate(evaluator: Evaluator, atoms: Atoms, threads: int | None):
    """One evaluation as the calculator asks for it."""
    return evaluator.evaluate(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc, threads=threads)


def alternate(functions: list[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Wall times of several functions, called in turn, so that a busy moment meets all of them; the first of many is left out."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats):
        for function, seconds in zip(functions, times, strict=True):
            begin = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - begin)
    return [seconds[1:] or seconds for seconds in times]


def processor_time(function: Callable[[], object], repeats: int) -> float:
    """Least processor time of a call, all threads together: what a busy machine changes least."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return min(times)


def threads_table(models: list[AmpModel]) -> dict:
    """Pt1415 on one thread and on all."""
    evaluator, target, cpus = Evaluator(models), pt1415(), available_cpus()
    one, several = alternate([lambda: evaluate(evaluator, target, 1), lambda: evaluate(evaluator, target, cpus)], 40)
    scale = 1e6 / len(target)
    found = {"one_us": statistics.median(one) * scale, "one_best_us": min(one) * scale, "threads": cpus,
             "several_us": statistics.median(several) * scale, "several_best_us": min(several) * scale,
             "one_processor_us": processor_time(lambda: evaluate(evaluator, target, 1), 40) * scale,
             "several_processor_us": processor_time(lambda: evaluate(evaluator, target, cpus), 40) * scale,
             "speedup": statistics.median(a / b for a, b in zip(one, several, strict=True))}  # fmt: skip
    print(f"Pt1415, {MEMBERS} members, µs per atom, median (best): one thread {found['one_us']:.1f} ({found['one_best_us']:.1f}), "
          f"{cpus} threads {found['several_us']:.1f} ({found['several_best_us']:.1f}), speed-up {found['speedup']:.2f}; "
          f"processor time {found['one_processor_us']:.1f} and {found['several_processor_us']:.1f}")  # fmt: skip
    return found


def amp_table(models: list[AmpModel]) -> dict:
    """Pt260 against Amp's own ensemble: one member and two are measured, the others counted as the second."""
    from amp.stats.bootstrap import BootStrap
    from amp.utilities import Logger

    target, evaluator = pt260(), Evaluator(models)
    ours = statistics.median(alternate([lambda: evaluate(evaluator, target, None)], 40)[0])
    found = {}
    with tempfile.TemporaryDirectory() as directory, chdir(directory):
        write_ensemble("two.ensemble", [write_amp(model) for model in models[:2]])
        amp = BootStrap(load="two.ensemble", log=Logger(None))
        begin = time.perf_counter()
        first = amp.ensemble[0].get_forces(target.copy())
        middle = time.perf_counter()
        amp.ensemble[1].get_forces(target.copy())
        end = time.perf_counter()
    forces = Evaluator(models[:1]).evaluate(target.positions, target.numbers, target.cell.array, target.pbc).forces
    found["amp_first_s"], found["amp_next_s"] = middle - begin, end - middle
    found["amp_s"] = found["amp_first_s"] + (MEMBERS - 1) * found["amp_next_s"]
    found |= {"ours_s": ours, "ratio": found["amp_s"] / ours, "difference": float(abs(forces - first).max())}
    print(f"Pt260, {MEMBERS} members: Amp {found['amp_s']:.1f} s (first member {found['amp_first_s']:.1f}, each other "
          f"{found['amp_next_s']:.1f}), ours {1e3 * ours:.2f} ms: {found['ratio']:.0f} times; "
          f"largest difference of a force {found['difference']:.1e} eV/Å")  # fmt: skip
    return found


def crystal(n_atoms: int) -> Atoms:
    """Rattled fcc platinum, a cube of so many atoms."""
    atoms = bulk("Pt", a=3.99, cubic=True) * (3 * [round((n_atoms / 4) ** (1 / 3))])
    atoms.positions += np.random.default_rng(0).normal(0.0, 0.1, atoms.positions.shape)
    return atoms


def one_size(n_atoms: int) -> None:
    """Print what one size needs, as JSON; run in a process of its own."""
    atoms = crystal(n_atoms)
    evaluator = Evaluator(ensemble(crystal(32)))
    small = crystal(864)
    for _ in range(3):
        evaluate(evaluator, small, None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: dict[str, float] = {"atoms": len(atoms)}
    repeats = max(1, 20000 // len(atoms))
    for name, threads in (("one_us", 1), ("several_us", None)):
        times = alternate([lambda threads=threads: evaluate(evaluator, atoms, threads)], repeats)[0]
        found[name] = 1e6 * statistics.median(times) / len(atoms)
    found["processor_us"] = 1e6 * processor_time(lambda: evaluate(evaluator, atoms, 1), repeats) / len(atoms)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    results = len(atoms) * 8 * (MEMBERS + 4)  # atomic energies, forces, uncertainties
    found["extra_MiB"] = (grown - results) / 2**20
    print(json.dumps(found))


def size_table(largest: int) -> list[dict]:
    """Time per atom and memory, by size."""
    print(
        f"\n{'atoms':>9}{'one thread, µs/atom':>22}{'all threads':>13}{'processor time':>16}{'memory beyond inputs and results, MiB':>40}"
    )
    rows = []
    for n_atoms in (n for n in SIZES if n <= 1.01 * largest):
        command = [sys.executable, __file__, "--one-size", str(n_atoms)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(row := json.loads(text))
        print(
            f"{row['atoms']:>9}{row['one_us']:>22.1f}{row['several_us']:>13.1f}{row['processor_us']:>16.1f}{row['extra_MiB']:>40.0f}",
            flush=True,
        )
    return rows


def main() -> None:
    """Print the tables and write them down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--largest", type=int, default=1000000, help="atoms of the largest crystal")
    parser.add_argument("--skip-amp", action="store_true")
    parser.add_argument("--one-size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_size:
        one_size(options.one_size)
        return
    models = ensemble(pt260())
    results: dict = {"threads": threads_table(models)}
    if not options.skip_amp:
        results["amp"] = amp_table(models)
    results["sizes"] = size_table(options.largest)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
