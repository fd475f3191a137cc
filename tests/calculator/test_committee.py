"""Committees of plain calculators and of calculators with several members."""

import shutil

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.io import read
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from amp.nft.amp_io import write_amp
from amp.nft.amp_io.committee_file import save_committee
from amp.nft.amp_io.external import ExternalMember, Loader, digest_of, files_below
from amp.nft.calculator import Committee, EnsembleCalculator, UncertaintyMonitor, keep, load, read_card
from amp.nft.calculator.explorers import Dynamics
from amp.nft.calculator.members import open_members
from amp.nft.chunks import carve_chunks
from amp.nft.errors import AmpFileError, InputError
from amp.nft.features import g2x
from amp.nft.selection import choose_chunks
from amp.nft.uncertainty import force_uncertainty, select

SAME = 1e-12  # of sums in another order
KNOWN = [
    "energy", "free_energy", "energies", "forces", "stress", "stresses", "forces_uncertainty", "forces_committee_std",
    "energy_uncertainty", "extrapolating", "n_extrapolating", "forces_comm", "forces_ensemble", "energy_comm",
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:.* outside the range of the training set")


def morses(n=4):
    return [MorsePotential(epsilon=0.7 + 0.02 * k, r0=2.75 + 0.02 * k, rho0=4.0 + 0.1 * k) for k in range(n)]


class Several(Calculator):
    """Morse potentials in one calculator, with results as other programs name and order them."""

    def __init__(self, layout, n=4, energies=True):
        super().__init__()
        self.members, self.layout, self.with_energies = morses(n), layout, energies
        self.implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        forces = np.array([one.get_property("forces", self.atoms) for one in self.members])
        energy = np.array([one.get_property("energy", self.atoms) for one in self.members])
        name, axis = {"mace": ("forces_comm", 0), "runner": ("forces_committee", 0), "apax": ("forces_ensemble", 2)}[self.layout]
        self.results = {"energy": energy.mean(), "forces": forces.mean(axis=0), name: np.moveaxis(forces, 0, axis)}
        if self.with_energies:
            self.results |= {"energy_comm" if self.layout == "mace" else "energy_ensemble": energy}


@pytest.mark.parametrize("periodic", [False, True])
def test_single_members_together_are_the_ensemble(models, cluster, crystal, periodic):
    atoms = crystal if periodic else cluster
    whole, parts = (
        EnsembleCalculator(models, keep_members=True),
        Committee([EnsembleCalculator([one]) for one in models], keep_members=True),
    )
    for name in KNOWN:
        if periodic or name not in ("stress", "stresses"):
            expected, found = (np.asarray(calc.get_property(name, atoms), dtype=float) for calc in (whole, parts))
            np.testing.assert_allclose(found, expected, rtol=SAME, atol=SAME, err_msg=name)
    assert set(whole.implemented_properties) == set(parts.implemented_properties)


def test_an_ensemble_and_a_part_of_it_count_by_members(models, cluster):
    whole = EnsembleCalculator(models, keep_members=True)
    split = Committee([EnsembleCalculator(models[:2], keep_members=True), EnsembleCalculator(models[2:])], keep_members=True)
    for name in ("forces", "energy", "energies", "forces_uncertainty", "forces_comm"):
        found, expected = split.get_property(name, cluster), whole.get_property(name, cluster)
        np.testing.assert_allclose(found, expected, rtol=SAME, atol=SAME, err_msg=name)


def test_the_definitions_with_plain_calculators(cluster):
    atoms, plain = cluster.copy(), morses()
    atoms.calc = Committee(plain)
    forces_mni = np.array([one.get_property("forces", atoms) for one in morses()])
    energy_m = np.array([one.get_property("energy", atoms) for one in morses()])
    std = forces_mni.std(axis=0, ddof=1)
    np.testing.assert_allclose(atoms.get_forces(), forces_mni.mean(axis=0), atol=SAME)
    assert atoms.get_potential_energy() == pytest.approx(energy_m.mean(), rel=SAME)
    results = atoms.calc.results
    np.testing.assert_allclose(results["forces_committee_std"], std, atol=SAME)
    np.testing.assert_allclose(results["forces_uncertainty"], 2.58 * np.linalg.norm(std, axis=1), atol=SAME)
    assert results["energy_uncertainty"] == pytest.approx(2.58 * energy_m.std(ddof=1), rel=1e-9)
    assert "extrapolating" not in results and "forces_comm" not in results


@pytest.mark.parametrize("layout", ["mace", "runner", "apax"])
def test_the_results_of_other_programs(cluster, layout):
    plain, several = Committee(morses(), keep_members=True), Committee([Several(layout)], keep_members=True)
    for name in ("energy", "forces", "forces_uncertainty", "forces_committee_std", "energy_uncertainty", "forces_comm"):
        found, expected = several.get_property(name, cluster), plain.get_property(name, cluster)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=SAME, err_msg=name)
    without = Committee([Several(layout, energies=False)])
    assert np.isnan(without.get_property("energy_uncertainty", cluster))
    assert np.isfinite(without.get_property("forces_uncertainty", cluster)).all()


