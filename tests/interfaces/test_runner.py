"""Members as files of RuNNer and n2p2, read by an oracle that knows the formats alone."""

import itertools
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree
from lammps_cases import models

from amp.nft.calculator import EnsembleCalculator
from amp.nft.errors import InputError, UnsupportedModel
from amp.nft.interfaces import write_runner

AGREEMENT = 1e-10  # eV and eV/Å; the same terms in another order
CUTOFFS = {"1": lambda x: (np.cos(np.pi * x) + 1) / 2, "5": lambda x: (2 * x - 3) * x**2 + 1}
ACTIVATIONS = {"t": np.tanh, "s": lambda x: 1 / (1 + np.exp(-x)), "l": lambda x: x}


class Oracle:
    """A potential of RuNNer from its three kinds of files; forces by complex steps, exact to rounding."""

    def __init__(self, path):
        lines = [line.split() for line in (path / "input.nn").read_text().splitlines()]
        key = {words[0]: words[1:] for words in lines}
        self.elements, self.cutoff = key["elements"], CUTOFFS[key["cutoff_type"][0]]
        assert "scale_symmetry_functions" in key and len(self.elements) == int(key["number_of_elements"][0])
        self.letters, nodes = key["global_activation_short"], [int(n) for n in key["global_nodes_short"]]
        self.functions = {e: [w[2:] for w in lines if w[0] == "symfunction_short" and w[1] == e] for e in self.elements}
        scaling = np.loadtxt(path / "scaling.data")
        self.range, self.layers = {}, {}
        for kind, element in enumerate(self.elements, start=1):
            self.range[element] = scaling[scaling[:, 0] == kind][:, 2:4].T
            numbers = [line.split()[0] for line in (path / f"weights.{atomic_numbers[element]:03d}.data").read_text().splitlines()]
            values, self.layers[element] = np.array(numbers, dtype=float), []
            for a, b in itertools.pairwise([len(self.functions[element]), *nodes, 1]):
                self.layers[element].append(values[: (a + 1) * b].reshape(a + 1, b))
                values = values[(a + 1) * b :]
            assert not len(values)

    def value(self, words, kinds, vectors):
        distance = np.sqrt((vectors**2).sum(axis=1))
        if words[0] == "2":
            eta, shift, radius = map(float, words[2:])
            near = (kinds == words[1]) & (distance.real < radius)
            return (np.exp(-eta * (distance - shift) ** 2) * self.cutoff(distance / radius))[near].sum()
        eta, sign, zeta, radius = map(float, words[3:])
        total = 0.0
        for j, k in itertools.combinations(np.flatnonzero(distance.real < radius), 2):
            between = np.sqrt(((vectors[j] - vectors[k]) ** 2).sum())
            if sorted((kinds[j], kinds[k])) != sorted(words[1:3]) or (words[0] == "3" and between.real >= radius):
                continue
            lengths = [distance[j], distance[k], *([between] if words[0] == "3" else [])]
            angle = (1 + sign * (vectors[j] @ vectors[k]) / (distance[j] * distance[k])) ** zeta
            total += angle * np.prod([np.exp(-eta * r**2) * self.cutoff(r / radius) for r in lengths])
        return 2 ** (1 - zeta) * total

    def energy(self, atoms, positions):
        symbols, total = np.array(atoms.get_chemical_symbols()), 0.0
        shifts = np.array(list(itertools.product(*(range(-2, 3) if periodic else (0,) for periodic in atoms.pbc)))) @ atoms.cell.array
        images, kinds = (positions[:, None] + shifts).reshape(-1, 3), np.repeat(symbols, len(shifts))
        for place, element in zip(positions, symbols, strict=True):
            vectors = images - place
            there = (vectors.real**2).sum(axis=1) > 1e-8
            x = np.array([self.value(words, kinds[there], vectors[there]) for words in self.functions[element]])
            low, high = self.range[element]
            x = (x - low) / (high - low)
            for letter, layer in zip(self.letters, self.layers[element], strict=True):
                x = ACTIVATIONS[letter](x @ layer[:-1] + layer[-1])
            total += x[0]
        return total

    def force(self, atoms, atom, axis, step=1e-30):
        positions = atoms.positions.astype(complex)
        positions[atom, axis] += 1j * step
        return -self.energy(atoms, positions).imag / step


def cluster():
    positions = bulk("Pt", cubic=True).repeat(2).positions
    atoms = Atoms("PtCuPtCuPtPtCu", positions[np.linalg.norm(positions - positions[16], axis=1).argsort()[:7]])
    atoms.rattle(0.1, seed=1)
    return atoms


