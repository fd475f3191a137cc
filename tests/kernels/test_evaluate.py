"""One pass for the whole ensemble: finite differences, Amp's own BootStrap, and independence of how the work is cut."""

import contextlib
import itertools
import json
import pickle
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from amp import Amp
from amp.descriptor.cutoffs import Cosine
from amp.descriptor.gaussian import Gaussian, make_symmetry_functions
from amp.model.neuralnetwork import NeuralNetwork
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger
from ase import Atoms
from ase.build import bulk

from amp.nft.kernels.fingerprints.gaussian import Fingerprints
from amp.nft.kernels.prediction import evaluate as module
from amp.nft.kernels.prediction.evaluate import Evaluator

RC = 4.5  # Å
STEP, DIFFERENCES = 5e-5, 1e-6  # of finite differences (short: neighbours cross the cutoff), and their error in eV/Å and eV
SAME = 1e-6  # eV/Å, against Amp
EXACT = 1e-10  # eV and eV/Å: but for rounding


def functions(elements):
    return {
        element: make_symmetry_functions(elements, "G2", [0.05, 4.0, 20.0])
        + make_symmetry_functions(elements, "G4", [0.005, 1.0], zetas=[1.0, 4.0], gammas=[1.0, -1.0])
        for element in elements
    }


def ensemble(atoms, n=5, hidden=(4, 3), activation="tanh", seed=0):
    """Members with random weights, each with a range of fingerprints of its own around those of the structure."""
    rng, elements = np.random.default_rng(seed), sorted(set(atoms.symbols))
    gs, cutoff = functions(elements), {"name": "Cosine", "kwargs": {"Rc": RC}}
    rows = Fingerprints(gs, cutoff).rows(atoms)
    members = []
    for _ in range(n):
        weights, ranges, scalings = {}, {}, {}
        for kind, element in enumerate(elements):
            sizes = [len(gs[element]), *hidden, 1]
            weights[element] = [rng.uniform(-1, 1, (a + 1, b)) for a, b in itertools.pairwise(sizes)]
            x = rows.x[rows.kind == kind]
            low, high = x.min(axis=0), x.max(axis=0)
            spread = 0.3 + rng.uniform(0.0, 1.0, len(low))
            ranges[element] = np.array([low - spread, high + spread]).T
            scalings[element] = (rng.normal(), rng.uniform(1.0, 3.0))
        members.append(SimpleNamespace(
            gs=gs, cutoff=cutoff, hiddenlayers={element: hidden for element in elements}, activation=activation,
            weights=weights, scalings=scalings, fprange=ranges,
        ))  # fmt: skip
    return members


def cluster(symbols="Pt30", seed=1):
    rng, positions = np.random.default_rng(seed), []
    n = len(Atoms(symbols))
    while len(positions) < n:
        place = rng.uniform(0.0, 2.6 * n ** (1 / 3), 3)
        if all(np.linalg.norm(place - other) > 1.9 for other in positions):
            positions.append(place)
    return Atoms(symbols, positions)


def crystal(repeat=(2, 1, 1), pbc=True):
    atoms = bulk("CuAu", "rocksalt", a=5.4, cubic=True) * repeat
    atoms.rattle(0.1, seed=3)
    atoms.pbc = pbc
    return atoms


def run(models, atoms, **options):
    return Evaluator(models).evaluate(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc, **options)


def slope(function):
    """Return the derivative at zero, from four values: fourth order in the step."""
    return (8 * (function(STEP) - function(-STEP)) - (function(2 * STEP) - function(-2 * STEP))) / (12 * STEP)


def equal(one, other, tolerance=EXACT):
    assert one.energies_mi == pytest.approx(other.energies_mi, abs=tolerance)
    assert one.forces == pytest.approx(other.forces, abs=tolerance)
    assert one.forces_uncertainty == pytest.approx(other.forces_uncertainty, abs=tolerance)
    assert one.forces_std == pytest.approx(other.forces_std, abs=tolerance)
    assert (one.extrapolating == other.extrapolating).all()


STRUCTURES = {
    "free": cluster(), "free, two elements": cluster("Pt20Cu11"), "periodic": crystal(),
    "mixed boundaries": crystal(pbc=[True, False, True]), "smaller than the cutoff": bulk("Pt", a=3.99),
    "alone": Atoms("Pt", [[0, 0, 0]]),
}  # fmt: skip


