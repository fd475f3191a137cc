"""Time of the first and of later runs: imports, compilation, Pt55 until stop_delta. One command:

    python benchmarks/start.py

Each run is a process of its own; the first one has an empty cache of kernels. Processor time includes that of the second process that
compiles kernels. Where PYTHONDONTWRITEBYTECODE is set and no compiled byte code is installed, each start compiles the sources
again, which takes some seconds: the benchmark removes that variable.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "start.json"
KERNEL = """
from ase.build import bulk
from amp.nft.activelearner import NFT
from amp.nft.features import g2x
from amp.nft.kernels.fingerprints.gaussian import Fingerprints

Fingerprints(g2x("Pt"), {"name": "Cosine", "kwargs": {"Rc": 6.5}}).rows(bulk("Pt"))
"""
RUN = """
import os
import sys

sys.path.insert(0, sys.argv[1])
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from data import bulk_images

from amp.nft.activelearner import NFT

CALC_TEXT = '''
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft import features

calc = Amp(descriptor=Gaussian(cutoff=6.5, Gs=features.g2x(['Pt'])), model=NeuralNetwork(hiddenlayers=(5, 5)), dblabel='../amp-db', cores=1)
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, maxiter=3000, convergence={'energy_rmse': 0.001, 'force_rmse': 0.005, 'force_maxresid': 0.02})
'''
atoms = Icosahedron("Pt", 3, latticeconstant=3.99)
atoms = Atoms(atoms.symbols, atoms.positions)
atoms.rattle(0.1, seed=1)
NFT(stop_delta=0.03, max_iterations=8, seed=0, log=os.devnull).run(
    bulk_images(20), atoms, n=10, calc_text=CALC_TEXT, start_command="python run.py", parent_calc=EMT()
)
"""


def measure(code: str, cache: str) -> dict[str, float]:
    """Return wall and processor time of a process and its children, s."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {"NUMBA_CACHE_DIR": cache}
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-c", code, str(Path(__file__).parent)]
        subprocess.run(command, check=True, env=environment, cwd=directory, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": time.perf_counter() - begin, "processor": processor}


def main() -> None:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory() as cache:
        results = {"first run": measure(RUN, cache)}
        for _ in range(2):  # the first of them may still write byte code
            results |= {"later run": measure(RUN, cache), "imports and a kernel": measure(KERNEL, cache)}
    for name, row in results.items():
        print(f"{name}: {row['wall']:.2f} s, {row['processor']:.2f} s of processor time")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
