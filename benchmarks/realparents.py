"""Both methods on targets whose true forces are known, with parents whose chunks are not exact. One command for each row:

    python benchmarks/realparents.py mg147 [--method robust paper] [--seeds 3] [--iterations 2] [--members 10]

Printed for each run, and as medians: labels of the training and of the test, the parent's time, the true error of the mean force over
all atoms of the target (mean and largest, eV/Å), the fraction of atoms whose error delta and the 95 % band cover, the bounds from the
test labels, and the verdict. The mean width of the band is in units of the mean error. Results are kept in
benchmarks/results/realparents.jsonl.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import fcc111, fcc211
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from ase.io import read

from amp.nft.activelearner import NFT
from amp.nft.calculator import EnsembleCalculator
from amp.nft.uncertainty import error95

HERE = Path(__file__).parent
DATA = HERE / "data" / "realparents"
RESULTS = HERE / "results" / "realparents.jsonl"
MEMBERS = 10
NOISE = 0.074  # eV/Å per component, about the label error of Mg chunks of 6.5 Å

CALC_TEXT = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x

calc = Amp(descriptor=Gaussian(cutoff={cutoff}, Gs=g2x({elements}, radial={radial})), model=NeuralNetwork(hiddenlayers={layers}),
           dblabel='../amp-db', cores=1)
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, maxiter=3000,
    convergence={{'energy_rmse': 0.001, 'force_rmse': 0.005, 'force_maxresid': 0.02}})
"""


def xtb(directory: str, method: str = "GFN1-xTB") -> Any:
    """Return an xTB parent at an electronic temperature of 300 K."""
    from tblite.ase import TBLite

    return TBLite(method=method, electronic_temperature=300.0, verbosity=0)


def gpaw(directory: str) -> Any:
    """Return GPAW with orbitals on atoms; PBE. On another place in the grid its forces on water differ by 0.06 eV/Å (4.4 with h=0.28)."""
    from gpaw import GPAW

    return GPAW(mode="lcao", basis="dzp", h=0.2, xc="PBE", occupations={"name": "fermi-dirac", "width": 0.1}, symmetry="off",
                convergence={"density": 1e-4}, txt=f"{directory}/gpaw.txt")  # fmt: skip


def around_anions(atoms: Atoms, centre: int, radius: float) -> Atoms:
    """Return the sphere around an oxygen atom, for another atom that around the nearest oxygen: a termination."""
    distances = atoms.get_all_distances()
    oxygens = np.flatnonzero(atoms.symbols == "O")
    middle = centre if centre in oxygens else oxygens[distances[centre, oxygens].argmin()]
    kept = np.flatnonzero(distances[middle] < radius)
    chunk = Atoms(atoms.symbols[kept], atoms.positions[kept])
    chunk.set_array("target_index", kept)
    return chunk


class NoisyEMT(EMT):
    """EMT with noise on each force, the same each time for the same structure."""

    def calculate(self, atoms: Atoms, *args: Any, **kwargs: Any) -> None:
        """Add the noise to EMT's forces."""
        super().calculate(atoms, *args, **kwargs)
        seed = int(hashlib.sha256(np.round(atoms.positions - atoms.positions[0], 6).tobytes()).hexdigest()[:8], 16)
        self.results["forces"] = self.results["forces"] + np.random.default_rng(seed).normal(0.0, NOISE, atoms.positions.shape)


def target(name: str, forces: str = "forces") -> tuple[Atoms, np.ndarray]:
    """Return a target of the data, and its true forces."""
    atoms = read(DATA / f"{name}.extxyz")
    true = atoms.arrays[forces].copy() if forces in atoms.arrays else atoms.get_forces()
    return Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc), true


def water_by_gpaw() -> tuple[Atoms, np.ndarray]:
    """Return the 20 inner molecules of (H2O)60, and GPAW's forces."""
    atoms, _ = target("H2O60")
    distances = np.linalg.norm(atoms.positions - atoms.positions.mean(0), axis=1)
    oxygens = sorted(np.flatnonzero(atoms.symbols == "O"), key=lambda place: distances[place])[:20]
    atoms = atoms[[place + number for place in oxygens for number in range(3)]]
    true = atoms.copy()
    true.center(vacuum=5.0)
    true.calc = gpaw(".")
    return atoms, true.get_forces()


def emt_target(atoms: Atoms, rattle: float = 0.1, seed: int = 42) -> tuple[Atoms, np.ndarray]:
    """Return a rattled copy of atoms, and EMT's forces."""
    plain = Atoms(atoms.symbols, np.array(atoms.positions), cell=atoms.cell, pbc=atoms.pbc)
    plain.rattle(rattle, seed=seed)
    true = plain.copy()
    true.calc = EMT()
    return plain, true.get_forces()


