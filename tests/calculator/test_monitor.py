"""The monitor inside every ASE driver, for real, and the results that it keeps."""

import importlib
import warnings

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, Hookean
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.mep import NEB
from ase.optimize import BFGS, FIRE

from amp.nft.calculator import EnsembleCalculator, UncertaintyMonitor, UncertaintyStop, keep
from amp.nft.errors import InputError, NFTError
from amp.nft.inputs.structures import read_training_images

STEP = 2.0 * units.fs
LAST = 2  # the step after which the threshold is crossed
ROUNDING = 1e-7  # of an extended XYZ file
HEAT = {"temperature_K": 300}
PRESS = {"tdamp": 50 * units.fs, "pdamp": 200 * units.fs, "pressure_au": 0.0}
OPTIMISERS = [
    "BFGS", "LBFGS", "BFGSLineSearch", "LBFGSLineSearch", "FIRE", "FIRE2", "MDMin", "GPMin", "GoodOldQuasiNewton", "RFO", "ODE12r",
    "precon.PreconLBFGS", "precon.PreconFIRE", "sciopt.SciPyFminBFGS", "sciopt.SciPyFminCG",
]  # fmt: skip
DYNAMICS = {
    "verlet.VelocityVerlet": {},
    "langevin.Langevin": HEAT | {"friction": 0.02, "fixcm": False},
    "langevinbaoab.LangevinBAOAB": HEAT | {"T_tau": 50 * units.fs},
    "andersen.Andersen": HEAT | {"andersen_prob": 0.1},
    "bussi.Bussi": HEAT | {"taut": 50 * units.fs},
    "nvtberendsen.NVTBerendsen": HEAT | {"taut": 50 * units.fs},
    "nptberendsen.NPTBerendsen": HEAT | {"pressure_au": 0.0, "compressibility_au": 1e-2, "taut": 50 * units.fs, "taup": 500 * units.fs},
    "nose_hoover_chain.NoseHooverChainNVT": HEAT | {"tdamp": 50 * units.fs},
    "nose_hoover_chain.IsotropicMTKNPT": HEAT | PRESS,
    "nose_hoover_chain.MTKNPT": HEAT | PRESS,
    "npt.NPT": HEAT | {"externalstress": 0.0, "ttime": 50 * units.fs, "pfactor": 100.0},
}


def driver(name):
    """Return an ASE class by its module and name; skips where this version of ASE has none."""
    module, _, name = f"ase.{name}".rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        pytest.skip(f"ASE has no {name}")


def monitored(dyn, **settings):
    """Return a monitor whose threshold is crossed at the step LAST."""
    monitor = UncertaintyMonitor(dyn, 1e6, **settings)

    def cross():
        if dyn.nsteps >= LAST:
            monitor.threshold = 1e-9

    dyn.attach(cross)
    dyn.attach(monitor)
    return monitor


def stopped_at_last_step(dyn, monitor):
    return dyn.nsteps == LAST and monitor.steps[-1] == LAST and max(np.diff(monitor.steps), default=1) <= 1


def plain(atoms):
    """Return the same in an upper triangular cell, with velocities, as some barostats need."""
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    atoms.set_momenta(np.random.default_rng(4).normal(scale=1.0, size=(len(atoms), 3)))
    return atoms


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.filterwarnings("ignore:The system is likely too small")
def test_stops_every_optimiser(name, models, crystal):
    crystal.calc = EnsembleCalculator(models)
    dyn = driver(f"optimize.{name}")(crystal, logfile=None)
    monitor = monitored(dyn)
    with pytest.warns(UserWarning, match=f"Step {LAST}, the last"):
        converged = dyn.run(fmax=1e-6, steps=50)
    assert not converged and stopped_at_last_step(dyn, monitor)