@pytest.fixture(params=STRUCTURES)
def atoms(request):
    return STRUCTURES[request.param].copy()


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "linear"])
def test_forces_are_finite_differences(atoms, activation):
    models = ensemble(atoms, activation=activation)
    evaluator = Evaluator(models)

    def energy(positions):
        return evaluator.evaluate(positions, atoms.numbers, atoms.cell.array, atoms.pbc).energy_m

    result = run(models, atoms, forces_ensemble=True)
    way = np.random.default_rng(5).normal(size=atoms.positions.shape)
    way /= np.linalg.norm(way)
    numerical = slope(lambda step: energy(atoms.positions + step * way))
    assert -np.einsum("mia,ia->m", result.forces_mni, way) == pytest.approx(numerical, abs=DIFFERENCES, rel=DIFFERENCES)
    assert result.forces_mni.sum(axis=1) == pytest.approx(np.zeros((len(models), 3)), abs=EXACT)


def test_virial_is_a_finite_difference(atoms):
    models = ensemble(atoms)
    evaluator = Evaluator(models)
    virial = run(models, atoms, stress=True).virial_mab
    for a, b in [(0, 0), (1, 2), (2, 0)]:

        def energy(step, a=a, b=b):
            deform = np.eye(3)
            deform[a, b] += step
            return evaluator.evaluate(atoms.positions @ deform, atoms.numbers, atoms.cell.array @ deform, atoms.pbc).energy_m

        assert -virial[:, a, b] == pytest.approx(slope(energy), abs=DIFFERENCES, rel=DIFFERENCES)
    assert virial == pytest.approx(virial.transpose(0, 2, 1), abs=EXACT)
    assert run(models, atoms, stress=True).virial_iab.sum(axis=0) == pytest.approx(virial.mean(axis=0), abs=EXACT)


def test_mean_and_uncertainty_are_those_of_the_members(atoms):
    result = run(ensemble(atoms), atoms, forces_ensemble=True)
    n = len(result.forces_mni)
    assert result.forces == pytest.approx(result.forces_mni.mean(axis=0), abs=EXACT)
    spread = np.sqrt(((result.forces_mni - result.forces) ** 2).sum(axis=(0, 2)) / (n - 1))
    assert result.forces_uncertainty == pytest.approx(2.58 * spread, abs=EXACT)
    assert result.forces_std == pytest.approx(result.forces_mni.std(axis=0, ddof=1), abs=EXACT)


@pytest.mark.parametrize("n", [1, 2, 12, 13])
def test_members_do_not_see_each_other(n):
    atoms = STRUCTURES["free, two elements"]
    models = ensemble(atoms, n)
    result = run(models, atoms, forces_ensemble=True, stress=True)
    for m, model in enumerate(models):
        alone = run([model], atoms, forces_ensemble=True, stress=True)
        assert result.energies_mi[m] == pytest.approx(alone.energies_mi[0], abs=EXACT)
        assert result.forces_mni[m] == pytest.approx(alone.forces_mni[0], abs=EXACT)
        assert result.virial_mab[m] == pytest.approx(alone.virial_mab[0], abs=EXACT)
        assert np.isnan(alone.forces_uncertainty).all() and np.isnan(alone.forces_std).all()


