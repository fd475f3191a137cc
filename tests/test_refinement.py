"""Refinement as a user runs it: an ensemble that has seen a rattled cluster is led to, and taught, the relaxed one."""

import copy
import functools
import itertools
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from ase.constraints import FixAtoms
from ase.optimize import BFGS, FIRE, LBFGS

from amp.nft.activelearner import NFT
from amp.nft.activelearner.refine_chunks import Search
from amp.nft.activelearner.refine_frames import FrameSearch
from amp.nft.activelearner.refine_results import Round
from amp.nft.activelearner.stopping import StopReason
from amp.nft.calculator import EnsembleCalculator, read_card
from amp.nft.initialization import initial_images
from amp.nft.refinement import Dynamics, Relaxation, refine
from amp.nft.report import report
from amp.nft.report.checks import learned
from amp.nft.run.replay import replay
from amp.nft.run.rounds import described, read_rounds
from amp.nft.run.store import RunStore, RunStoreError

CALC_TEXT = """
from amp import Amp
from amp.descriptor.gaussian import Gaussian
from amp.model import LossFunction
from amp.model.neuralnetwork import NeuralNetwork
from amp.nft.features import g2x

calc = Amp(descriptor=Gaussian(cutoff=5.0, Gs=g2x(['Pt'])), model=NeuralNetwork(hiddenlayers=(5,)))
calc.model.lossfunction = LossFunction(
    force_coefficient=0.04, convergence={'energy_rmse': 0.002, 'force_rmse': 0.01, 'force_maxresid': 0.05})
"""
BAND = (1.0, 4.0)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def cluster():
    icosahedron = Icosahedron("Pt", 3, latticeconstant=3.99)
    atoms = Atoms(icosahedron.symbols, icosahedron.positions)
    atoms.rattle(0.1, seed=42)
    return atoms


@functools.cache
def images():
    return initial_images("Pt", [225, 79], 4.0, 2.4, 0.1, n_rattled=4)


def run(parent=None, seed=0, target=None, **changes):
    al = NFT(threshold=-0.9, stop_delta=0.01, max_iterations=2, seed=seed, log=os.devnull)
    settings = {"rounds": 1, "band": BAND, "n": 4, "calc_text": CALC_TEXT, "start_command": "python run.py", "cutoff": 6.0}
    return refine(al, copy.deepcopy(images()), target or cluster(), parent_calc=parent or EMT(), **settings | changes)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """Return a directory in which ``run(rounds=0)`` is done."""
    directory = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        run(rounds=0)
    return directory


@pytest.fixture
def _first_run_done(_elsewhere, first_run):
    shutil.copytree(first_run, ".", dirs_exist_ok=True)


def largest_true_force(ensemble):
    """EMT's largest force where the ensemble thinks that there is none, eV/Å."""
    atoms = cluster()
    atoms.calc = EnsembleCalculator(ensemble)
    assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=300)
    atoms.calc = EMT()
    return np.linalg.norm(atoms.get_forces(), axis=1).max()


@pytest.mark.filterwarnings("ignore:.* atoms have a fingerprint outside")
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_the_minimum_is_nearer_to_the_parents_afterwards(seed):
    """With members that can tell the difference: criteria far below the forces that are left without refinement."""
    text = CALC_TEXT.replace("hiddenlayers=(5,)", "hiddenlayers=(5, 5)").replace("0.05}", "0.02}").replace("0.01,", "0.005,")
    before, after = run(seed=seed, calc_text=text, band=(0.25, 4.0))
    assert before.exploration == (0, 0, 0) and before.chunks == 0
    frames, uncertain, candidates = after.exploration
    assert frames >= uncertain > 0 and candidates >= after.chunks > 0
    assert (before.label, after.label) == ("al", "al-refined-1")
    assert before.outcome == before.end == "" and "on the new structures" in after.outcome and after.outcome in str(after)
    assert after.end == "Refinement ends: all of the rounds = 1 are done."
    assert f"Explored {frames} frames, {uncertain} uncertain enough" in str(after)
    assert largest_true_force(after.ensemble) < largest_true_force(before.ensemble)


def counted(directory, log):
    log.append(directory)
    return EMT()


def files():
    """Ensembles and labels of all rounds."""
    return {path.name: path.read_bytes() for path in [*Path().glob("*.ensemble"), *Path().glob("*-training/saved-info/*.traj")]}


def test_it_goes_on_where_it_was_and_does_nothing_twice():
    calls = []
    parent = partial(counted, log=calls)
    run(parent, rounds=0)
    of_first_run = len(calls)
    run(parent, k=3)
    assert len(calls) > of_first_run
    done, results = len(calls), files()
    again = run(parent, k=3)
    assert len(calls) == done and files() == results
    assert again[1].chunks == 3
    found = read_rounds(Path("al-refined-1-training"))
    assert [one.number for one in found] == [0, 1] and not found[1].frames and "3 labels" in found[1].work
    before, after = learned(found)["al-refined-1"]
    assert f"from {before:.3g} to {after:.3g} eV/Å" in again[1].outcome
    verdict = report("al-refined-1-training")
    assert any("not on the frames" in reason for reason in verdict.reasons)
    assert f"{before:.3g} before and {after:.3g} after on its chunks" in Path("report.html").read_text(encoding="utf-8")

    os.mkdir("whole")
    os.chdir("whole")
    run(partial(counted, log=[]), k=3)
    assert files() == results
    run(partial(counted, log=[]), k=3, card={"licence": "CC-BY-4.0"})
    assert read_card("best.al-refined-1.ensemble")["licence"] == "CC-BY-4.0"
    with pytest.raises(RunStoreError, match=r"exploration contains a run with other settings:\n  k: was 3, is 4"):
        run(partial(counted, log=[]), k=4)


