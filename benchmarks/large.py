"""Times of the parts of a run besides training and evaluation, as targets and training sets grow. One command:

    python benchmarks/large.py [--against WORKTREE]

Time and memory of carving 100 chunks; time of leaving Amp's training directory (ten members), of saving the chunks of each of ten
iterations, of choosing a batch and of the report on a run of two iterations. Every part runs in a process of its own; with
``--against`` it runs in turn with the code of another worktree that has its own environment. Chunks are labelled by EMT.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

RESULTS = Path(__file__).parent / "results" / "large.json"
SIZES = {"carve": (1372, 13500, 108000), "leave": (200, 600, 1738), "save": (200, 600, 1738), "report": (1372, 13500, 108000)}
UNITS = {"carve": "atoms", "leave": "chunks", "save": "chunks", "report": "atoms"}
CALC_TEXT = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x

calc = Amp(descriptor=Gaussian(cutoff=6.0, Gs=g2x(['Pt'])), model=NeuralNetwork(hiddenlayers=(5,)), dblabel='../amp-db')
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, maxiter=30, convergence={'energy_rmse': 0.005, 'force_rmse': 0.02, 'force_maxresid': 0.2})
"""


def crystal(n_atoms: int) -> Atoms:
    """Rattled platinum."""
    times = round((n_atoms / 4) ** (1 / 3))
    atoms = bulk("Pt", cubic=True) * (times, times, times)
    atoms.rattle(0.05, seed=1)
    return atoms


def labelled_chunks(count: int) -> list[Atoms]:
    """Chunks of a crystal with their labels."""
    from amp.nft.chunks import carve_chunks

    chunks = carve_chunks(crystal(13500), range(count), 6.5)
    return [labelled(chunk) for chunk in chunks]


def labelled(atoms: Atoms) -> Atoms:
    """Label by EMT."""
    atoms.calc = EMT()
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return atoms


def cells() -> list[Atoms]:
    """Cells of platinum, stretched and rattled."""
    found = [bulk("Pt", a=a, cubic=True) for a in (3.8, 3.9, 4.0, 4.1)]
    for k, cell in enumerate(found):
        cell.rattle(0.1, seed=k)
    return [labelled(cell) for cell in found]


class Peak:
    """Largest resident size of this process in a block, beyond that at its beginning, MB."""

    def __enter__(self) -> Peak:
        self.process, self.more, self.done = psutil.Process(), 0.0, threading.Event()
        self.before = self.process.memory_info().rss
        self.watcher = threading.Thread(target=self._watch)
        self.watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.watcher.join()

    def _watch(self) -> None:
        while not self.done.wait(0.005):
            self.more = max(self.more, (self.process.memory_info().rss - self.before) / 1e6)


def seconds(function: Callable[[], object]) -> float:
    """Time of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def carve(n_atoms: int) -> dict[str, float]:
    """Carve 100 chunks."""
    from amp.nft.chunks import carve_chunks

    target = crystal(n_atoms)
    carve_chunks(crystal(500), range(2), 8.0)
    centres = np.random.default_rng(0).choice(len(target), 100, replace=False)
    with Peak() as peak:
        spent = seconds(lambda: carve_chunks(target, centres, 8.0))
    return {"s": spent, "MB": peak.more}


def leave(n_chunks: int) -> dict[str, float]:
    """Leave Amp's training directory."""
    images = labelled_chunks(n_chunks)
    rng = np.random.default_rng(0)
    weights = np.array([np.bincount(rng.integers(n_chunks, size=n_chunks), minlength=n_chunks) for _ in range(10)])
    try:
        from amp.nft.records import ForceRows, TrainingTask
        from amp.nft.training.amp_jobs.directory import TrainingDirectory

        task = TrainingTask(images, [ForceRows.central(0)] * n_chunks, weights, start=None, seed=0, iteration=1)
    except ImportError:
        from amp.nft.amp_jobs.directory import TrainingDirectory
        from amp.nft.reports import TrainingTask

        task = TrainingTask(images, [0] * n_chunks, weights, start=None, seed=0, iteration=1)
    directory = TrainingDirectory(Path("al-training"))
    return {"s": seconds(lambda: directory.lay_out(task, CALC_TEXT))}


def save(n_chunks: int) -> dict[str, float]:
    """Save the chunks of ten iterations."""
    try:
        from amp.nft.activelearner.output_files import RunFiles
    except ImportError:
        from amp.nft.activelearner.files import RunFiles
    chunks = labelled_chunks(n_chunks)
    files = RunFiles("al", Path("al-training", "saved-info"))
    ends = np.linspace(n_chunks / 10, n_chunks, 10).astype(int)
    return {"s": seconds(lambda: [files.save_chunks(k, [0], chunks[:end]) for k, end in enumerate(ends)])}


def report(n_atoms: int) -> dict[str, float]:
    """Report on a run of two iterations."""
    from amp.nft.activelearner import NFT
    from amp.nft.report import report as write_report

    learner = NFT(threshold=-(1.0 - 20 / n_atoms), stop_delta=1e-9, max_iterations=1, steps_not_improved=9, log=os.devnull)
    learner.run(cells(), crystal(n_atoms), n=3, calc_text=CALC_TEXT, start_command="python run.py", parent_calc=EMT(), cutoff=6.5)
    return {"s": seconds(lambda: write_report("al-training"))}


PARTS = {part.__name__: part for part in (carve, leave, save, report)}


def run(part: str, size: int, tree: Path) -> dict[str, float]:
    """Measure a part in a process of its own, with the code and environment of a worktree."""
    python = tree / ".venv" / "bin" / "python"
    command = [str(python if python.exists() else sys.executable), __file__, "--part", part, "--size", str(size)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tree, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def exponent(sizes: tuple[int, ...], values: list[float]) -> float:
    """Slope of the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def main() -> None:
    """Print a table and write it down."""
    parser = argparse.ArgumentParser(description="what a run does besides training")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--size", type=int)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    if options.part:
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
            os.chdir(scratch)
            found = PARTS[options.part](options.size)
        print(json.dumps(found))
        return
    results: dict[str, dict] = {}
    for part in options.only:
        rows = results[part] = {}
        for size in SIZES[part]:
            rows[size] = {"here": run(part, size, Path(__file__).parents[1])}
            if options.against:
                rows[size]["there"] = run(part, size, options.against.resolve())
            told = "; ".join(f"{where}: " + ", ".join(f"{v:.2f} {k}" for k, v in row.items()) for where, row in rows[size].items())
            print(f"{PARTS[part].__doc__} {size} {UNITS[part]}. {told}", flush=True)
        for where in rows[SIZES[part][0]]:
            growth = exponent(SIZES[part], [row[where]["s"] for row in rows.values()])
            print(f"    {where}: time grows with the power {growth:.2f}", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