@pytest.mark.fortran
@pytest.mark.parametrize("name", ["free, two elements", "periodic"])
@pytest.mark.parametrize(("hidden", "activation"), [((5, 5), "tanh"), ((3,), "sigmoid"), ((2, 3, 2), "linear")])
def test_amp_says_the_same(tmp_path, monkeypatch, name, hidden, activation):
    monkeypatch.chdir(tmp_path)
    atoms = STRUCTURES[name]
    models = ensemble(atoms, 2, hidden, activation)
    texts = []
    for member, model in enumerate(models):
        calculator = Amp(
            descriptor=Gaussian(Gs=model.gs, cutoff=Cosine(RC), elements=sorted(model.gs)),
            model=NeuralNetwork(
                hiddenlayers=model.hiddenlayers, activation=activation, mode="atom-centered",
                weights={e: {i + 1: w for i, w in enumerate(ws)} for e, ws in model.weights.items()},
                scalings={e: {"intercept": i, "slope": s} for e, (i, s) in model.scalings.items()},
                fprange={e: r.tolist() for e, r in model.fprange.items()},
            ), label=str(tmp_path / f"{member}"), dblabel=str(tmp_path / "db"), logging=False,
        )  # fmt: skip
        with open(calculator.save(str(tmp_path / f"{member}.amp"))) as file:
            texts.append(file.read())
    (tmp_path / "x.ensemble").write_text(json.dumps(texts))
    amp = BootStrap(load=str(tmp_path / "x.ensemble"), log=Logger(None), label=str(tmp_path / "amp"))
    ours = run(models, atoms, forces_ensemble=True)
    assert ours.forces == pytest.approx(amp.get_forces(atoms.copy()), abs=SAME)
    for member, calculator in enumerate(amp.ensemble):
        assert ours.energy_m[member] == pytest.approx(calculator.get_potential_energy(atoms.copy()), abs=SAME)
        assert ours.forces_mni[member] == pytest.approx(calculator.get_forces(atoms.copy()), abs=SAME)


def test_threads_change_no_digit():
    atoms = cluster("Pt70", seed=2)
    models = ensemble(atoms)
    results = [run(models, atoms, threads=t, stress=True, forces_ensemble=True) for t in (1, 2, 5)]
    for other in results[1:]:
        for name in ("energies_mi", "forces", "forces_uncertainty", "forces_mni", "virial_mab", "virial_iab"):
            assert (getattr(other, name) == getattr(results[0], name)).all()


@pytest.mark.parametrize("name", ["free", "periodic", "mixed boundaries", "smaller than the cutoff"])
def test_regions_and_blocks_change_nothing_but_rounding(monkeypatch, name):
    """Many small regions, each with its surroundings: boundaries fall between any two neighbours."""
    atoms = STRUCTURES[name] * ((1, 1, 1) if name == "free" else (2, 2, 3))
    models = ensemble(atoms)
    whole = run(models, atoms, stress=True)
    monkeypatch.setattr(module, "_BLOCK", 3)
    cut = run(models, atoms, stress=True, threads=2)
    equal(cut, whole)
    assert cut.virial_mab == pytest.approx(whole.virial_mab, abs=EXACT)


def test_crowded_blocks_follow_lonely_ones(monkeypatch):
    """The arrays of a thread must hold what a block touches, whatever the blocks before were like."""
    rng, places = np.random.default_rng(8), []
    while len(places) < 300:
        place = rng.uniform(0.0, 1.0, 3) ** 2 * 60.0  # crowded where the coordinates are small
        if all(np.linalg.norm(place - other) > 1.9 for other in places):
            places.append(place)
    atoms = Atoms("Pt300", -np.array(places))
    models = ensemble(atoms)
    whole = run(models, atoms, threads=1)
    monkeypatch.setattr(module, "_BLOCK", 3)
    equal(run(models, atoms, threads=1), whole)


def test_a_supercell_has_the_same_forces():
    atoms = crystal((1, 1, 1))
    models = ensemble(atoms)
    one, eight = run(models, atoms, stress=True), run(models, atoms * (2, 2, 2), stress=True)
    assert eight.forces == pytest.approx(np.tile(one.forces, (8, 1)), abs=EXACT)
    assert eight.virial_mab == pytest.approx(8 * one.virial_mab, abs=EXACT)


def test_order_and_wrapping_of_atoms_do_not_matter():
    atoms = crystal()
    models = ensemble(atoms)
    order = np.random.default_rng(0).permutation(len(atoms))
    moved = atoms[order]
    moved.positions += np.random.default_rng(1).integers(-2, 3, (len(atoms), 3)) @ atoms.cell.array
    one, other = run(models, atoms), run(models, moved)
    assert other.forces == pytest.approx(one.forces[order], abs=EXACT)
    assert other.energies_mi == pytest.approx(one.energies_mi[:, order], abs=EXACT)


