"""Refinement with the robust method: last frames of relaxation and dynamics become targets, and are tested."""

import io
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.emt import EMT
from small_runs import CALC_TEXT, cells, pt55

from amp.nft.activelearner import NFT
from amp.nft.calculator import EnsembleCalculator
from amp.nft.errors import InputError, RunStoreError
from amp.nft.refinement import Dynamics, Relaxation, refine
from amp.nft.report import report
from amp.nft.run import read_status, show
from amp.nft.run.rounds import read_rounds

pytestmark = pytest.mark.filterwarnings("ignore:.*outside the range of the training set")

EXPLORERS = (Relaxation(steps=20), Dynamics(steps=20, interval=5, temperature=900.0))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def counted(directory, log):
    log.append(directory)
    return EMT()


def cheap(directory):
    return EMT()


def refined(parent=None, **changes):
    al = NFT(method="robust", stop_delta=1e-6, max_iterations=1, log=os.devnull)
    settings = {
        "rounds": 1, "k": 4, "explore": EXPLORERS, "limit": None, "band": (0.5, 1.0), "n": 3,
        "calc_text": CALC_TEXT, "start_command": "python run.py",
        "cutoff": 6.0, "test_labels": 3, "larger_labels": 0,
    }  # fmt: skip
    return refine(al, None, pt55(), parent_calc=parent or EMT(), **settings | changes)


def files():
    return {path.name: path.read_bytes() for path in [*Path().glob("*.ensemble"), *Path().glob("*-training/saved-info/*.traj")]}


def trained(label):
    lines = Path(f"{label}-training/saved-info/journal.jsonl").read_text().splitlines()
    return next(event["atoms"] for event in map(json.loads, lines) if event["event"] == "begun")


def test_last_frames_become_targets_and_keep_the_labels_of_before():
    calls = []
    before, after = refined(partial(counted, log=calls))
    assert [frame.explorer.split("(")[0] for frame in after.frames] == ["Relaxation", "Dynamics"]
    assert all(frame.beyond and len(frame.atoms) for frame in after.frames) and after.chunks == 4
    assert after.history[0].n_chunks == before.history[-1].n_chunks + 3 + 4  # labels of the first test are trained
    assert len(calls) == before.history[-1].n_chunks + 3 + 4 + 3
    n = len(pt55())
    numbers = [len(frame.atoms) for frame in after.frames]
    assert sorted(atom // n for atom in trained("al-refined-1") if atom >= n) == [1] * numbers[0] + [2] * numbers[1]
    assert (numbers[0] < numbers[1]) == (after.frames[0].delta < after.frames[1].delta) or numbers == [2, 2]
    assert before.verdict.n_test == after.verdict.n_test == 3
    assert "tested on random atoms of the target alone" in str(before)
    assert "Relaxation" in str(after) and "tested on random atoms of the target and 2 frames" in str(after)
    found = read_rounds(Path("al-refined-1-training"))
    assert [one.n_frames for one in found] == [0, 2] and found[1].frames == after.frames and found[1].outcome == after.outcome
    np.testing.assert_allclose(found[1].deltas, after.history[0].structures)
    assert after.outcome.startswith("Not converged: trained once") and "2 of 2 explorations pass the limit" in after.end


def test_the_report_and_the_status_show_the_rounds():
    before, after = refined()
    verdict = report("al-refined-1-training")
    assert after.outcome in next(reason for reason in verdict.reasons if "Round 1" in reason) and "rounds=2" in verdict.advice
    text = Path("report.html").read_text(encoding="utf-8")
    assert all(f"Round 1, {frame.name}" in text for frame in after.frames) and "al-refined-1 (this report)" in text
    screen = io.StringIO()
    show(read_status("al-refined-1-training"), screen)
    shown = " ".join(screen.getvalue().split())
    assert "round 1:" in shown and "4 labels" in shown and "max_iterations" not in shown
    assert any("al-refined-1-training" in reason for reason in report("al-training").reasons) and before.end == ""


def test_paths_that_end_at_their_start_are_one_target():
    _, after = refined(limit=1e-3)
    assert len(after.frames) == 1 and after.frames[0].number == 0 and after.frames[0].beyond
    assert len(after.frames[0].atoms) == after.chunks == 4


def test_errors_off_the_target_decrease():
    rounds = refined(rounds=3, k=8, test_labels=0)
    errors = []
    for one in (rounds[0], rounds[-1]):
        atoms = pt55()
        atoms.calc = EnsembleCalculator(rounds[0].ensemble)
        frame = EXPLORERS[1](atoms, np.inf)[-1]
        true, found = frame.copy(), frame.copy()
        true.calc, found.calc = EMT(), EnsembleCalculator(one.ensemble)
        errors.append(np.linalg.norm(true.get_forces() - found.get_forces(), axis=1).mean())
    assert errors[1] < errors[0]


def test_it_goes_on_where_it_was_and_does_nothing_twice():
    calls = []
    parent = partial(counted, log=calls)
    refined(parent, rounds=0)
    refined(parent, rounds=1)
    done, results = len(calls), files()
    again = refined(parent, rounds=1)
    assert len(calls) == done and files() == results and len(again) == 2
    with pytest.raises(RunStoreError, match=r"k: was 4, is 5"):
        refined(parent, rounds=1, k=5)


def test_it_ends_with_a_test_on_the_frames_where_no_exploration_passes_the_limit():
    rounds = refined(limit=1e3, rounds=3)
    assert len(rounds) == 2 and rounds[1].chunks == 0 and rounds[1].exploration[1] == 0
    assert not any(frame.beyond for frame in rounds[1].frames) and rounds[1].verdict.n_test == 3
    assert "ran through" in str(rounds[1])


def test_corrected_labels_are_inherited_with_their_judgement():
    rounds = refined(correction=cheap, cutoff=4.5)
    events = [json.loads(line)["event"] for line in Path("al-refined-1-training/saved-info/journal.jsonl").read_text().splitlines()]
    assert events.count("gate") == 1 and events.count("larger-label") == 0 and events.count("cheap-target") == 3
    assert events.count("label") == events.count("cheap-label") == rounds[1].history[0].n_chunks + 3


def test_labels_of_another_parent_are_not_inherited():
    refined(rounds=0)
    for name in ("al.ensemble", "al-training"):
        assert Path(name).exists()
    from ase.calculators.lj import LennardJones

    with pytest.raises(RunStoreError, match="labels by another parent"):
        refined(LennardJones(sigma=2.3, epsilon=0.4))


def test_errors_come_before_any_work():
    with pytest.raises(ValueError, match="limit is -1"):
        refined(limit=-1)
    with pytest.raises(InputError, match="limit is for refinements whose frames become targets"):
        refine(NFT(log=os.devnull), cells(), pt55(), parent_calc=EMT(), limit=0.1)
    with pytest.raises(InputError, match="images is None"):
        refine(NFT(log=os.devnull), None, pt55(), parent_calc=EMT())
    assert not list(Path().iterdir())