def test_the_axis_of_the_members_is_told_by_the_shape_or_refused(cluster):
    three = cluster[:3]
    with pytest.raises(InputError, match=r"forces_ensemble has shape \(3, 3, 3\) for 3 atoms"):
        Committee([Several("apax", 3)]).get_property("forces", three)
    for layout, n in (("apax", 4), ("mace", 3), ("runner", 3)):
        found = Committee([Several(layout, n)]).get_property("forces_uncertainty", three)
        np.testing.assert_allclose(found, Committee(morses(n)).get_property("forces_uncertainty", three), atol=SAME)
    bad = Several("mace")
    bad.members = bad.members[:1]
    bad.layout = "runner"
    np.testing.assert_array_equal(np.isnan(Committee([bad]).get_property("forces_uncertainty", three)), True)


def test_forces_are_the_gradient_of_the_energy_and_stress_is_the_mean(crystal):
    calc, h = Committee([EMT(), *morses(2)]), 1e-5
    forces = calc.get_property("forces", crystal)
    energies = []
    for step in (h, -h):
        moved = crystal.copy()
        moved.positions[1, 2] += step
        energies.append(calc.get_property("energy", moved))
    assert forces[1, 2] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), abs=1e-6)
    mean = np.mean([one.get_property("stress", crystal) for one in (EMT(), *morses(2))], axis=0)
    np.testing.assert_allclose(calc.get_property("stress", crystal), mean, atol=SAME)
    np.testing.assert_allclose(calc.get_property("forces", crystal), forces, atol=SAME)


def test_the_monitor_stops_and_keeps(cluster, tmp_path):
    cluster.calc = Committee(morses())
    start = cluster.calc.get_property("forces_uncertainty", cluster).max()
    dyn = BFGS(cluster, logfile=None)
    monitor = UncertaintyMonitor(dyn, 0.5 * start, trajectory=tmp_path / "unsure.extxyz")
    dyn.attach(monitor)
    with pytest.warns(UserWarning, match="largest force uncertainty"):
        dyn.run(fmax=1e-3, steps=20)
    assert dyn.nsteps == 0 and monitor.exceeded
    frame = read(tmp_path / "unsure.extxyz")
    np.testing.assert_allclose(frame.arrays["nft_delta"].max(), start, atol=1e-7)
    assert "nft_extrapolating" not in frame.arrays
    assert keep(cluster).info["nft_delta_max"] == pytest.approx(start)


def test_exploration_and_the_choice_of_chunks(cluster):
    atoms = cluster.copy()
    atoms.calc = calc = Committee(morses())
    frames = Dynamics(temperature=300, steps=20, interval=5)(atoms, 1e6)
    assert len(frames) >= 4
    delta = calc.get_property("forces_uncertainty", frames[-1])
    chosen = select(delta, -0.8)
    assert delta[chosen].min() >= np.delete(delta, chosen).max()
    chunks = carve_chunks(frames[-1], chosen, 5.0)
    assert len(set(choose_chunks(chunks, 3, g2x(["Pt"]), cutoff=4.5))) == 3


def test_dynamics_conserve_the_energy(cluster):
    cluster.calc = Committee(morses(2))
    cluster.set_momenta(np.random.default_rng(1).normal(size=(len(cluster), 3)))
    before = cluster.get_total_energy()
    VelocityVerlet(cluster, 0.05).run(30)
    assert cluster.get_total_energy() == pytest.approx(before, abs=1e-3)


def test_a_single_member_has_no_uncertainty(cluster):
    calc = Committee([EMT()])
    assert np.isnan(calc.get_property("forces_uncertainty", cluster)).all() and np.isnan(calc.results["energy_uncertainty"])
    np.testing.assert_array_equal(calc.results["forces"], EMT().get_property("forces", cluster))