def pt(length: int, cut: int) -> tuple[Atoms, np.ndarray]:
    """Return a rattled octahedron of platinum."""
    return emt_target(Octahedron("Pt", length, cutoff=cut, latticeconstant=3.99))


def slab(symbol: str) -> tuple[Atoms, np.ndarray]:
    """Return a rattled stepped surface of copper, or a flat one of nickel with a vacancy."""
    if symbol == "Cu":
        return emt_target(fcc211("Cu", (6, 6, 4), vacuum=8.0))
    atoms = fcc111("Ni", (6, 6, 4), vacuum=8.0)
    del atoms[100]
    return emt_target(atoms)


@dataclass(frozen=True)
class Row:
    """One line of the table: a target, its parent and how it is learned."""

    target: Callable[[], tuple[Atoms, np.ndarray]]
    parent: Any
    images: str | None = None
    cutoff: float = 6.5
    layers: tuple[int, ...] = (5, 5)
    radial: int = 8
    fingerprint_cutoff: float = 5.5
    iterations: int = 2
    correction: Any = None
    check_parent: str | bool | None = None  # the method's default
    termination: Any = None  # likewise


ROWS = {
    "pt260": Row(partial(pt, 8, 3), EMT(), "Pt_cells", iterations=1),
    "pt147-noise": Row(partial(pt, 7, 3), NoisyEMT(), "Pt_cells", iterations=3, check_parent=False),
    "pt147": Row(partial(pt, 7, 3), EMT(), "Pt_cells", iterations=2),
    "cu211": Row(partial(slab, "Cu"), EMT(), iterations=1),
    "ni111": Row(partial(slab, "Ni"), EMT(), iterations=1),
    "mg147": Row(partial(target, "Mg147"), xtb, "Mg_clusters", iterations=3),
    "mg147-alone": Row(partial(target, "Mg147"), xtb, iterations=2),
    "mg50o50-clusters": Row(partial(target, "Mg50O50"), xtb, "MgO_clusters", iterations=3),
    "mg50o50": Row(partial(target, "Mg50O50"), xtb, iterations=1),
    "mg50o50-anions": Row(partial(target, "Mg50O50"), xtb, iterations=1, termination=around_anions),
    "h2o60": Row(partial(target, "H2O60"), xtb, cutoff=5.0, layers=(8, 8), radial=6, fingerprint_cutoff=5.0, iterations=1),
    "h2o60-gfn2": Row(
        partial(target, "H2O60", "forces_gfn2"), partial(xtb, method="GFN2-xTB"), cutoff=5.0, layers=(8, 8), radial=6,
        fingerprint_cutoff=5.0, iterations=1, correction=xtb,
    ),
    "h2o60-gfn2-plain": Row(
        partial(target, "H2O60", "forces_gfn2"), partial(xtb, method="GFN2-xTB"), cutoff=5.0, layers=(8, 8), radial=6,
        fingerprint_cutoff=5.0, iterations=1,
    ),
    "ala12-gfn2": Row(
        partial(target, "Ala12", "forces_gfn2"), partial(xtb, method="GFN2-xTB"), cutoff=5.0, layers=(8, 8), radial=6,
        fingerprint_cutoff=5.0, iterations=1, correction=xtb,
    ),
    "ala12": Row(partial(target, "Ala12"), xtb, cutoff=5.0, layers=(8, 8), radial=6, fingerprint_cutoff=5.0, iterations=2),
    "c123h100": Row(partial(target, "C123H100"), xtb, cutoff=5.0, layers=(8, 8), radial=10, fingerprint_cutoff=4.0, iterations=2),
    "si35h36": Row(partial(target, "Si35H36"), xtb, cutoff=5.0, layers=(8, 8), radial=6, fingerprint_cutoff=5.0, iterations=1),
    "h2o20-gpaw": Row(water_by_gpaw, gpaw, cutoff=4.0, layers=(8, 8), radial=10, fingerprint_cutoff=4.0, iterations=0),
    "mgo-co-h2o": Row(partial(target, "MgO108_CO_H2O"), xtb, layers=(8, 8), radial=10, fingerprint_cutoff=4.0, iterations=2),
}  # fmt: skip