@pytest.mark.parametrize("name", DYNAMICS)
@pytest.mark.filterwarnings("ignore:.*NPT thermostat has been moved", "ignore:No rng provided")
def test_stops_every_dynamics(name, models, crystal):
    atoms = plain(crystal)
    atoms.calc = EnsembleCalculator(models)
    dyn = driver(f"md.{name}")(atoms, STEP, **DYNAMICS[name])
    monitor = monitored(dyn)
    with pytest.warns(UserWarning, match=f"Step {LAST}, the last"):
        dyn.run(50)
    assert stopped_at_last_step(dyn, monitor)
    monitor.threshold = 1e6
    dyn.observers.pop(0)
    dyn.run(3)  # a new run is a decision of the user's
    assert dyn.nsteps == LAST + 3


@pytest.mark.parametrize("name", ["BFGS", "CellAwareBFGS"])
def test_stops_a_relaxation_of_the_cell(name, models, crystal):
    crystal.calc = EnsembleCalculator(models)
    dyn = driver(f"optimize.{name}")(FrechetCellFilter(crystal, exp_cell_factor=1.0), logfile=None)
    monitor = monitored(dyn)
    with pytest.warns(UserWarning, match=f"Step {LAST}, the last"):
        dyn.run(fmax=1e-6, steps=50)
    assert stopped_at_last_step(dyn, monitor)


def band(models, crystal, shared):
    last = crystal.copy()
    last.rattle(0.1, seed=8)
    images = [crystal, *(crystal.copy() for _ in range(3)), last]
    calc = EnsembleCalculator(models)
    for image in images[1:-1]:
        image.calc = calc if shared else EnsembleCalculator(models)
    neb = NEB(images, method="improvedtangent", allow_shared_calculator=shared)
    neb.interpolate()
    for image in (crystal, last):
        image.calc = SinglePointCalculator(image, energy=calc.get_property("energy", image), forces=np.zeros((len(image), 3)))
    return neb


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", [BFGS, FIRE])
def test_watches_all_images_of_a_band(kind, shared, models, crystal, tmp_path):
    neb = band(models, crystal, shared)
    dyn = kind(neb, logfile=None)
    monitor = monitored(dyn, trajectory=tmp_path / "band.extxyz")
    with pytest.warns(UserWarning, match=f"Step {LAST}, the last"):
        dyn.run(fmax=1e-6, steps=50)
    assert stopped_at_last_step(dyn, monitor)
    alone = EnsembleCalculator(models)
    deltas = [alone.get_property("forces_uncertainty", image).max() for image in neb.images[1:-1]]
    assert monitor.deltas[-1] == pytest.approx(max(deltas))
    frame = read(tmp_path / "band.extxyz")
    np.testing.assert_allclose(frame.positions, neb.images[1 + int(np.argmax(deltas))].positions, atol=ROUNDING)


def test_stops_the_adaptive_optimiser_of_bands(models, crystal):
    dyn = driver("mep.neb.NEBOptimizer")(band(models, crystal, shared=False), logfile=None)
    monitor = monitored(dyn)
    with pytest.warns(UserWarning, match="the last"):
        assert not dyn.run(fmax=1e-6, steps=50)
    assert monitor.steps[-1] == LAST


@pytest.mark.parametrize("name", ["static band", "Nelder-Mead"])
def test_other_drivers_stop_with_an_error_that_says_why(name, models, crystal):
    crystal.calc = EnsembleCalculator(models)
    if name == "static band":
        dyn = driver("mep.neb.NEBOptimizer")(band(models, crystal, shared=False), logfile=None, method="static")
    else:
        dyn = driver("optimize.sciopt.SciPyFmin")(crystal, logfile=None)
    dyn.attach(UncertaintyMonitor(dyn, 1e-9))
    with (
        warnings.catch_warnings(action="ignore"),
        pytest.raises(UncertaintyStop, match=r"the largest force uncertainty is .* above 1e-09"),
    ):
        dyn.run(1e-6, steps=20)
    assert issubclass(UncertaintyStop, NFTError)


