"""The ensemble as an ASE calculator: laws, Amp's own numbers, and the ways in which ASE uses calculators."""

import json
import pickle

import numpy as np
import pytest
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from amp.nft.amp_io import AmpFileError, write_amp, write_ensemble
from amp.nft.calculator import EnsembleCalculator
from amp.nft.errors import InputError
from amp.nft.uncertainty import force_uncertainty

MEMBERS = 3
RADIUS = 4.5
FORCE_TOLERANCE = 1e-6  # eV/Å, of a finite difference and against Amp


def test_forces_and_stress_are_derivatives_of_the_energy(models, cluster, crystal):
    for atoms in (cluster, crystal):
        atoms.calc = EnsembleCalculator(models)
        assert np.abs(calculate_numerical_forces(atoms, eps=1e-4) - atoms.get_forces()).max() < FORCE_TOLERANCE
    numerical = calculate_numerical_stress(crystal, eps=1e-5, voigt=True)
    assert np.abs(numerical - crystal.get_stress()).max() < FORCE_TOLERANCE
    assert crystal.get_potential_energies().sum() == pytest.approx(crystal.get_potential_energy(), rel=1e-12)


def test_stress_is_made_up_of_what_atoms_contribute(models, crystal):
    """Each atom's part is symmetric, for its energy does not change when it is turned with its surroundings."""
    crystal.calc = EnsembleCalculator(models)
    stresses = crystal.get_stresses(voigt=False)
    np.testing.assert_allclose(stresses.sum(axis=0), crystal.get_stress(voigt=False), atol=1e-12)
    np.testing.assert_allclose(stresses, stresses.transpose(0, 2, 1), atol=1e-12)
    eight = crystal * (2, 2, 2)
    eight.calc = EnsembleCalculator(models, threads=2)
    np.testing.assert_allclose(eight.get_stresses(), np.tile(crystal.get_stresses(), (8, 1)) / 8, atol=1e-10)
    crystal.set_cell(None)
    crystal.pbc = False
    with pytest.raises(PropertyNotImplementedError):
        crystal.get_stress()


def test_a_bar_shows_how_far_it_is(models, crystal, capsys):
    calc = EnsembleCalculator(models, progress=True)
    calc.get_property("energy", crystal)
    shown = capsys.readouterr()
    assert "evaluating atoms" in shown.err and f"{len(crystal)}/{len(crystal)}" in shown.err and not shown.out
    calls = []
    EnsembleCalculator(models, progress=lambda done, total: calls.append((done, total))).get_property("energy", crystal)
    assert calls[-1] == (len(crystal), len(crystal))
    with pytest.raises(ValueError, match="progress is 'bar'"):
        EnsembleCalculator(models, progress="bar")


