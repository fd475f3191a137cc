"""Effect of a round of refinement on a relaxation of Pt55, for some bands. One command:

    python benchmarks/refinement.py [--seeds 3] [--rounds 2]

Five members of (5, 5) neurons on the twelve g2x fingerprints (Rc 5 Å) learn the rattled icosahedron with two retrainings of six
chunks (6.5 Å); then each round adds ten chunks of a relaxation and as many retrainings. Beside it, as many chunks of the target
itself: three retrainings more for each round. The metric is EMT's largest force at the ensemble's minimum.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.optimize import BFGS
from data import bulk_images
from loop import CALC_TEXT

from amp.nft.activelearner import NFT
from amp.nft.calculator import EnsembleCalculator
from amp.nft.refinement import Relaxation, refine

RESULTS = Path(__file__).parent / "results" / "refinement.json"
BANDS = ((1.0, 1.5), (1.0, 4.0))


def pt55() -> Atoms:
    """Return an icosahedron, rattled."""
    cluster = Icosahedron("Pt", 3, latticeconstant=3.99)
    atoms = Atoms(cluster.symbols, np.array(cluster.positions))
    atoms.rattle(0.1, seed=42)
    return atoms


def true_fmax(ensemble: Path) -> float:
    """EMT's largest force at the ensemble's minimum, eV/Å."""
    atoms = pt55()
    atoms.calc = EnsembleCalculator(ensemble)
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    atoms.calc = EMT()
    return float(np.linalg.norm(atoms.get_forces(), axis=1).max())


def run(seed: int, band: tuple[float, float], rounds: int) -> list[dict]:
    """Chunks and largest true force after each round."""
    al = NFT(threshold=-0.9, stop_delta=0.02, max_iterations=2, seed=seed, log=os.devnull)
    text = CALC_TEXT.format(set="g2x(['Pt'])", layers=(5, 5)).replace("cutoff=6.5", "cutoff=5.0")
    found = refine(al, bulk_images(20), pt55(), rounds=rounds, k=10, band=band, explore=Relaxation(0.02), n=5, calc_text=text,
                   start_command="python run.py", parent_calc=EMT(), cutoff=6.5)  # fmt: skip
    return [{"exploration": one.exploration, "chunks": one.chunks, "delta": one.delta, "fmax": true_fmax(one.ensemble)} for one in found]


def run_on(seed: int, rounds: int) -> list[dict]:
    """Return the same of the target's chunks alone, three retrainings more for each round."""
    text = CALC_TEXT.format(set="g2x(['Pt'])", layers=(5, 5)).replace("cutoff=6.5", "cutoff=5.0")
    found, before = [], 0
    for number in range(rounds + 1):
        al = NFT(threshold=-0.9, stop_delta=1e-9, max_iterations=2 + 3 * number, steps_not_improved=99, seed=seed, log=os.devnull)
        al.run(bulk_images(20), pt55(), n=5, calc_text=text, start_command="python run.py", parent_calc=EMT(), cutoff=6.5)
        total = al.history[-1].n_chunks
        found.append({"chunks": total - before, "delta": al.history[-1].delta_max, "fmax": true_fmax(Path("best.al.ensemble"))})
        before = total
    return found


def main() -> None:
    """Run all, print a table, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    wanted = parser.parse_args()
    results = []
    print("EMT's largest force at the ensemble's minimum, eV/Å, before and after each round")
    for band in (None, *BANDS):
        for seed in range(wanted.seeds):
            before = os.getcwd()
            with tempfile.TemporaryDirectory() as scratch:
                os.chdir(scratch)
                try:
                    rounds = run_on(seed, wanted.rounds) if band is None else run(seed, band, wanted.rounds)
                finally:
                    os.chdir(before)
            name = "target alone" if band is None else f"band {band}"
            table = "  ".join(f"{one['fmax']:.4f} (+{one['chunks']})" for one in rounds)
            print(f"{name}, seed {seed}: {table}", flush=True)
            results.append({"band": band, "seed": seed, "rounds": rounds})
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
