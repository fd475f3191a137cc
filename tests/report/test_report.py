"""The report on a run: what it says, that it says it of the files' contents, and that its page needs nothing else."""

import base64
import hashlib
import json
import os
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import forked
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import read, write
from journals import begin
from small_runs import Fragile, cells, cluster, run

from amp.nft.calculator import EnsembleCalculator
from amp.nft.errors import InputError
from amp.nft.report import check, judge, read_run, report
from amp.nft.report.figures import draw_charts
from amp.nft.report.scripts import _sphere
from amp.nft.report.truth import read_truth
from amp.nft.report.view3d import most_uncertain, scene
from amp.nft.run import verdict
from amp.nft.run.state import Added
from amp.nft.run.store import FORMAT, RunStore, RunStoreError
from amp.nft.system.liveness import Heartbeat

FORCE = 1e-8  # eV/Å: two ways to the same prediction


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the directory of a run that ended after two retrainings."""
    directory = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        run(max_iterations=2)
    return directory


def truth():
    target = cluster()
    target.calc = EMT()
    target.get_forces()
    return target


class Page(HTMLParser):
    """External requests of a page, its ids, and the tags that are left open."""

    def __init__(self, text):
        super().__init__()
        self.wanted, self.ids, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.append(found.get("id"))
        self.wanted += [found[name] for name in ("src", "href") if name in found and not found[name].startswith(("#", "data:"))]
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(finished, tmp_path):
    verdict = report(finished, tmp_path / "report.html", figures=tmp_path / "figures", truth=truth())
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == [] and page.wanted == []
    styles = "".join(re.findall(r"<style.*?</style>", text, re.DOTALL))
    assert "@import" not in styles and not re.search(r"url\((?!#)", styles)
    assert "prefers-color-scheme: dark" in styles
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    charts = {"uncertainty", "distribution", "learning", "forces", "reliability", "energies", "labels", "residuals", "times"}
    assert drawn == charts | {"target", "sources"}
    assert {f"figure-{name}" for name in charts} | {"scene-0", "verdict", "test", "environments", "provenance"} <= set(page.ids)
    assert verdict.headline.split(":")[0] in text
    assert all((tmp_path / "figures" / f"{name}.svg").stat().st_size > 1000 for name in drawn)


def test_figures_show_what_is_in_the_files(finished):
    of = read_run(finished)
    deltas = np.load(finished / "al-training/saved-info/deltas.npy")
    charts = {chart.name: chart for chart in draw_charts(of, check(of))}
    largest, mean = charts["uncertainty"].panels[0].series
    np.testing.assert_allclose(largest.y, deltas.max(axis=1))
    np.testing.assert_allclose(mean.y, deltas.mean(axis=1))
    n_chunks = [len(read(path, ":")) for path in sorted(finished.glob("al-training/saved-info/atomic_chunks_*.traj"))]
    np.testing.assert_array_equal(charts["learning"].panels[0].series[0].x, [0, *n_chunks])
    known, predicted = charts["energies"].panels[0].series[0].x, charts["energies"].panels[0].series[0].y
    images = cells()
    np.testing.assert_allclose(known, [image.get_potential_energy() / len(image) for image in images])
    for image, energy in zip(images, predicted, strict=True):
        image.calc = EnsembleCalculator(finished / "best.al.ensemble")
        assert image.get_potential_energy() / len(image) == pytest.approx(energy, abs=FORCE)


@pytest.mark.filterwarnings("ignore:.*outside the range")
def test_labels_are_predicted_by_the_ensemble_that_had_not_seen_them(finished, monkeypatch):
    monkeypatch.chdir(finished)
    found = check(read_run("."), np.array(truth().get_forces()))
    chunks = [read(f"al-training/saved-info/atomic_chunks_{k}.traj", ":") for k in range(2)]
    news = [chunks[0], chunks[1][len(chunks[0]) :]]
    assert len(found.unseen) == sum(map(len, news))
    for k, new in enumerate(news):
        part = found.unseen.at(k)
        np.testing.assert_allclose(part.known, [chunk.get_forces()[0] for chunk in new])
        for chunk, force, delta in zip(new, part.predicted, part.delta, strict=True):
            chunk.calc = EnsembleCalculator(f"al.{k}.ensemble")
            np.testing.assert_allclose(chunk.get_forces()[0], force, atol=FORCE)
            np.testing.assert_allclose(chunk.calc.results["forces_uncertainty"][0], delta, atol=FORCE)
    np.testing.assert_allclose(found.target.delta, read_run(".").best.delta, atol=FORCE)
    errors = np.linalg.norm(found.target.predicted - truth().get_forces(), axis=1)
    np.testing.assert_allclose(found.target.errors, errors)
    assert found.target.coverage == np.mean(errors <= found.target.delta)


def having(of, deltas, converged=True, **settings):
    """Return a run whose iterations had these largest uncertainties."""
    steps = []
    for k, delta in enumerate(deltas):
        reports = [replace(report, converged=converged) for report in of.steps[0].reports]
        steps.append(replace(of.steps[0], iteration=k, delta=np.full_like(of.steps[0].delta, delta), reports=reports))
    state = of.status.state
    last = replace(state.starts[-1], settings={**state.starts[-1].settings, "stop_delta": 0.02, "max_iterations": 9, **settings})
    return replace(of, steps=steps, status=replace(of.status, state=replace(state, starts=(*state.starts[:-1], last))))


@pytest.mark.parametrize(
    ("deltas", "converged", "grade", "advice"),
    [
        ([5.0, 0.5, 0.1, 0.015], True, "none", "Test it: rerun with test_labels="),
        ([5.0, 0.5, 0.1, 0.015], True, "none", "EnsembleCalculator"),
        ([5.0, 0.5, 0.1, 0.015], False, "none", "more fingerprints"),
        ([5.0, 2.0, 1.0, 0.31], True, "none", "max_iterations=18"),
        ([5.0, 0.031, 0.03, 0.032, 0.033], True, "none", "tighten the criteria"),
        ([5.0, 0.31, 0.30, 0.32, 0.33], False, "none", "more fingerprints or wider hidden layers"),
        ([5.0, 0.1, 2.0, 0.9], True, "none", "steps_not_improved"),
        ([5.0, 7.0], True, "none", "Too early to say"),
        ([1e-15, 1e-15], True, "bad", "Rattle"),
    ],
)
def test_the_verdict_follows_from_the_uncertainty_and_the_members(finished, deltas, converged, grade, advice):
    of = read_run(finished)
    nothing = replace(check(replace(of, steps=[])), why_not="")
    verdict = judge(having(of, deltas, converged), nothing)
    assert (verdict.grade, advice in verdict.advice) == (grade, True), verdict
    told = any("hardly separates good atoms" in reason for reason in verdict.reasons)
    assert told == (converged and min(deltas) <= 5 * of.settings["criteria"]["force_rmse"])


def test_a_loose_stop_delta_is_not_taken_for_the_size_of_the_criteria(finished):
    of = read_run(finished)
    verdict = judge(having(of, [5.0, 0.5], stop_delta=1.0), replace(check(replace(of, steps=[])), why_not=""))
    left = min(of.status.state.untrained, 10)
    assert (
        0 < left <= len(truth()) and verdict.headline == f"UNKNOWN: converged by its criterion; not tested: rerun with test_labels={left}"
    )
    assert any("comes from environments outside the training set" in reason for reason in verdict.reasons)


def test_uncertainty_that_does_not_cover_the_labels_is_not_trusted(finished):
    of = read_run(finished)
    checks = check(of)
    n = len(checks.unseen)
    assert n >= 5
    blind = replace(checks, unseen=replace(checks.unseen, delta=np.zeros(n), iteration=np.zeros(n, dtype=int)))
    verdict = judge(having(of, [5.0, 0.5, 0.015]), blind)
    assert any("only 0% of the last labels were within" in reason for reason in verdict.reasons)


def test_random_labels_of_the_run_give_the_headline_and_its_color(finished):
    of = read_run(finished)
    nothing = replace(check(replace(of, steps=[])), why_not="")
    for error, grade in ((0.001, "good"), (1.0, "caution")):
        found = verdict.judge(converged=True, aim=0.1, errors=verdict.RandomErrors([error] * 10, [0.1] * 10, [0.1] * 50))
        run_with_verdict = having(of, [5.0, 0.015])
        state = replace(run_with_verdict.status.state, verdict=found.as_dict())
        shown = judge(replace(run_with_verdict, status=replace(run_with_verdict.status, state=state)), nothing)
        assert (shown.grade, shown.headline) == (grade, str(found))
        assert ("trust" in shown.headline) == (grade == "good")


@pytest.fixture
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_here")
def test_a_run_without_a_finished_iteration_has_a_report_too():
    with RunStore("al-training/saved-info") as store:
        store.append("run", format=FORMAT, settings={"n": 3})
    assert report(".").grade == "none"
    assert "no iteration is finished" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("_here")
def test_a_run_on_another_machine_that_stopped_showing_life_is_called_interrupted():
    with RunStore("al-training/saved-info") as store:
        begin(store, machine="node07 pid:[1]", pid=7)
    for age, said in ((5.0, "Wait"), (600.0, "Run the script or command again")):
        beat = Path("al-training/saved-info/progress.json")
        Heartbeat(beat).beat(iteration=0, members=[])
        os.utime(beat, (time.time() - age,) * 2)
        assert report(".").advice.startswith(said)


@pytest.mark.usefixtures("_here")
def test_failed_labels_and_several_targets_are_in_the_report():
    parent = Fragile()
    parent.fails = {0, 1, 2, 3, 4, 5}
    slab = Atoms("Pt3", [[0, 0, 0], [2.6, 0, 0], [0, 2.7, 0.3]], cell=[12, 12, 12], pbc=[True, True, False])
    run(target_image=[cluster(), slab], parent_calc=parent, max_iterations=1, label_retries=0, threshold=-0.5)
    verdict = report("al-training")
    text = Path("report.html").read_text(encoding="utf-8")
    assert "SCF did not converge" in text and "labels failed; the next" in " ".join(verdict.reasons)
    assert {"scene-0", "scene-1"} <= set(Page(text).ids)


@pytest.mark.usefixtures("_here")
def test_three_atoms_are_enough():
    trimer = Atoms("Pt3", [[0, 0, 0], [2.6, 0, 0], [0, 2.7, 0.3]])
    run(target_image=trimer, max_iterations=1, threshold=None)
    report(".")
    assert "Pt3, drag to rotate" in Path("report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("times", "least"), [(1, 0.8), (2, 0.95)])
def test_spheres_are_closed_and_their_faces_look_outward(times, least):
    points, faces = _sphere(times)
    edges = {tuple(edge) for face in faces for edge in (face[:2], face[1:], face[[2, 0]])}
    assert all((b, a) in edges for a, b in edges) and len(edges) == 3 * len(faces)
    volume = np.einsum("ij,ij->", np.cross(points[faces[:, 0]], points[faces[:, 1]]), points[faces[:, 2]]) / 6
    assert least < volume / (4 / 3 * np.pi) < 1.0


def test_a_long_run_has_a_view_too(finished):
    of = read_run(finished)
    state = of.status.state
    added = [replace(state.iterations[0], added=Added((), (k % len(of.best.delta),))) for k in range(40)]
    long = replace(of, status=replace(of.status, state=replace(state, iterations=tuple(added))))
    assert np.frombuffer(base64.b64decode(scene(long, 0)["taken"]), "<i2").max() == len(of.best.delta) - 1
    assert "times" in {chart.name for chart in draw_charts(long, check(of))}


def test_a_structure_in_a_tall_cell_is_seen_from_further_away(finished):
    of = read_run(finished)
    slab = of.targets[0].copy()
    slab.set_cell(np.diag([12.0, 12.0, 60.0]))
    slab.pbc = (True, True, False)
    round_one, tall = (scene(replace(of, targets=[target]), 0)["distance"] for target in (of.targets[0], slab))
    assert tall > 1.5 * round_one


def test_a_view_has_the_data_of_all_atoms(finished):
    of = read_run(finished)
    json.dumps(scene(of, 0))
    data = scene(of, 0, np.arange(13.0))
    unpacked = {name: np.frombuffer(base64.b64decode(text), "<f4") for name, text in data["values"].items()}
    np.testing.assert_allclose(unpacked["uncertainty δ (eV/Å)"], of.best.delta, rtol=1e-6)
    np.testing.assert_array_equal(unpacked["true error (eV/Å)"], np.arange(13.0))
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(data["x"][2]), "<f4"), of.targets[0].positions[:, 2], rtol=1e-6)
    taken = np.frombuffer(base64.b64decode(data["taken"]), "<i2")
    assert [np.flatnonzero(taken == k).tolist() for k in range(2)] == [sorted(atoms) for atoms in of.new_atoms]
    assert [element["symbol"] for element in data["elements"]] == ["Pt"] and most_uncertain(of) == [0]


@pytest.mark.usefixtures("_here")
@pytest.mark.filterwarnings("ignore:.*outside the range")
def test_random_labels_are_predicted_in_the_target_by_the_best_ensemble():
    run(max_iterations=1, threshold=-0.7, test_labels=4, larger_labels=1)
    of = read_run(".")
    found = check(of)
    target = cluster()
    target.calc = EnsembleCalculator("best.al.ensemble")
    forces = target.get_forces()
    assert found.tested.atoms.tolist() == list(of.status.state.test)
    np.testing.assert_allclose(found.tested.predicted, forces[found.tested.atoms], atol=FORCE)
    bound = of.verdict.sentence
    assert f"{np.sqrt(8 / (3 * np.pi)) * np.sqrt(np.mean(found.tested.errors**2)):.3g}" in bound or of.verdict.label_error > 0
    assert len(found.differences) == 1 and list(found.differences) == [of.status.state.test[0]]
    report(".")
    text = Path("report.html").read_text(encoding="utf-8")
    assert "4 labels that no ensemble was trained on" in text and "difference in a larger chunk" in text


@pytest.mark.usefixtures("_here")
@pytest.mark.filterwarnings("ignore:.*outside the range")
def test_a_chunk_of_one_atom_one_label_and_one_iteration_are_enough():
    lone = Atoms("Pt4", [[0, 0, 0], [2.6, 0, 0], [0, 2.7, 0.3], [20, 0, 0]])
    run(target_image=lone, max_iterations=1, threshold=-0.7, test_labels=3)  # one label, and a test with the lone atom
    found = report(".")
    assert found.grade in ("caution", "good")
    text = Path("report.html").read_text(encoding="utf-8")
    assert "Pt, 0 neighbours" in text and "One label says little" in text and "labels bound the error loosely" in text
    run(target_image=lone, max_iterations=0, threshold=None, label="once")
    report("once-training", "once.html")
    assert "figure-learning" not in Page(Path("once.html").read_text(encoding="utf-8")).ids


@pytest.mark.usefixtures("_here")
def test_notes_of_a_start_and_hashes_are_provenance():
    run(max_iterations=0, notes={"input_file": "[target]\nfile = 'a < b.xyz'"})
    report(".")
    text = Path("report.html").read_text(encoding="utf-8")
    assert "file = &#x27;a &lt; b.xyz&#x27;" in text
    assert hashlib.sha256(Path("best.al.ensemble").read_bytes()).hexdigest() in text


def test_what_is_wrong_is_said(finished, tmp_path):
    of = read_run(finished)
    with pytest.raises(ValueError, match="truth is not the run's target"):
        read_truth(cells(), of)
    with pytest.raises(ValueError, match="truth carries no forces"):
        read_truth(cluster(), of)
    named = cluster()
    named.arrays["REF_forces"] = EMT().get_property("forces", named)
    with pytest.raises(InputError, match=r"truth carries no forces .* Give forces_key='REF_forces'"):
        read_truth(named, of)
    with pytest.raises(InputError, match="forces_key is 'REF_force', which is not in its arrays"):
        read_truth(named, of, "REF_force")
    np.testing.assert_array_equal(read_truth(named, of, "REF_forces"), named.arrays["REF_forces"])
    with pytest.raises(RunStoreError, match="contains no run"):
        report(tmp_path)
    code = "import sys; from amp.nft.cli import main; sys.exit(main())"
    done = forked.run(code, "report", "nowhere", cwd=tmp_path)
    assert done.returncode == 1 and "nowhere does not exist" in done.stderr and not os.listdir(tmp_path)
    write(tmp_path / "truth.traj", truth())
    done = forked.run(code, "report", finished, "--truth", "truth.traj", check=True, cwd=tmp_path)
    assert "What next: " in done.stdout and (tmp_path / "report.html").exists()
