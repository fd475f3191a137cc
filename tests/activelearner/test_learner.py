"""The protocol as a user runs it, small: EMT as parent, a few members, the batched trainer."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from amp.stats.bootstrap import BootStrap
from amp.utilities import Logger, get_hash
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Octahedron
from ase.constraints import FixAtoms
from ase.io import read, write
from small_runs import CALC_TEXT, Fragile, N, cells, cluster, results, run

from amp.nft.amp_io import read_texts, without_card
from amp.nft.run.store import RunStore, RunStoreError
from amp.nft.system import packages


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_leaves_what_it_promises():
    target, images, parent = cluster(), cells(), EMT()
    target.set_constraint(FixAtoms([0]))
    al, returned = run(target_image=target, images=images, parent_calc=parent)
    assert returned is False
    assert al.stop_reason.name == "max_iterations" and "max_iterations = 2" in str(al.stop_reason)
    assert [entry.iteration for entry in al.history] == [0, 1, 2]
    assert all(len(entry.reports) == N for entry in al.history)
    assert len(target.constraints) == 1 and target.calc is None and parent.results == {}

    info = Path("al-training/saved-info")
    deltas = np.load(info / "deltas.npy")
    assert deltas.shape == (3, len(target)) and deltas.dtype == float
    np.testing.assert_allclose(deltas.max(axis=1), [entry.delta_max for entry in al.history])
    chunks = [read(info / f"atomic_chunks_{k}.traj", ":") for k in range(2)]
    assert [len(some) for some in chunks] == [entry.n_chunks for entry in al.history[1:]]
    assert len(read(info / "atomic_chunks.traj", ":")) == len(chunks[1])
    for k in range(2):
        chosen = np.load(info / f"indices_{k}.npy")
        least = deltas[k][chosen].min()
        assert (np.delete(deltas[k], chosen) <= least).all()
        assert set(chosen) <= {chunk.info["target_atom"] for chunk in chunks[k]}
    for member in range(N):
        directory = Path("al-training", str(member))
        assert {"run.py", "amp.amp", "converged", "amp-log.txt"} <= set(os.listdir(directory))
        assert (directory / "amp.amp").read_text() == json.loads(Path("al.ensemble").read_text())[member]
        sample = read(f"al-training/training-images/{member}.traj", ":")
        assert len(sample) == len(images) + sum(len(np.load(info / f"indices_{k}.npy")) for k in range(2))
    for chunk in chunks[1]:
        free = chunk.copy()
        free.calc = EMT()
        np.testing.assert_allclose(chunk.get_forces(), free.get_forces(), atol=1e-12)


def test_plain_amp_loads_the_ensembles_and_agrees():
    al, _ = run(max_iterations=1)
    best = min(al.history, key=lambda entry: entry.delta_max).iteration
    assert [without_card(text) for text in read_texts("best.al.ensemble")] == read_texts(f"al.{best}.ensemble")
    assert Path("al.ensemble").read_bytes() == Path("al.1.ensemble").read_bytes()
    ensemble = BootStrap(load="al.1.ensemble", log=Logger(None), label="scratch")
    forces_mni = ensemble.get_forces(cluster(), output=[0.5, "e"])[-1]
    deviations = forces_mni - forces_mni.mean(axis=0)
    delta = 2.58 * np.sqrt((deviations**2).sum(axis=(0, 2)) / (N - 1))
    np.testing.assert_allclose(np.load("al-training/saved-info/deltas.npy")[1], delta, atol=1e-6)


def test_the_same_seed_gives_the_same_run_and_another_another():
    run()
    first = results()
    run(label="again")
    assert Path("best.again.ensemble").read_bytes() == first["best.al.ensemble"]
    run(label="other", seed=1)
    assert Path("best.other.ensemble").read_bytes() != first["best.al.ensemble"]


def test_stop_criteria():
    al, returned = run(stop_delta=1e6)
    assert returned is True
    assert al.stop_reason.name == "stop_delta" and al.stop_reason.converged and len(al.history) == 1
    al, returned = run(label="b", threshold=1e5)
    assert returned is False
    assert al.stop_reason.name == "threshold" and "not above threshold = 100000" in str(al.stop_reason)


def test_going_on_with_more_iterations_equals_doing_them_at_once():
    run(max_iterations=2)
    whole = results()
    os.mkdir("parts")
    os.chdir("parts")
    for max_iterations in (0, 1, 2, 2):
        al, _ = run(max_iterations=max_iterations)
        assert len(al.history) == max_iterations + 1
    assert results() == whole


def _journal():
    path = Path("al-training/saved-info/journal.jsonl")
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("looser", [{"max_iterations": 1}, {"stop_delta": 100.0}])
def test_looser_criteria_keep_finished_work(looser):
    al, _ = run(max_iterations=3)
    before, iterations = results(), len(al.history)
    again, _ = run(**looser)
    assert len(again.history) == iterations
    assert results() == before


def test_other_settings_are_refused_with_the_difference():
    run(max_iterations=0)
    before = _journal()
    with pytest.raises(RunStoreError, match=r"contains a run with other settings:\n  cutoff: was 5.0, is 4.8") as error:
        run(cutoff=4.8)
    assert "another label=" in str(error.value)
    with pytest.raises(RunStoreError, match="calc_text") as error:
        run(calc_text=CALC_TEXT.replace("maxiter=", "maxiter=1"))
    shown = [line.strip() for line in str(error.value).splitlines() if line.startswith("    ")]
    assert len(shown) == 2 and shown[0][0] == "-" and shown[1][0] == "+" and "maxiter=1" in shown[1]
    with pytest.raises(RunStoreError, match=r"target_image\[0\] \(Pt4\): was Pt13, is Pt4"):
        run(target_image=cells()[0])
    assert _journal() == before


def test_other_labels_of_the_same_images_are_refused():
    run(max_iterations=0)
    images = cells()
    images[1].calc = SinglePointCalculator(images[1], energy=images[1].get_potential_energy(), forces=1.1 * images[1].get_forces())
    with pytest.raises(RunStoreError, match=r"images\[1\] \(Pt4\): force of atom 0 was \[.*\], is \[.*\] eV/Å"):
        run(images=images)


def test_the_journal_says_under_what_circumstances_it_was_written():
    for max_iterations in (np.int64(0), 1):  # numbers may be NumPy's
        run(n=np.int64(N), stop_delta=np.float32(0.125), max_iterations=max_iterations)
    starts = [event for line in _journal() if (event := json.loads(line))["event"] == "start"]
    assert [start["settings"]["max_iterations"] for start in starts] == [0, 1]
    assert starts[0]["settings"]["stop_delta"] == 0.125
    assert starts[0]["process"]["pid"] == os.getpid()
    assert starts[0]["versions"]["amp-atomistics"] == "1.0.1"
    assert read(f"al-training/saved-info/content/{starts[0]['targets'][0]}") == cluster()


def test_a_run_resumes_with_other_versions_and_names_them(monkeypatch):
    run(max_iterations=0, log="log.txt")
    before, installed = results(), packages.version
    monkeypatch.setattr(packages, "version", lambda name: "1.2.3" if name == "numpy" else installed(name))
    run(max_iterations=0, log="log.txt")
    line = f"Versions changed since the last start: numpy {installed('numpy')} is now 1.2.3. Finished work is kept"
    assert Path("log.txt").read_text().count(line) == 1 and results() == before


def test_another_parent_is_refused():
    run(max_iterations=1)
    with pytest.raises(RunStoreError, match=r"calculator: was 'ase.calculators.emt.EMT', is 'small_runs.Fragile'"):
        run(max_iterations=1, parent_calc=Fragile())


def test_two_drivers_cannot_share_a_directory():
    run(max_iterations=0)
    with RunStore("al-training/saved-info"), pytest.raises(RunStoreError, match=f"in use by process {os.getpid()}"):
        run()


def test_the_next_most_uncertain_atom_replaces_one_whose_label_fails():
    run(max_iterations=1)
    chosen = np.load("al-training/saved-info/indices_0.npy")
    delta = np.load("al-training/saved-info/deltas.npy")[0]
    parent = Fragile()
    parent.fails = {int(chosen[0])}
    run(label="b", max_iterations=1, parent_calc=parent)
    labelled = {chunk.info["target_atom"] for chunk in read("b-training/saved-info/atomic_chunks.traj", ":")}
    next_best = next(atom for atom in np.argsort(-delta) if atom not in chosen)
    assert labelled == set(chosen[1:]) | {next_best}
    failures = [json.loads(line) for line in Path("b-training/saved-info/journal.jsonl").read_text().splitlines()]
    failures = [event for event in failures if event["event"] == "label-failed"]
    assert [(event["atom"], event["message"]) for event in failures] == [(chosen[0], "SCF did not converge")]


def test_if_every_label_fails_the_run_says_so_and_goes_on_later():
    parent = Fragile()
    parent.fails = "all"
    with pytest.raises(RuntimeError, match=r"could be labelled.*SCF did not converge[\s\S]*finished work is kept"):
        run(max_iterations=1, parent_calc=parent, check_parent=False)
    al, _ = run(max_iterations=1)
    assert len(al.history) == 2


def test_load_starts_from_another_ensemble():
    run(max_iterations=1)
    al, _ = run(label="b", load="best.al.ensemble", max_iterations=0)
    assert len(al.history) == 1
    with pytest.raises(ValueError, match="contains 3 members, but n is 2"):
        run(label="c", load="best.al.ensemble", n=2)
    other = CALC_TEXT.replace("hiddenlayers=(3,)", "hiddenlayers=(4,)")
    with pytest.raises(ValueError, match=r"was trained with hiddenlayers .*make them the same"):
        run(label="c", load="best.al.ensemble", calc_text=other)
    assert not os.path.exists("c-training")


def test_settings_may_change_while_nothing_is_trained():
    with pytest.raises(ValueError, match=r"no symmetry functions|leaves out|Gs"):
        run(calc_text=CALC_TEXT.replace("g2x(['Pt'])", "g2x(['Cu'])"))
    run(max_iterations=0)


def test_init_nft_ids_train_one_force_only():
    images = cells()
    run(images=images, init_nft_ids=[(get_hash(images[0]), 2)], max_iterations=0)
    plain = Path("al.0.ensemble").read_bytes()
    run(images=images, label="b", max_iterations=0)
    assert Path("b.0.ensemble").read_bytes() != plain


def test_a_small_chunk_cutoff_warns_of_the_range_of_the_forces():
    with pytest.warns(UserWarning, match=r"smaller than the fingerprint cutoff Rc = 4.5 Å[\s\S]*2·Rc = 9.0 Å"):
        run(cutoff=4.0, max_iterations=0)


def test_distinct_spends_no_label_on_a_duplicate_environment():
    """A cluster of ideal shape: atoms that its symmetry turns into each other have the same surroundings."""
    octahedron = Octahedron("Pt", 3, cutoff=1, latticeconstant=3.99)
    ideal = Atoms(octahedron.symbols, octahedron.positions)
    distances = np.sort(ideal.get_all_distances(), axis=1).round(6)
    kinds_of_atom = np.unique(distances, axis=0, return_inverse=True)[1].ravel()
    settings = {"target_image": ideal, "threshold": -0.5, "max_iterations": 2}
    run(**settings)
    twins = len(read("al-training/saved-info/atomic_chunks.traj", ":"))
    run(**settings, label="b", distinct=1e-3)
    chunks = read("b-training/saved-info/atomic_chunks.traj", ":")
    kinds = [kinds_of_atom[chunk.info["target_atom"]] for chunk in chunks]
    assert len(kinds) == len(set(kinds)) < twins


def test_a_run_with_distinct_goes_on_as_it_would_have_and_with_no_other():
    run(distinct=0.5, threshold=-0.5)
    whole = results()
    os.mkdir("parts")
    os.chdir("parts")
    for max_iterations in (0, 1, 2):
        run(distinct=0.5, threshold=-0.5, max_iterations=max_iterations)
    assert results() == whole
    with pytest.raises(RunStoreError, match=r"distinct: was 0.5, is None"):
        run(threshold=-0.5)
    with pytest.raises(ValueError, match="distinct is -1: it must be above 0"):
        run(distinct=-1, label="c")


@pytest.mark.slow
def test_the_jobs_trainer_runs_the_same_protocol():
    write("images.traj", cells())
    write("target.traj", cluster())
    text = CALC_TEXT.replace("maxiter=60", "maxiter=3")
    al, returned = run(images="images.traj", target_image="target.traj", calc_text=text, trainer="jobs", max_iterations=1)
    assert returned is False and len(al.history) == 2
    assert {entry.trainer for entry in al.history} == {"jobs"}
    assert len(BootStrap(load="best.al.ensemble", log=Logger(None)).ensemble) == N


def test_job_scripts_started_elsewhere_find_this_package(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent("import amp.nft.activelearner as a; print(a.__file__)"))
    out = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert Path(out.strip()).name == "__init__.py"


def test_each_retraining_has_a_new_chunk_while_atoms_are_left():
    """The most uncertain atom may be in the training set already; training again on the same set would teach nothing."""
    run(threshold=None, max_iterations=8, steps_not_improved=20)
    added = [set(event["atoms"]) for line in _journal() if (event := json.loads(line))["event"] == "added"]
    known = [set().union(*added[:k]) for k in range(len(added))]
    assert len(added) == 8 and all(new - old for new, old in zip(added, known, strict=True))
    assert any(len(new) > 1 for new in added)  # else no atom was chosen twice, and this tests nothing