def test_a_driver_that_ignores_its_last_step_is_stopped_with_an_error(models, crystal):
    class Endless(BFGS):
        def run(self, *args, **kwargs):
            while True:
                self.step()
                self.nsteps += 1
                self.call_observers()

    crystal.calc = EnsembleCalculator(models)
    dyn = Endless(crystal, logfile=None)
    dyn.attach(UncertaintyMonitor(dyn, 1e-9))
    with warnings.catch_warnings(action="ignore"), pytest.raises(UncertaintyStop):
        dyn.run()
    assert dyn.nsteps == 2


def test_frames_carry_the_ensembles_energy_without_that_of_constraints(models, crystal, tmp_path):
    crystal.calc = EnsembleCalculator(models)
    energy, forces = crystal.get_potential_energy(), crystal.get_forces()
    crystal.set_constraint([FixAtoms([0]), Hookean(a1=1, a2=2, rt=0.1, k=20.0)])
    assert abs(crystal.get_potential_energy() - energy) > 1.0 and not crystal.get_forces()[0].any()
    dyn = BFGS(crystal, logfile=None)
    dyn.attach(UncertaintyMonitor(dyn, 1e-9, trajectory=tmp_path / "far.extxyz"))
    with pytest.warns(UserWarning, match="the last"):
        dyn.run(fmax=1e-9, steps=3)
    frame = read(tmp_path / "far.extxyz")
    frame.set_constraint()
    assert frame.get_potential_energy() == pytest.approx(energy, abs=ROUNDING)
    np.testing.assert_allclose(frame.get_forces(), forces, atol=ROUNDING)


@pytest.mark.parametrize("name", ["far.extxyz", "far.xyz", "far"])
def test_frames_keep_uncertainties_in_extended_xyz(name, models, crystal, tmp_path):
    crystal.calc = calc = EnsembleCalculator(models)
    dyn = BFGS(crystal, logfile=None)
    dyn.attach(UncertaintyMonitor(dyn, 1e-9, action="warn", trajectory=tmp_path / name))
    with pytest.warns(UserWarning, match="largest force uncertainty"):
        dyn.run(fmax=1e-9, steps=2)
    frames = read(tmp_path / name, ":", format="extxyz")
    assert len(frames) == 3
    np.testing.assert_allclose(frames[-1].arrays["nft_delta"], calc.get_property("forces_uncertainty", crystal), atol=ROUNDING)
    assert frames[0].info["nft_ensemble"] == calc.digest


def test_keep_survives_a_file(models, cluster, tmp_path):
    cluster.calc = calc = EnsembleCalculator(models)
    assert keep(cluster) is cluster
    write(tmp_path / "kept.extxyz", cluster)
    back = read(tmp_path / "kept.extxyz")
    for key, name in {"nft_forces": "forces", "nft_delta": "forces_uncertainty", "nft_extrapolating": "extrapolating"}.items():
        np.testing.assert_allclose(back.arrays[key], calc.results[name], atol=ROUNDING)
        assert back.arrays[key].dtype == calc.results[name].dtype and back.arrays[key].shape == calc.results[name].shape
    assert back.info["nft_energy"] == pytest.approx(calc.results["energy"], abs=ROUNDING)
    assert back.info["nft_energy_delta"] == pytest.approx(calc.results["energy_uncertainty"], abs=ROUNDING)
    assert back.info["nft_delta_max"] == pytest.approx(calc.results["forces_uncertainty"].max(), abs=ROUNDING)
    assert back.info["nft_units"] == "eV, Angstrom"
    assert back.info["nft_ensemble"] == EnsembleCalculator(models).digest != EnsembleCalculator(models[:2]).digest
    assert "other_delta" in keep(cluster, prefix="other_").arrays
    for atoms in (Atoms("Pt"), Atoms("Pt", calculator=EMT())):
        with pytest.raises(InputError, match="which gives no forces_uncertainty"):
            keep(atoms)


def test_the_energy_is_trained_and_not_the_free_energy(models, crystal):
    image = crystal.copy()
    image.calc = SinglePointCalculator(image, energy=-1.0, free_energy=-2.0, forces=np.zeros((4, 3)))
    assert read_training_images([image])[0].get_potential_energy() == -1.0
    crystal.calc = EnsembleCalculator(models)
    assert crystal.get_potential_energy() == crystal.get_potential_energy(force_consistent=True) == crystal.calc.results["free_energy"]