def test_atoms_outside_the_trained_range_are_marked():
    atoms = STRUCTURES["free"]
    models = ensemble(atoms)
    assert not run(models, atoms).extrapolating.any()
    apart = atoms + Atoms("Pt2", [[0, 0, 0.5], [0, 0, 0]])
    apart.positions[len(atoms) :] += atoms.positions.max() + 100.0
    assert np.flatnonzero(run(models, apart).extrapolating).tolist() == [len(atoms), len(atoms) + 1]
    squeezed = atoms.copy()
    squeezed.positions[:2] *= 0.5
    models[3].fprange["Pt"][:, 1] = models[3].fprange["Pt"][:, 0] - 1.0
    assert run(models, squeezed).extrapolating.all()


def test_a_list_of_neighbours_is_kept_while_atoms_move_little():
    """Small steps, a large one, another cell, other boundaries, other atoms: always as without a memory."""
    atoms = crystal()
    models = ensemble(atoms)
    evaluator, rng = Evaluator(models, skin=0.6), np.random.default_rng(0)
    for step in (0.0, 0.02, 0.02, 0.5, 0.02):
        atoms.positions += step * rng.normal(size=atoms.positions.shape)
        equal(evaluator.evaluate(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc), run(models, atoms))
    atoms.set_cell(atoms.cell * 1.03, scale_atoms=True)
    equal(evaluator.evaluate(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc), run(models, atoms))
    atoms.pbc = [False, True, True]
    equal(evaluator.evaluate(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc), run(models, atoms))
    atoms = atoms[3:]
    equal(evaluator.evaluate(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc), run(models, atoms))


def test_an_evaluator_can_be_sent_elsewhere():
    atoms = crystal()
    evaluator = Evaluator(ensemble(atoms), skin=0.5)
    before = evaluator.evaluate(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
    after = pickle.loads(pickle.dumps(evaluator)).evaluate(atoms.positions, atoms.numbers, atoms.cell.array, atoms.pbc)
    equal(after, before)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_error_in_one_block_ends_all(monkeypatch, threads):
    """Two atoms in one place, in the first block; later blocks wait for it, and no thread must wait indefinitely."""
    atoms = cluster("Pt70", seed=2)
    models = ensemble(atoms)
    atoms.positions[0] = atoms.positions[40]
    monkeypatch.setattr(module, "_BLOCK", 1)
    for _ in range(20):
        with pytest.raises(ValueError, match="in one place"):
            run(models, atoms, threads=threads)


def test_what_interrupts_the_sum_ends_all(monkeypatch):
    """As Ctrl-C does while blocks are added up: the other threads must not wait indefinitely for the next block."""
    atoms, ended = cluster("Pt70", seed=2), threading.Event()
    models = ensemble(atoms)

    def interrupted(sweep, scratch):
        raise KeyboardInterrupt

    def evaluate():
        with contextlib.suppress(KeyboardInterrupt):
            run(models, atoms, threads=2)
        ended.set()

    monkeypatch.setattr(module, "_BLOCK", 1)
    monkeypatch.setattr(module._Sweep, "_add", interrupted)
    threading.Thread(target=evaluate, daemon=True).start()
    assert ended.wait(10.0)


def test_progress_is_reported(monkeypatch):
    atoms, calls = cluster("Pt50", seed=4), []
    monkeypatch.setattr(module, "_BLOCK", 20)
    run(ensemble(atoms), atoms, threads=2, progress=lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[-1] == (50, 50)


def test_inputs_that_make_no_sense_are_errors():
    atoms = STRUCTURES["free"].copy()
    models = ensemble(atoms)
    with pytest.raises(ValueError, match="one member or more"):
        Evaluator([])
    other = ensemble(atoms, 1, hidden=(2, 2))
    with pytest.raises(ValueError, match="hiddenlayers"):
        Evaluator([*models, *other])
    foreign = atoms.copy()
    foreign.symbols[4] = "Cu"
    with pytest.raises(ValueError, match="Cu"):
        run(models, foreign)
    atoms.positions[7, 1] = np.nan
    with pytest.raises(ValueError, match="atom 7"):
        run(models, atoms)


def test_no_atoms_no_energy():
    result = run(ensemble(STRUCTURES["free"]), Atoms())
    assert result.energies_mi.shape == (5, 0)
    assert result.forces.shape == (0, 3)