def test_amp_says_the_same(models, cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_ensemble("a.ensemble", [write_amp(m) for m in models])
    atoms = cluster[:12]
    atoms.calc = EnsembleCalculator("a.ensemble", keep_members=True)
    amp = BootStrap(load="a.ensemble", log=Logger(None))
    forces_mni = np.array(amp.get_forces(atoms, output=[0.5, "e"])[-1])
    assert np.abs(atoms.get_forces() - forces_mni.mean(axis=0)).max() < FORCE_TOLERANCE
    results = atoms.calc.results
    assert np.abs(results["forces_ensemble"] - forces_mni).max() < FORCE_TOLERANCE
    assert atoms.calc.get_property("forces_ensemble", atoms).shape == (MEMBERS, len(atoms), 3)
    assert atoms.calc.get_property("forces_comm", atoms).shape == (MEMBERS, len(atoms), 3)
    assert results["forces_comm"] is results["forces_ensemble"]
    np.testing.assert_allclose(results["forces_committee_std"], forces_mni.std(axis=0, ddof=1), atol=FORCE_TOLERANCE)
    lengths = np.linalg.norm(results["forces_committee_std"], axis=1)
    np.testing.assert_allclose(results["forces_uncertainty"], 2.58 * lengths, rtol=1e-12)
    np.testing.assert_allclose(results["forces_uncertainty"], force_uncertainty(forces_mni), atol=FORCE_TOLERANCE)
    energies = amp.get_potential_energy(atoms, output=[0.5, "e"])[-1]
    assert results["energy"] == pytest.approx(np.mean(energies), abs=1e-8)
    assert results["energy_uncertainty"] == pytest.approx(2.58 * np.std(energies, ddof=1), abs=1e-8)


@pytest.mark.fortran
@pytest.mark.filterwarnings("ignore:.* atoms have a fingerprint outside")
def test_what_amp_has_trained_by_itself_loads(tmp_path, monkeypatch):
    """Two members trained by Amp's own code and saved by it, as a file of one and as its ensemble."""
    monkeypatch.chdir(tmp_path)
    images = []
    for seed in range(2):
        images.append(bulk("Cu", cubic=True))
        images[-1].rattle(0.1, seed=seed)
        images[-1].calc = EMT()
        images[-1].calc = SinglePointCalculator(images[-1], energy=images[-1].get_potential_energy(), forces=images[-1].get_forces())
    texts = []
    for member in range(2):
        np.random.seed(member)  # noqa: NPY002 - where Amp draws its weights
        amp = Amp(Gaussian(cutoff=4.0), NeuralNetwork(hiddenlayers=(3, 2)), label=f"{member}", dblabel="db", cores=1)
        amp.model.lossfunction = LossFunction(convergence={"energy_rmse": 10.0, "force_rmse": 100.0})
        amp.train(images)
        texts.append((tmp_path / f"{member}.amp").read_text())
    (tmp_path / "amps.ensemble").write_text(json.dumps(texts))
    atoms = images[0].copy()
    amp = BootStrap(load="amps.ensemble", log=Logger(None))
    expected = np.array(amp.get_forces(atoms.copy(), output=[0.5, "e"])[-1])
    calc = EnsembleCalculator("amps.ensemble", keep_members=True)
    assert np.abs(calc.get_property("forces_ensemble", atoms) - expected).max() < FORCE_TOLERANCE
    assert np.abs(EnsembleCalculator("1.amp").get_property("forces", atoms) - expected[1]).max() < FORCE_TOLERANCE


def test_members_files_and_a_single_one(models, cluster, tmp_path):
    write_ensemble(tmp_path / "a.ensemble", [write_amp(m) for m in models])
    (tmp_path / "a.amp").write_text(write_amp(models[1]))
    found = {}
    for name, calc in {
        "file": EnsembleCalculator(tmp_path / "a.ensemble", members=[1]),
        "amp": EnsembleCalculator(tmp_path / "a.amp"),
        "model": EnsembleCalculator([models[1]], threads=1),
    }.items():
        found[name] = calc.get_property("energy", cluster)
        assert np.isnan(calc.results["forces_uncertainty"]).all() and np.isnan(calc.results["energy_uncertainty"])
    assert len(set(found.values())) == 1
    assert len(EnsembleCalculator(tmp_path / "a.ensemble", members=2).models) == 2
    assert [m is n for m, n in zip(EnsembleCalculator(models, members=[True, False, True]).models, models[::2], strict=True)] == [
        True,
        True,
    ]
    for members in (4, [3], 0, [-1], [0.5], [], [0, 0], "01", [True, False], True):
        with pytest.raises(InputError, match=r"members (is|contains)"):
            EnsembleCalculator(tmp_path / "a.ensemble", members=members)


def test_nothing_is_ignored_silently(models, cluster):
    calc = EnsembleCalculator(models)
    with pytest.raises(ValueError, match="contains Cu, but this ensemble was trained on Pt only"):
        calc.get_property("energy", Atoms("PtCu", [[0, 0, 0], [0, 0, 2.6]]))
    crowded = cluster.copy()
    crowded.positions *= 0.6
    with pytest.warns(UserWarning, match="outside the range of the training set"):
        calc.get_property("energy", crowded)
    assert 0 < calc.results["n_extrapolating"] == calc.results["extrapolating"].sum()
    assert calc.results["extrapolating"].dtype == bool and calc.results["extrapolating"].shape == (len(crowded),)
    with pytest.raises(Exception, match="dipole"):
        calc.get_property("dipole", cluster)
    cluster.pbc = True
    for last in (0.0, np.nan):  # as of a simulation at constant pressure that went wrong
        cluster.set_cell([10, 10, last])
        with pytest.raises(ValueError, match="spans no space there"):
            calc.get_property("energy", cluster)


def test_what_it_refuses_it_names(models, tmp_path):
    (tmp_path / "a.amp").write_text(write_amp(models[0])[:200])
    with pytest.raises(AmpFileError, match=r"a\.amp: not a complete Amp text"):
        EnsembleCalculator(tmp_path / "a.amp")
    with pytest.raises(ValueError, match="The ensemble is empty"):
        EnsembleCalculator([])
    for threads in (0, -1, "2"):
        with pytest.raises(ValueError, match="threads is"):
            EnsembleCalculator(models, threads=threads)
    with pytest.raises(ValueError, match=r"skin is -1"):
        EnsembleCalculator(models, skin=-1)


@pytest.mark.parametrize(
    ("atoms", "says"),
    [
        (Atoms(), "has no atoms"),
        (Atoms([200, 78], [[0, 0, 0], [0, 0, 2.7]]), "atom 0 has the atomic number 200"),
        (Atoms([78, 0], [[0, 0, 0], [0, 0, 2.7]]), "atom 1 has the atomic number 0"),
        (Atoms("Pt2", [[0, 0, 0], [0, 0, 1e7]]), r"the position of atom 1 is .* within 1e\+06 Å"),
        (Atoms("Pt3000", np.random.default_rng(0).uniform(size=(3000, 3))), "neighbours within 5 Å: no matter is so dense"),
        (Atoms("Pt", cell=[1e-4] * 3, pbc=True), "too many to search"),
    ],
)  # fmt: skip
def test_structures_beyond_any_matter_are_refused(models, atoms, says):
    with pytest.raises(InputError, match=says):
        EnsembleCalculator(models).get_property("forces", atoms)


def test_pickles_before_and_after_use(models, cluster):
    calc = EnsembleCalculator(models)
    energy = pickle.loads(pickle.dumps(calc)).get_property("energy", cluster)
    assert calc.get_property("energy", cluster) == energy
    again = pickle.loads(pickle.dumps(calc))
    moved = cluster.copy()
    moved.rattle(0.05, seed=1)
    assert again.get_property("energy", moved) == calc.get_property("energy", moved)


def test_ase_reads_and_writes_its_results(models, cluster, tmp_path):
    cluster.calc = EnsembleCalculator(models)
    energy, forces = cluster.get_potential_energy(), cluster.get_forces()
    for name in ("a.traj", "a.extxyz"):
        write(tmp_path / name, cluster)
        back = read(tmp_path / name)
        assert back.get_potential_energy() == pytest.approx(energy, abs=1e-7)
        np.testing.assert_allclose(back.get_forces(), forces, atol=1e-7)
    properties = cluster.get_properties(["energy", "forces"])
    assert properties["energy"] == energy and (properties["forces"] == forces).all()


def test_a_skin_changes_nothing(models, crystal, cluster):
    for atoms in (crystal, cluster):
        kept, fresh = EnsembleCalculator(models, skin=1.0), EnsembleCalculator(models, skin=0.0)
        rng = np.random.default_rng(0)
        for _ in range(4):
            atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
            np.testing.assert_allclose(kept.get_property("forces", atoms), fresh.get_property("forces", atoms), atol=1e-10)


def test_vibrations(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atoms = Atoms("Pt2", [[0, 0, 0], [0, 0, 2.6]], calculator=EnsembleCalculator(models))
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=50)
    vibrations = Vibrations(atoms)
    vibrations.run()
    assert np.isfinite(vibrations.get_energies()).all()


@pytest.mark.parametrize("name", ["best.nothing.ensemble", "."])
def test_an_ensemble_that_is_not_there_is_named(name):
    with pytest.raises(FileNotFoundError, match=f"There is no file '{name}' in .*: give an ensemble that a run has left"):
        EnsembleCalculator(name)