def limit_within(atoms):
    """Return a threshold that the start does not pass."""
    return 1.05 * float(atoms.calc.get_property("forces_uncertainty", atoms).max())


def test_monitor_stops_dynamics_and_keeps_the_frame(watched, tmp_path):
    watched.set_momenta(np.random.default_rng(1).normal(scale=6.0, size=(30, 3)))  # some 3000 K
    dyn = Langevin(watched, 5 * units.fs, temperature_K=3000, friction=0.02, fixcm=False, rng=np.random.default_rng(2))
    monitor = UncertaintyMonitor(dyn, limit_within(watched), trajectory=tmp_path / "far.extxyz")
    dyn.attach(monitor)
    with pytest.warns(UserWarning, match="the last: the largest force uncertainty is"):
        dyn.run(400)
    assert monitor.exceeded and dyn.nsteps < 400
    assert len(monitor.deltas) == dyn.nsteps + 1 and monitor.steps[-1] == dyn.nsteps
    assert max(monitor.deltas[:-1]) <= monitor.threshold < monitor.deltas[-1]
    frame = read(tmp_path / "far.extxyz")
    np.testing.assert_allclose(frame.positions, watched.positions, atol=ROUNDING)
    np.testing.assert_allclose(frame.get_forces(), watched.get_forces(), atol=ROUNDING)


def test_monitor_warns_or_calls_back(watched):
    threshold = limit_within(watched) / 2
    seen = []
    dyn = BFGS(watched, logfile=None)
    dyn.attach(UncertaintyMonitor(dyn, threshold, action=lambda frame, delta: seen.append((frame, delta))))
    dyn.attach(UncertaintyMonitor(dyn, threshold, action="warn"))
    with pytest.warns(UserWarning, match="largest force uncertainty is"):
        dyn.run(fmax=1e-9, steps=2)
    assert seen and dyn.nsteps == 2 and seen[0][1] > threshold
    assert seen[0][0].calc.name != watched.calc.name


def test_monitor_refuses(watched):
    dyn = BFGS(watched, logfile=None)
    with pytest.raises(ValueError, match=r"threshold is 0 eV/Å"):
        UncertaintyMonitor(dyn, 0)
    with pytest.raises(ValueError, match="action is 'halt'"):
        UncertaintyMonitor(dyn, 1.0, action="halt")


def test_monitor_names_a_calculator_without_uncertainty(cluster):
    cluster.calc = EMT()
    dyn = BFGS(cluster, logfile=None)
    dyn.attach(UncertaintyMonitor(dyn, 0.1))
    with pytest.raises(TypeError, match="The calculator is EMT, which gives no forces_uncertainty"):
        dyn.run(fmax=1e-9, steps=1)


def test_monitor_looks_through_a_cell_filter(models, crystal, tmp_path):
    crystal.calc = EnsembleCalculator(models)
    dyn = BFGS(FrechetCellFilter(crystal), logfile=None)
    monitor = UncertaintyMonitor(dyn, limit_within(crystal) / 2, trajectory=tmp_path / "far.extxyz")
    dyn.attach(monitor)
    with pytest.warns(UserWarning, match="Step 0, the last"):
        dyn.run(fmax=1e-9, steps=3)
    assert monitor.steps == [0] and monitor.exceeded
    np.testing.assert_allclose(read(tmp_path / "far.extxyz").positions, crystal.positions, atol=ROUNDING)


def test_monitor_does_not_take_a_single_member_for_certain(models, cluster):
    cluster.calc = EnsembleCalculator(models[:1])
    dyn = BFGS(cluster, logfile=None)
    dyn.attach(UncertaintyMonitor(dyn, 0.1))
    with pytest.raises(ValueError, match="a calculator of one member has none"):
        dyn.run(fmax=1e-9, steps=2)