class Fails(EMT):
    """Its labels of what was explored fail: all, or the first so many."""

    left = 0

    def calculate(self, atoms=None, *args, **kwargs):
        if Path("al.2.ensemble").exists() and not Path("al-refined-1.ensemble").exists() and Fails.left > 0:
            Fails.left -= 1
            raise RuntimeError("SCF did not converge")
        super().calculate(atoms, *args, **kwargs)


def test_chunks_that_cannot_be_labelled_are_left_out_for_good():
    Fails.left = 99
    with pytest.raises(RuntimeError, match=r"None of 3 chunks could be labelled: .*SCF did not converge.*finished work is kept"):
        run(Fails(), k=3, label_retries=0)
    Fails.left = 1
    rounds = run(Fails(), k=3, label_retries=0)
    assert rounds[1].chunks == 2
    results = files()
    Fails.left = 0
    assert run(Fails(), k=3)[1].chunks == 2  # it would work now, but the training was without it
    assert files() == results


@pytest.mark.usefixtures("_first_run_done")
def test_it_ends_where_no_frame_is_uncertain_enough():
    rounds = run(band=(50.0, 60.0), rounds=3)
    assert [one.label for one in rounds] == ["al"]
    assert rounds[0].end == "Refinement ends after 0 of 3 rounds: no frame reaches the lower end of the band."
    with RunStore("al-refined-1-training/exploration") as store:
        frames, uncertain, candidates = replay(store.events).exploration.counts
    assert frames > 0 == uncertain == candidates


@pytest.mark.usefixtures("_first_run_done")
def test_dynamics_explores_the_same_way_each_time_and_stops_at_the_limit():
    atoms = cluster()

    def explore(limit):
        atoms = cluster()
        atoms.calc = EnsembleCalculator("best.al.ensemble")
        return Dynamics(temperature=300.0, steps=20, interval=5, seed=3)(atoms, limit)

    frames = explore(1e3)
    assert len(frames) == 5
    assert frames == explore(1e3)
    assert not np.allclose(frames[-1].positions, atoms.positions, atol=1e-3)
    stopped = explore(1e-6)
    assert len(stopped) < 5
    calc = EnsembleCalculator("best.al.ensemble")
    limit = max(calc.get_property("forces_uncertainty", frame).max() for frame in frames[:1]) * 1.0001
    beyond = explore(limit)  # it ends between two frames that are due, and the last one is what it ended for
    assert len(beyond) < 5 and calc.get_property("forces_uncertainty", beyond[-1]).max() > limit


@pytest.mark.usefixtures("_first_run_done")
def test_roundoff_does_not_end_an_exploration_at_its_start():
    delta = EnsembleCalculator("best.al.ensemble").get_property("forces_uncertainty", cluster()).max() * (1 - 1e-12)
    before = Round("al", Path("best.al.ensemble"), float(delta), (0, 0, 0), 0, [], StopReason("converged", ""))
    explore = Dynamics(steps=4, interval=1, temperature=1.0)
    with RunStore("frames") as store:
        (frame,) = FrameSearch([explore], 1, 5.0, 1.0, None).carry_out(store, before, before.delta, [cluster()], print)
        assert described(frame).number > 0
    with RunStore("chunks") as store:
        frames, *_ = Search([explore], (0.5, 1.0), 1, 5.0).carry_out(store, before, [cluster()], print).counts
        assert frames > 1


class Explorer:
    """One that does not say what it is, as most objects do not."""

    def __call__(self, atoms, limit):
        return Relaxation(steps=30)(atoms, limit)


@pytest.mark.usefixtures("_first_run_done")
def test_an_explorer_is_the_same_one_the_next_time():
    """It lies elsewhere in memory then."""
    first, second = Explorer(), Explorer()
    before = run(explore=first, k=2)
    again = run(explore=second, k=2)
    assert again == before


def test_a_relaxation_names_its_optimizer_where_that_is_not_the_default():
    assert repr(Relaxation()) == "Relaxation(fmax=0.05, steps=200, maxstep=0.04)"
    assert repr(Relaxation(optimizer=FIRE)) == "Relaxation(fmax=0.05, steps=200, maxstep=0.04, optimizer=FIRE)"


def test_what_is_held_fixed_stays_where_it_is():
    target, seen = cluster(), []
    target.set_constraint(FixAtoms([0, 5]))

    def explore(atoms, limit):
        seen.extend(Relaxation(steps=10)(atoms, limit))
        return seen

    run(target=target, explore=explore, k=2)
    moved = np.linalg.norm(seen[-1].positions - target.positions, axis=1)
    assert moved[[0, 5]].max() == 0.0 and np.delete(moved, [0, 5]).min() > 1e-3


@pytest.mark.parametrize("optimizer", [LBFGS, FIRE])
def test_relaxation_takes_no_longer_steps_than_it_may(optimizer):
    atoms = cluster()
    atoms.calc = EMT()
    frames = Relaxation(fmax=0.05, steps=30, maxstep=0.03, optimizer=optimizer)(atoms, 1.0)
    moved = [np.linalg.norm(b.positions - a.positions, axis=1).max() for a, b in itertools.pairwise(frames)]
    assert len(frames) > 5 and max(moved) <= 0.03 + 1e-9


def test_errors_come_before_any_work():
    for changes, message in [
        ({"rounds": -1}, "rounds is -1"),
        ({"k": 0}, "k is 0"),
        ({"band": (1.5, 1.0)}, r"band is \(1.5, 1.0\): give two multiples"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(**changes)
    assert not Path("al-training").exists()