class Broken(EMT):
    """EMT with a force that is not finite."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["forces"][0] = np.nan


def test_a_calculator_that_gives_nonsense(cluster):
    with pytest.raises(InputError, match="Calculator 1 of the committee, Broken"):
        Committee([EMT(), Broken()]).get_property("forces", cluster)


class Raising(EMT):
    """EMT whose evaluation fails as programs fail for structures that they do not know."""

    def calculate(self, *args, **kwargs):
        raise KeyError("Cu")


def test_a_calculator_that_fails_is_named(cluster):
    message = r"Calculator 1 of the committee, Raising, failed for Pt\d+ \(KeyError: 'Cu'\)"
    with pytest.raises(InputError, match=message):
        Committee([EMT(), Raising()]).get_property("forces", cluster)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda models: [], "committee is empty"),
        (lambda models: EMT(), "calculators is one EMT: give a list"),
        (lambda models: [EMT(), EMT], r"calculators\[1\] is .*: it must be an ASE calculator"),
        (lambda models: [EMT()] * 2, "contains one calculator twice"),
        (lambda models: [EnsembleCalculator(models)], "keep_members=True"),
        (lambda models: [Committee(morses())], "keep_members=True"),
    ],
)
def test_committees_that_cannot_be(models, given, message):
    with pytest.raises(InputError, match=message):
        Committee(given(models))


@pytest.fixture
def described(tmp_path, models):
    """Return members of the ensemble as models of another program, in a directory; their descriptions name files there."""
    texts = []
    for number, model in enumerate(models):
        place = tmp_path / "trained" / str(number) / "model"
        place.mkdir(parents=True)
        (place / "one.amp").write_text(write_amp(model))
        loader = Loader("amp.nft.calculator.EnsembleCalculator")
        texts.append(ExternalMember(loader, f"trained/{number}/model/one.amp", files_below(place, tmp_path)).text())
    return texts


def test_single_members_from_a_directory_are_the_ensemble(tmp_path, models, cluster, described):
    save_committee(tmp_path / "x.committee", described, tmp_path, {"licence": "none"})
    shutil.rmtree(tmp_path / "trained")
    found, expected = load(tmp_path / "x.committee", keep_members=True), EnsembleCalculator(models, keep_members=True)
    for name in [name for name in KNOWN if name not in ("stress", "stresses")]:
        np.testing.assert_allclose(found.get_property(name, cluster), expected.get_property(name, cluster), rtol=SAME, atol=SAME)
    assert read_card(tmp_path / "x.committee") == {"licence": "none"}


def test_elements_that_the_members_were_not_trained_on_are_named(tmp_path, recwarn):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "one").write_text("")
    text = ExternalMember(Loader("ase.calculators.emt.EMT", "label"), "model/one", files_below(tmp_path / "model", tmp_path)).text()
    save_committee(tmp_path / "x.committee", [text, text], tmp_path, {"elements": ["Pt"]})
    load(tmp_path / "x.committee").get_property("forces", bulk("Pt"))
    assert not recwarn
    with pytest.warns(UserWarning, match="not trained on Cu, but on Pt"):
        load(tmp_path / "x.committee").get_property("forces", bulk("Cu"))


def test_an_index_whose_card_is_no_table(tmp_path, described):
    save_committee(tmp_path / "x.committee", described, tmp_path, ["none"])
    with pytest.raises(AmpFileError, match="is not the index of a committee of format 1 \\(its card is not a table\\)"):
        load(tmp_path / "x.committee")


def test_a_model_that_cannot_be_loaded_is_named(tmp_path):
    (tmp_path / "one").write_text("nothing")
    member = ExternalMember(Loader("amp.nft.calculator.EnsembleCalculator", "unknown_keyword"), "one", {"one": digest_of(tmp_path / "one")})
    with pytest.raises(InputError, match=r"EnsembleCalculator cannot load \S+one \(\w+: .*unknown_keyword"):
        member.open(tmp_path)


def test_members_of_another_program_predict_as_the_same_members_of_amp(tmp_path, models, cluster, described):
    foreign, own = open_members(described, tmp_path), open_members([write_amp(model) for model in models], tmp_path)
    assert foreign.reach is None and own.reach > 2 * models[0].cutoff["kwargs"]["Rc"]
    found, expected = (members.predict(cluster, each=True) for members in (foreign, own))
    assert expected.forces_mni.shape == (len(models), len(cluster), 3) and expected.energy_m.shape == (len(models),)
    for name in ("energy", "energy_m", "forces", "uncertainty", "forces_mni"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=SAME, atol=SAME, err_msg=name)
    assert foreign.predict(cluster).forces_mni is None and own.predict(cluster).forces_mni is None
    np.testing.assert_allclose(expected.forces_mni.mean(axis=0), expected.forces, atol=SAME)
    np.testing.assert_allclose(force_uncertainty(expected.forces_mni), expected.uncertainty, atol=SAME)