def crystal():
    atoms = bulk("Pt", cubic=True)
    atoms.symbols[1] = "Cu"
    atoms.rattle(0.1, seed=1)
    return atoms


def changed(found, **parts):
    return [replace(model, **parts) for model in found]


def mixed(found, **parts):
    """Members with G5, offsets, other layers for one element, and an input that does not vary."""
    rng, result = np.random.default_rng(8), []
    for model in found:
        gs = {e: [*fs, {"type": "G2", "element": "Cu", "eta": 3.0, "offset": 2.1}] for e, fs in model.gs.items()}
        gs = {e: [*fs, {"type": "G5", "elements": ["Cu", "Pt"], "eta": 0.5, "gamma": -0.5, "zeta": 4.0}] for e, fs in gs.items()}
        fprange = {e: np.vstack([model.fprange[e], [[0.0, 0.0], rng.uniform([0, 0.3], [0.2, 0.9])]]) for e in gs}
        hidden = {"Cu": (4, 3), "Pt": (2, 5)}
        sizes = {e: [len(gs[e]), *hidden[e], 1] for e in gs}
        weights = {e: [rng.uniform(-1, 1, (a + 1, b)) for a, b in itertools.pairwise(sizes[e])] for e in gs}
        scalings = {"Cu": (-3.2, 17.0), "Pt": (0.4, 6.0)}
        result.append(replace(model, gs=gs, fprange=fprange, hiddenlayers=hidden, weights=weights, scalings=scalings, **parts))
    return result


@pytest.mark.parametrize("atoms", [cluster(), crystal()], ids=["cluster", "crystal"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: models()[:2],
        lambda: mixed(models()[:2], activation="sigmoid", cutoff={"name": "Polynomial", "kwargs": {"Rc": 4.5, "gamma": 2.0}}),
        lambda: mixed(models()[:2], activation="linear"),
    ],
    ids=["cosine", "polynomial", "linear"],
)
def test_energy_and_forces_are_those_of_the_calculator(tmp_path, atoms, make):
    found = make()
    paths = write_runner(found, tmp_path)
    assert [path.name for path in paths] == ["member-000", "member-001"]
    for model, path in zip(found, paths, strict=True):
        atoms.calc, oracle = EnsembleCalculator([model], threads=1), Oracle(path)
        assert abs(oracle.energy(atoms, atoms.positions) - atoms.get_potential_energy()) < AGREEMENT
        forces = atoms.get_forces()
        assert np.abs(forces).max() > 1e-2
        for atom, axis in ((0, 0), (1, 2), (3, 1)):
            assert abs(oracle.force(atoms, atom, axis) - forces[atom, axis]) < AGREEMENT


def test_atomic_units(tmp_path):
    found, atoms = mixed(models()[:1]), cluster()
    oracle = Oracle(write_runner(found, tmp_path, units="atomic")[0])
    atoms.calc = EnsembleCalculator(found, threads=1)
    energy, force = atoms.get_potential_energy(), atoms.get_forces()[2, 0]
    scaled = Atoms(atoms.symbols, atoms.positions / Bohr)
    assert abs(oracle.energy(scaled, scaled.positions) * Hartree - energy) < AGREEMENT
    assert abs(oracle.force(scaled, 2, 0) * Hartree / Bohr - force) < AGREEMENT


def test_members_share_all_but_the_weights(tmp_path):
    found = models()[:2]
    found[1] = replace(found[1], fprange={e: r * [0.9, 1.1] for e, r in found[1].fprange.items()})
    first, second = write_runner(found, tmp_path)
    for name in ("input.nn", "scaling.data"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / "weights.078.data").read_bytes() != (second / "weights.078.data").read_bytes()
    assert sorted(path.name for path in first.iterdir()) == ["input.nn", "scaling.data", "weights.029.data", "weights.078.data"]
    atoms = cluster()
    atoms.calc = EnsembleCalculator(found, threads=1)
    mean = np.mean([Oracle(path).energy(atoms, atoms.positions) for path in (first, second)])
    assert abs(mean - atoms.get_potential_energy()) < AGREEMENT