def run(
    row: Row, method: str, seed: int, iterations: int, test_labels: int, aim: float, batch: str = "top", members: int = MEMBERS
) -> dict[str, Any]:
    """Learn the target once; the errors of the last ensemble, which has all labels, against the true forces."""
    atoms, true = row.target()
    elements = sorted(set(atoms.symbols))
    text = CALC_TEXT.format(cutoff=row.fingerprint_cutoff, elements=elements, radial=row.radial, layers=row.layers)
    images = None if row.images is None else read(DATA / f"{row.images}.extxyz", ":")
    robust: dict[str, Any] = {"aim": aim}
    if method == "robust":
        robust |= {"test_labels": test_labels, "larger_labels": test_labels // 2}
    if row.check_parent is not None:
        robust["check_parent"] = row.check_parent
    if row.termination is not None:
        robust["termination"] = row.termination
    if row.correction is not None and method == "robust":
        robust["correction"] = row.correction
    al = NFT(
        method=method, stop_delta=1e-6, max_iterations=iterations, steps_not_improved=99, seed=seed, log=os.devnull,
        threshold=-0.9 if method == "paper" else None,
    )  # fmt: skip
    begin = time.process_time()
    al.run(images, atoms, n=members, calc_text=text, start_command="python run.py", parent_calc=row.parent, cutoff=row.cutoff,
           batch=batch, **robust)  # fmt: skip
    found = atoms.copy()
    found.calc = EnsembleCalculator(f"al.{al.history[-1].iteration}.ensemble")
    error = np.linalg.norm(found.get_forces() - true, axis=1)
    delta = found.calc.results["forces_uncertainty"]
    verdict = getattr(al, "verdict", None)
    factor = found.calc.error95_factor
    band = None if factor is None else error95(delta, factor, np.nan_to_num(getattr(verdict, "error95_floor", 0.0)))
    return {
        "labels": al.history[-1].n_chunks, "force": np.linalg.norm(true, axis=1).mean(), "mean": error.mean(), "max": error.max(),
        "delta_max": delta.max(), "covered": (error <= delta).mean(), "covered95": np.nan if band is None else (error <= band).mean(),
        "width": np.nan if band is None else band.mean() / error.mean(),
        "seconds": time.process_time() - begin, "verdict": getattr(verdict, "state", ""),
        "mean_bound": getattr(verdict, "mean_bound", None), "max_bound": getattr(verdict, "max_bound", None),
        "label_error": getattr(verdict, "label_error", None), "test_labels": getattr(verdict, "n_test", 0),
    }  # fmt: skip


def main() -> None:
    """Run one row of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", choices=ROWS)
    parser.add_argument("--method", nargs="+", default=["robust"], choices=["robust", "paper"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int)
    parser.add_argument("--test-labels", type=int, default=10)
    parser.add_argument("--aim", type=float, default=0.05, help="mean force error that the verdict judges by, eV/Å")
    parser.add_argument("--fingerprint-cutoff", type=float, help="radius of the fingerprints, Å, in place of the row's")
    parser.add_argument("--radial", type=int, help="number of radial fingerprints for each pair of elements")
    parser.add_argument("--cutoff", type=float, help="radius of the chunks, Å")
    parser.add_argument("--members", type=int, default=MEMBERS)
    parser.add_argument("--batch", choices=["top", "spread"], default="top")
    options = parser.parse_args()
    changes = {key: value for key in ("fingerprint_cutoff", "radial", "cutoff") if (value := getattr(options, key)) is not None}
    row = replace(ROWS[options.row], **changes)
    RESULTS.parent.mkdir(exist_ok=True)
    for method in options.method:
        results = []
        for seed in range(options.seeds):
            here = Path.cwd()
            with tempfile.TemporaryDirectory() as scratch:
                os.chdir(scratch)
                try:
                    iterations = row.iterations if options.iterations is None else options.iterations
                    found = run(row, method, seed, iterations, options.test_labels, options.aim, options.batch, options.members)
                finally:
                    os.chdir(here)
            results.append(found)
            with open(RESULTS, "a") as file:
                kept = {"row": options.row, **changes, "method": method, "members": options.members, "batch": options.batch, "seed": seed}
                file.write(json.dumps(kept | found, default=float) + "\n")
            print(f"{options.row} {method} seed {seed}: {line(found)}", flush=True)
        median = {
            key: np.median([r[key] for r in results])
            for key in ("labels", "force", "mean", "max", "delta_max", "covered", "covered95", "width")
        }
        print(f"{options.row} {method} median of {len(results)}: {line(median)}", flush=True)


def line(found: dict[str, Any]) -> str:
    """Return one result in words."""
    text = (
        f"{found['labels']:.0f} labels, mean force {found['force']:.3f}, error {found['mean']:.4f} / {found['max']:.3f} eV/Å, "
        f"delta {found['delta_max']:.3f}, covered {found['covered']:.2f}, by the 95 % band {found['covered95']:.2f}, "
        f"{found['width']:.1f} mean errors wide"
    )
    if found.get("mean_bound") is not None:
        text += f"; bounds {found['mean_bound']:.4f} / {found['max_bound']:.3f}, {found['verdict']}"
    return text + (f", {found['seconds']:.0f} s of processor time" if "seconds" in found else "")


if __name__ == "__main__":
    main()
