"""Learning from halts without LAMMPS: choice of environments, bounds, interruptions at each stage, errors before work."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from small_runs import CALC_TEXT, cells, cluster

from amp.nft.activelearner import NFT
from amp.nft.activelearner.relearn import Lesson, _choose, _spread, teaching
from amp.nft.activelearner.relearn_frames import Judged, RelearnBounds, judged
from amp.nft.amp_io import read_ensemble, read_texts, write_ensemble
from amp.nft.errors import InputError, RunStoreError
from amp.nft.records import Checkpoint, Halt
from amp.nft.run.store import RunRecord

BEST = Path("best.al.ensemble")
LIMIT = 0.5
WHOLE = b"LammpS RestartT\0" + b"atoms" * 9 + b"LammpS RestartT\0"


class Count:
    """Labels so far, and the one at which Ctrl-C is pressed."""

    calls: list[str]
    stop: int | None


def parent(directory):
    """Return EMT, and note the label."""
    Count.calls.append(directory)
    if len(Count.calls) == Count.stop:
        raise KeyboardInterrupt
    return EMT()


def lesson(calls=None, stop=None, bounds=None, ensemble=BEST, **changes):
    Count.calls, Count.stop = [] if calls is None else calls, stop
    settings = {"n": 3, "calc_text": CALC_TEXT, "start_command": "python run.py", "cutoff": 5.0}
    settings |= {"parent_calc": parent} | changes
    al = NFT(stop_delta=1e-6, max_iterations=1, threshold=-0.9, log=os.devnull)
    return Lesson(al, cells(), [cluster()], "al", ensemble, bounds or RelearnBounds(k=3, delta=1e3, force=1e3), settings)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        lesson().train("al", [cluster()])
    return directory


@pytest.fixture(autouse=True)
def _in_a_copy(first_run, tmp_path, monkeypatch):
    shutil.copytree(first_run, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def halt(step=10, stdev=0.2):
    atoms = cluster()
    atoms.rattle(stdev, seed=step)
    earlier = cluster()
    earlier.rattle(stdev, seed=step + 1)
    restart = Path(f"al-training/relearn/halt-{step}.restart")
    restart.write_bytes(WHOLE)
    return Halt(step, LIMIT, atoms, [earlier], Checkpoint(str(restart), 1, 0, 100))


def labels():
    """Return the content of all labels of the rounds, which a repeated label would change."""
    found = {}
    for path in sorted(Path().glob("al-relearned-*-training")):
        events = RunRecord(path / "saved-info").events
        found[path.name] = [(event["atom"], event["file"]) for event in events if event["event"] == "label"]
    return found


def whole(calls):
    with teaching(lesson(calls), "deck", []) as teacher:
        assert teacher.begin()[1] is None
        teacher.learn(halt(10))
        teacher.learn(halt(20))
        teacher.end(100)
        return teacher.rounds()


def test_each_halt_adds_labels_and_an_ensemble():
    calls = []
    rounds = whole(calls)
    assert [one.step for one in rounds] == [10, 20]
    assert len(calls) == sum(one.labels for one in rounds) == 6
    assert np.isfinite([rounds[0].after, rounds[0].delta]).all()
    assert rounds[1].ensemble == Path("best.al-relearned-2.ensemble")
    with teaching(lesson(calls), "deck", []) as teacher:
        assert teacher.finished_at == 100
    assert len(calls) == 6
    events = [event["event"] for event in RunRecord("al-training/relearn").events]
    assert events == ["run", "dynamics", "halted", "relearned", "halted", "relearned", "stopped"]


@pytest.mark.parametrize("stop", [1, 2, 4, 6])
def test_interrupted_labels_go_on_without_any_twice(stop, tmp_path):
    interrupted, calls = [], []
    with pytest.raises(KeyboardInterrupt):
        whole_with(interrupted, stop)
    done = {name: files for name, files in labels().items() if files}
    with teaching(lesson(calls), "deck", []) as teacher:
        _, point = teacher.begin()
        assert point.restart.endswith("halt-20.restart" if stop > 3 else "halt-10.restart")
        if len(teacher.rounds()) == 1:
            teacher.learn(halt(20))
        teacher.end(100)
    assert len(calls) + len(interrupted) - 1 == 6
    found = labels()
    assert all(found[name][: len(files)] == files for name, files in done.items())
    shutil.rmtree("al-training/relearn")
    for path in Path().glob("*relearned*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    whole([])
    assert labels() == found


def whole_with(calls, stop):
    with teaching(lesson(calls, stop), "deck", []) as teacher:
        teacher.begin()
        teacher.learn(halt(10))
        teacher.learn(halt(20))


def test_training_that_was_interrupted_is_finished_with_the_labels_that_there_are():
    calls, events = [], RunRecord("al-training/saved-info").events
    assert events[-1]["event"] == "stopped"
    whole(calls)
    journal = Path("al-training/relearn/journal.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]))  # killed before the row of the first training
    shutil.rmtree("al-relearned-2-training")
    halt(10)  # its restart file, removed at the second halt
    rows = Path("al-relearned-1-training/saved-info/journal.jsonl")
    kept = rows.read_bytes().splitlines(keepends=True)
    rows.write_bytes(b"".join(kept[: next(n for n, line in enumerate(kept) if b'"event": "trained"' in line)]))
    again = []
    with teaching(lesson(again), "deck", []) as teacher:
        teacher.begin()
        assert not again and teacher.rounds()[0].labels == 3


def test_bounds_end_the_dynamics_and_a_higher_bound_continues_it():
    calls = []
    few = RelearnBounds(k=3, labels=3, delta=1e3, force=1e3)
    with teaching(lesson(calls, bounds=few), "deck", []) as teacher:
        teacher.begin()
        assert teacher.learn(halt(10)) is not None
        assert teacher.learn(halt(20)) is None
        assert teacher.reason == "3 labels were made, and the bound is 3."
    with teaching(lesson(calls, bounds=few), "deck", []) as teacher:
        assert teacher.begin() == (None, None)
    with teaching(lesson(calls, bounds=RelearnBounds(k=3, rounds=1, delta=1e3, force=1e3)), "deck", []) as teacher:
        assert teacher.begin() == (None, None)
        assert teacher.reason == "Halt 2 is beyond the bound of 1 rounds."
    assert len(calls) == 3
    with teaching(lesson(calls), "deck", []) as teacher:
        members, point = teacher.begin()
        assert members is not None and point.restart.endswith("halt-20.restart")
    assert len(calls) == 6


@pytest.mark.parametrize("left", [b"", WHOLE[:-1], None])
def test_a_halt_without_its_whole_restart_file_is_refused_before_any_label(left):
    calls = []
    with pytest.raises(KeyboardInterrupt):
        whole_with([], 4)
    restart = Path("al-training/relearn/halt-20.restart")
    restart.unlink() if left is None else restart.write_bytes(left)
    with teaching(lesson(calls), "deck", []) as teacher:
        with pytest.raises(RunStoreError, match=r"halt-20.restart, .* is missing or incomplete: restore it, or move al-training/"):
            teacher.begin()
    assert not calls


@pytest.mark.parametrize("cut", ["a", "b", ""])
def test_the_last_whole_restart_file_of_a_run_is_taken(cut):
    whole_with([], None)
    for number, side in enumerate("ab"):
        path = Path(f"al-training/relearn/run-1-0-100-{side}.restart")
        path.write_bytes(WHOLE[:-1] if side == cut else WHOLE)
        later = Path("al-training/relearn/halt-20.restart").stat().st_mtime_ns + 1000 * (number + 1)
        os.utime(path, ns=(later, later))
    with teaching(lesson(), "deck", []) as teacher:
        assert teacher.begin()[1].restart.endswith("-a.restart" if cut == "b" else "-b.restart")


def test_restart_files_without_their_journal_are_refused():
    whole([])
    journal = Path("al-training/relearn/journal.jsonl")
    text = journal.read_bytes()
    journal.unlink()
    with pytest.raises(RunStoreError, match=r"has halt-20.restart and no journal.jsonl, .*: restore the journal, or move"):
        with teaching(lesson(), "deck", []):
            pass
    assert not journal.exists()
    journal.write_bytes(text)
    with teaching(lesson(), "deck", []) as teacher:
        assert teacher.finished_at == 100


def test_nonsense_gets_no_label():
    calls = []
    with teaching(lesson(calls), "deck", []) as teacher:
        teacher.begin()
        near = halt(10)
        near.atoms.positions[1] = near.atoms.positions[0] + [0.5, 0, 0]
        assert teacher.learn(near) is not None  # the frame before is no nonsense
        assert (teacher.rounds()[0].nonsense, teacher.rounds()[0].frames) == (1, 1)
    strict = lesson(calls, bounds=RelearnBounds(k=3, delta=1e-3))
    with teaching(strict, "deck", []) as teacher:
        teacher.begin()
        assert teacher.learn(halt(20)) is None
        assert teacher.reason == "No frame of the halt at step 20 is fit for labels."
        assert teacher.rounds()[1].nonsense == 2
    assert len(calls) == 3


def test_reasons_of_nonsense():
    models = read_ensemble(BEST)
    good = judged(models, [cluster()], RelearnBounds(delta=1e3, force=1e3), LIMIT)[0]
    assert not good.nonsense and good.delta.shape == (len(cluster()),)
    near = cluster()
    near.positions[3] = near.positions[7] + [0, 0, 1.2]
    assert "atoms 3 (Pt) and 7 (Pt) are 1.20 Å apart, below 1.63" in judged(models, [near], RelearnBounds(), LIMIT)[0].nonsense
    for bounds, limit, text in (
        (RelearnBounds(delta=1e-3), LIMIT, "above 0.001"), (RelearnBounds(force=1e-3, delta=1e3), LIMIT, "largest force"),
        (RelearnBounds(), 1e-4, "above 0.001"),
    ):  # fmt: skip
        assert text in judged(models, [cluster()], bounds, limit)[0].nonsense


def test_environments_are_far_apart_and_each_atom_is_chosen_in_one_frame():
    atoms = Atoms("Pt6", [[x, 0, 0] for x in (0, 1, 2, 10, 11, 20)])
    frames = [Judged(atoms, np.array(delta, dtype=float), "") for delta in ([5, 4, 0, 3, 0, 0.5], [1, 6, 0, 0, 2, 0.6])]
    assert _choose(frames, 2, 5.0, 1.0) == [[3], [1]]
    assert sum(map(len, _choose(frames, 99, 5.0, 1.0))) == 4  # atoms with at least 1 eV/Å in a frame
    assert _choose(frames, 5, 5.0, 100.0) == [[], [1]]  # at least one
    assert _choose([], 5, 5.0, 1.0) == []
    assert [len(_spread([atoms] * 7, number)) for number in (0, 1, 3, 9)] == [0, 1, 3, 7]


def test_errors_before_any_work():
    calls = []
    write_ensemble("other.ensemble", read_texts(BEST)[::-1])
    given = lesson(calls, ensemble=Path("other.ensemble"))
    with pytest.raises(InputError, match=r"other.ensemble is not the ensemble of the run 'al': give best.al.ensemble"):
        with teaching(given, "deck", []):
            pass
    gold = Lesson(given.learner, cells(), Atoms("Au2", [[0, 0, 0], [0, 0, 2.9]]), "al", BEST, given.bounds, given.settings)
    with pytest.raises(InputError, match="was trained on Pt, and the target has Au"), teaching(gold, "deck", []):
        pass
    with pytest.raises(RunStoreError, match=r"cutoff: was 5.0, is 6.0"), teaching(lesson(calls, cutoff=6.0), "deck", []):
        pass
    assert not Path("al-training/relearn").exists()
    with teaching(lesson(calls), "deck", []):
        pass
    with pytest.raises(RunStoreError, match="deck: was 'deck', is 'other'"), teaching(lesson(calls), "other", []):
        pass
    shutil.rmtree("al-training")
    with pytest.raises(InputError, match="al-training has no finished run"), teaching(lesson(calls), "deck", []):
        pass
    with pytest.raises(InputError, match=r"closest is 1.5"):
        RelearnBounds(closest=1.5)
    assert not calls