def test_symmetry_functions_are_in_the_order_in_which_n2p2_sorts_them(tmp_path):
    path = write_runner(mixed(models()[:1]), tmp_path)[0]
    lines = [line.split()[1:] for line in (path / "input.nn").read_text().splitlines() if line.startswith("symfunction_short")]
    for element in ("Cu", "Pt"):
        kinds = [(int(words[1]), float(words[3 if words[1] == "2" else 4])) for words in lines if words[0] == element]
        assert kinds == sorted(kinds)  # type, then eta; all cutoffs are the same
        assert {kind for kind, _ in kinds} == {2, 3, 9}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: changed(m, cutoff={"name": "Polynomial", "kwargs": {"Rc": 4.5, "gamma": 4.0}}), "polynomial cutoff with gamma = 4"),
        (lambda m: [m[0], *changed(m[1:], cutoff={"name": "Cosine", "kwargs": {"Rc": 5.0}})], "member 1 has other cutoff than member 0"),
        (lambda m: changed(m, hiddenlayers={"Cu": (4,), "Pt": (4, 3)}), "other numbers of hidden layers"),
        (lambda m: changed(m, gs={e: [{"type": "G4", "elements": ["Cu", "Cu"], "eta": 1.0, "gamma": 1.5, "zeta": 1.0}] for e in m[0].gs}),
         "gamma = 1.5 in a G4 of Cu"),
    ],
)  # fmt: skip
def test_models_that_the_format_cannot_express(tmp_path, make, message):
    with pytest.raises(UnsupportedModel, match=message):
        write_runner(make(models()[:2]), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_wrong_arguments(tmp_path):
    with pytest.raises(InputError, match=r"units = 'real' must be one of 'metal', 'atomic'\."):
        write_runner(models()[:1], tmp_path, units="real")
    with pytest.raises(InputError, match="ensemble has no member"):
        write_runner([], tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        write_runner(tmp_path / "none.ensemble", tmp_path)
    (paths,) = [write_runner(models()[:1], tmp_path)]
    before = {path: path.read_bytes() for path in Path(paths[0]).iterdir()}
    with pytest.raises(InputError, match="exists, and is not overwritten"):
        write_runner(models()[:1], tmp_path)
    assert before == {path: path.read_bytes() for path in Path(paths[0]).iterdir()}


CP2K = shutil.which("cp2k.psmp") or shutil.which("cp2k.ssmp") or shutil.which("cp2k")
CP2K_INPUT = """\
&GLOBAL
  PROJECT nnp
  RUN_TYPE ENERGY_FORCE
&END GLOBAL
&FORCE_EVAL
  METHOD NNP
  &NNP
    NNP_INPUT_FILE_NAME member-000/input.nn
    SCALE_FILE_NAME member-000/scaling.data
{models}
  &END NNP
  &PRINT
    &FORCES ON
      NDIGITS 14
    &END FORCES
  &END PRINT
  &SUBSYS
    &CELL
{cell}
      PERIODIC {periodic}
    &END CELL
    &COORD
      UNIT bohr
{places}
    &END COORD
  &END SUBSYS
&END FORCE_EVAL
"""


@pytest.mark.slow
@pytest.mark.skipif(CP2K is None, reason="needs CP2K (Debian package cp2k)")
@pytest.mark.parametrize("name", ["cluster", "crystal"])
def test_a_committee_in_cp2k_has_the_energy_and_forces_of_the_calculator(tmp_path, name):
    found = mixed(models()[:3])
    without = {e: [g | {"type": "G4"} if g["type"] == "G5" else g for g in gs] for e, gs in found[0].gs.items()}  # CP2K has no G5
    found = changed(found, gs=without)
    found[1] = replace(found[1], fprange={e: r * [0.9, 1.1] for e, r in found[1].fprange.items()})
    atoms = cluster() if name == "cluster" else crystal().repeat(3)
    if name == "cluster":
        atoms.center(vacuum=10.0)
    paths = write_runner(found, tmp_path, units="atomic")
    text = CP2K_INPUT.format(
        models="\n".join(f"    &MODEL\n      WEIGHTS {path.name}/weights\n    &END MODEL" for path in paths),
        cell="\n".join(
            f"{axis} " + " ".join(f"[bohr] {x:.14f}" for x in v) for axis, v in zip("ABC", atoms.cell.array / Bohr, strict=True)
        ),
        periodic="XYZ" if atoms.pbc.all() else "NONE",
        places="\n".join(f"{s} {x:.15f} {y:.15f} {z:.15f}" for s, (x, y, z) in zip(atoms.symbols, atoms.positions / Bohr, strict=True)),
    )
    (tmp_path / "nnp.inp").write_text(text)
    done = subprocess.run(
        [CP2K, "-i", "nnp.inp"], cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout[-3000:]
    energy = float(re.search(r"ENERGY\| Total FORCE_EVAL.*: +(\S+)", done.stdout)[1])
    rows = re.findall(r"^ +\d+ +\d+ +(?:Pt|Cu)( +\S+ +\S+ +\S+)$", done.stdout, re.MULTILINE)
    atoms.calc = EnsembleCalculator(found, threads=1)
    assert abs(energy * Hartree - atoms.get_potential_energy()) < AGREEMENT
    forces = np.array([row.split() for row in rows], dtype=float) * Hartree / Bohr
    np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=AGREEMENT)
