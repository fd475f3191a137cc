"""The journal: its lines, its schema, and every kind of damage to it."""

import json
import random
import re
import shutil
import threading
import zlib
from pathlib import Path

import pytest
from journals import IMAGE, SETTINGS, begin, chosen, evaluated, label, start, trained
from small_runs import run

from amp.nft.report import Checks, judge, read_run
from amp.nft.report.comparison import NOTHING
from amp.nft.report.figures import draw_charts
from amp.nft.report.page import page
from amp.nft.run import schema
from amp.nft.run.replay import LiveState, apply, replay
from amp.nft.run.schema import FORMAT
from amp.nft.run.state import RunState
from amp.nft.run.store import RunRecord, RunStore, RunStoreError

ROOT = Path(__file__).parents[2]


def lines_of(events):
    """Return the text of a journal with these events, with correct checksums whatever the events are."""
    checksum, lines = 0, []
    for event in events:
        body = json.dumps(event).encode()[:-1]
        checksum = zlib.crc32(body, checksum)
        lines.append(body + b', "crc": "%08x"}\n' % checksum)
    return b"".join(lines)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the journal of a real run with two retrainings, in which a label failed."""
    directory = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        run(max_iterations=2, label_retries=0)
        run(max_iterations=2, label_retries=1)
    return directory / "al-training" / "saved-info"


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "saved-info")
    return tmp_path / "saved-info"


# -- replay ----------------------------------------------------------------------------------------------------


def test_the_state_of_a_live_run_is_that_of_its_replay(tmp_path):
    with RunStore(tmp_path) as store:
        live = LiveState(store)
        for write in (lambda: begin(store), lambda: chosen(store, 0, [3, 4, 5]), lambda: label(store, 3)):
            write()
            assert live() == replay(store.events) == replay(RunRecord(tmp_path).events)
        store.append("label-retried", atom=4, kind="RuntimeError", message="SCF")
        store.append("label-failed", atom=4, kind="RuntimeError", message="SCF")
        label(store, 5)
        state = live()
        assert (set(state.labels), set(state.failures), state.failures[4].attempts) == ({3, 5}, {4}, 2)
        store.append("added", iteration=0, chosen=[3, 4, 5], atoms=[3, 5, 6], failed=[4])
        store.append("stopped", reason="x", message="Not converged.", converged=False)
        store.append("interrupted", signal="SIGTERM")
        assert (live().ending.message, live().phase, live().added_atoms) == ("Not converged.", "finished", [3, 5, 6])
        start(store)
        label(store, 4)
        assert (live().ending, live().phase, live().failures, len(live().starts)) == (None, "training", {}, 2)
        assert live() == replay(RunRecord(tmp_path).events)


def test_a_state_is_not_changed_by_the_next_event(finished):
    state, events = RunState(), RunRecord(finished).events
    for event in events:
        before = repr(state)
        after = apply(state, event)
        assert repr(state) == before
        state = after
    assert [one.trained.chunks for one in state.iterations] == sorted(one.trained.chunks for one in state.iterations)
    assert state == replay(events)


def test_unknown_events_and_fields_are_skipped(copy):
    events = RunRecord(copy).events
    before = replay(events)
    longer = [{**event, "new field": [1, {"deep": None}]} if event["event"] != "start" else event for event in events]
    longer.insert(4, {"event": "of a later version", "time": 1.0, "atoms": "many"})
    (copy / "journal.jsonl").write_bytes(lines_of(longer))
    after = replay(RunRecord(copy).events)
    assert [(one.trained, one.added) for one in after.iterations] == [(one.trained, one.added) for one in before.iterations]
    assert {atom: found.file for atom, found in after.labels.items()} == {atom: found.file for atom, found in before.labels.items()}


# -- damage ----------------------------------------------------------------------------------------------------


TORN = {
    "no end": lambda line: line[: len(line) // 2],
    "zeros and no end": lambda line: b"\0" * (len(line) // 2),
    "zeros, then its tail": lambda line: b"\0" * (len(line) // 2) + line[len(line) // 2 :],
    "its head, then zeros": lambda line: line[: len(line) // 2] + b"\0" * (len(line) - len(line) // 2 - 1) + b"\n",
    "only zeros": lambda line: b"\0" * len(line),
}


@pytest.mark.parametrize("how", TORN)
def test_a_truncated_last_line_is_dropped(tmp_path, how):
    with RunStore(tmp_path) as store:
        begin(store)
        chosen(store, 0, [1, 2])
        whole = (tmp_path / "journal.jsonl").read_bytes()
        label(store, 1)
    line = (tmp_path / "journal.jsonl").read_bytes()[len(whole) :]
    (tmp_path / "journal.jsonl").write_bytes(whole + TORN[how](line))
    assert RunRecord(tmp_path).events[-1]["event"] == "chosen"
    with RunStore(tmp_path) as store:
        assert (tmp_path / "journal.jsonl").read_bytes() == whole
        label(store, 2)
    assert [event.get("atom") for event in RunRecord(tmp_path).events[-2:]] == [None, 2]


def test_a_damaged_earlier_line_is_an_error_that_names_it(copy):
    path = copy / "journal.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2][:40]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RunStoreError, match=r"journal\.jsonl, line 3: its checksum does not fit.*Restore the file from a backup"):
        RunStore(copy)
    assert path.read_bytes() == b"\n".join(lines)
    path.write_bytes(b"\n".join(lines[:2]) + b"\n")  # the remedy
    RunStore(copy).close()


@pytest.mark.parametrize("change", ["a line is removed", "two lines change places", "a line is repeated"])
def test_lines_are_complete_and_in_their_order(copy, change):
    path = copy / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if change == "a line is removed":
        del lines[-4]
    elif change == "a line is repeated":
        lines.insert(-4, lines[-4])
    else:
        lines[-5:-3] = [lines[-4], lines[-5]]
    path.write_bytes(b"".join(lines))
    with pytest.raises(RunStoreError, match="its checksum does not fit: this line or one before it was changed"):
        RunRecord(copy)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ({"event": "run", "format": 1}, "has format 1, and this amp.nft reads format 2. Finish that run with amp.nft 0.1.0"),
        ({"event": "run", "format": 99}, "has format 99, and this amp.nft reads format 2. Upgrade amp.nft"),
    ],
)
def test_another_format_is_one_error_that_names_it(tmp_path, first, said):
    (tmp_path / "journal.jsonl").write_text(json.dumps(first) + "\n" + '{"event": "start"}\n')
    for reader in (RunRecord, RunStore):
        with pytest.raises(RunStoreError, match=re.escape(said)):
            reader(tmp_path)


@pytest.mark.parametrize("text", ['{"event": "label"}\n', "[1]\n", '{"event": 3}\n', "\n\n", "[" * 100_000 + "\n", "NaN\n"])
def test_other_files_are_no_journals(tmp_path, text):
    (tmp_path / "journal.jsonl").write_text(text)
    with pytest.raises(RunStoreError, match="line 1: its checksum does not fit"):
        RunStore(tmp_path)


# -- schema ----------------------------------------------------------------------------------------------------


WRONG = {
    "a missing field": (dict(atom=1, file=IMAGE), "field 'seconds' of event 'label' is missing"),
    "another type": (dict(atom="1", file=IMAGE, seconds=1.0), "field 'atom' of event 'label' must be integer from 0 on"),
    "a truth value as an integer": (dict(atom=True, file=IMAGE, seconds=1.0), "field 'atom' of event 'label' must be integer"),
    "a negative number": (dict(atom=1, file=IMAGE, seconds=-1.0), "field 'seconds' of event 'label' must be number from 0 on"),
    "an infinite number": (dict(atom=1, file=IMAGE, seconds=1e308 * 10), "Out of range float|field 'seconds'"),
    "a number of 400 digits": (dict(atom=1, file=IMAGE, seconds=10**400), "field 'seconds' of event 'label' must be number"),
    "a path as content": (dict(atom=1, file="../../secret.traj", seconds=1.0), "field 'file' of event 'label' must be name of content"),
    "an atom that the target lacks": (dict(atom=50, file=IMAGE, seconds=1.0), "names atom 50, and the targets have 50 atoms"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_field_is_refused_when_it_is_written_and_when_it_is_read(tmp_path, what):
    fields, said = WRONG[what]
    with RunStore(tmp_path) as store:
        begin(store)
        chosen(store, 0, [1])
        before = list(store.events)
        with pytest.raises(RunStoreError, match=said):
            store.append("label", **fields)
        assert RunRecord(tmp_path).events == before
    if what == "an infinite number":
        return  # JSON has none
    (tmp_path / "journal.jsonl").write_bytes(lines_of([*before, {"event": "label", "time": 1.0, **fields}]))
    with pytest.raises(RunStoreError, match=f"line {len(before) + 1}: .*{said}"):
        RunRecord(tmp_path)


def interrupted(store):
    start(store)
    store.append("interrupted", signal="SIGTERM")


def added(store):
    store.append("added", iteration=0, chosen=[1], atoms=[1])


ORDER = {
    "trained before it began": lambda store: trained(store, 0),
    "added without a choice": lambda store: (start(store), evaluated(store, 0, 1.0), added(store)),
    "an iteration that is skipped": lambda store: (start(store), trained(store, 1)),
    "trained twice": lambda store: (start(store), trained(store, 0), trained(store, 0)),
    "work after the end": lambda store: (interrupted(store), trained(store, 0)),
    "settings after a training": lambda store: (begin(store), trained(store, 0), store.append("run", format=FORMAT, settings={})),
}


@pytest.mark.parametrize("what", ORDER)
def test_events_out_of_order_are_refused(tmp_path, what):
    with RunStore(tmp_path) as store:
        store.append("run", format=FORMAT, settings=SETTINGS)
        with pytest.raises(RunStoreError, match=r"cannot follow here|field 'iteration' of event 'trained' must be 0"):
            ORDER[what](store)


def test_events_of_two_threads_are_whole_lines_in_a_chain(tmp_path):
    with RunStore(tmp_path) as store:
        begin(store)
        chosen(store, 0, list(range(40)))
        threads = [threading.Thread(target=lambda part=part: [label(store, atom) for atom in range(part, 40, 4)]) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(replay(RunRecord(tmp_path).events).labels) == list(range(40))


def rows_of_the_schema():
    """Return the table of events in docs/formats.rst, as the schema gives it."""
    for name, kind in schema.EVENTS.items():
        yield f"   * - ``{name}``\n     - {kind.meaning}\n     - " + "; ".join(
            f"``{key}``: {field.text}" for key, field in kind.fields.items()
        )


def test_the_documentation_shows_the_schema():
    text = (ROOT / "docs" / "formats.rst").read_text(encoding="utf-8")
    assert "\n".join(rows_of_the_schema()) in text
    assert f"``format``, at present {FORMAT}" in text


# -- mutations -------------------------------------------------------------------------------------------------


def mutated(data, rng):
    """Return a journal with one random change of its bytes."""
    at, kind = rng.randrange(len(data)), rng.randrange(6)
    if kind == 0:  # a bit
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 1:  # a byte
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + data[at + rng.randrange(1, 200) :]
    if kind == 3:
        return data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 50))) + data[at:]
    if kind == 4:  # zeros
        end = min(at + rng.randrange(1, 5000), len(data))
        return data[:at] + b"\0" * (end - at) + data[end:]
    other = rng.randrange(len(data))  # a piece from elsewhere
    return data[:at] + data[other : other + 100] + data[at + 100 :]


VALUES = [None, True, -1, 0, 7, 2**70, 10**400, 1.5, -0.5, 1e300, "", "x", "../../x.npy", [], [[]], [-1], ["x"], {}, {"n": "x"}, [None] * 3]


def changed(events, rng):
    """Events with one random change of a field, an item or an order."""
    events = json.loads(json.dumps(events))
    at = rng.randrange(len(events))
    kind = rng.randrange(5)
    if kind == 0:
        del events[at]
    elif kind == 1:
        events.insert(at, events[rng.randrange(len(events))])
    else:
        inner = events[at]
        while isinstance(inner, dict | list) and inner:
            key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
            if isinstance(inner[key], dict | list) and inner[key] and rng.random() < 0.7:
                inner = inner[key]
                continue
            if kind == 2 and isinstance(inner, dict):
                del inner[key]
            else:
                inner[key] = rng.choice(VALUES)
            break
    return events


def intact(data, damaged):
    """Count the unchanged lines, if at most one truncated line follows; all of them otherwise."""
    lines = data.splitlines(keepends=True)
    number = next((k for k in range(len(lines), 0, -1) if damaged.startswith(b"".join(lines[:k]))), 0)
    rest = damaged[sum(map(len, lines[:number])) :]
    return number if b"\n" not in rest[:-1] else len(lines)


def survives(directory):
    """Read a run as the status, the report and the loop do; None where it is refused."""
    try:
        return replay(RunRecord(directory).events)
    except RunStoreError:
        return None


@pytest.mark.parametrize("n", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_changes_of_bytes_are_refused_or_change_nothing(copy, n):
    """A damaged end of the file may look like a line that a crash truncated: the lines before it count then."""
    rng, path = random.Random(n), copy / "journal.jsonl"
    data, events = path.read_bytes(), RunRecord(copy).events
    whole, refused = replay(events), 0
    for _ in range(n):
        path.write_bytes(damaged := mutated(data, rng))
        found = survives(copy)
        refused += found is None
        assert found in (None, whole) or found == replay(events[: intact(data, damaged)]), damaged
        if found is None:
            with pytest.raises(RunStoreError):
                RunStore(copy)
            assert path.read_bytes() == damaged
    assert refused > n // 2


@pytest.mark.parametrize("n", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_changes_of_fields_under_a_correct_checksum_are_refused_or_can_be_read(copy, n):
    rng, path, events = random.Random(n), copy / "journal.jsonl", RunRecord(copy).events
    nothing, refused = Checks(NOTHING, NOTHING), 0
    for _ in range(n):
        path.write_bytes(lines_of(changed(events, rng)))
        try:
            found = read_run(copy)
            page(found, judge(found, nothing), nothing, draw_charts(found, nothing))
        except RunStoreError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert n // 4 < refused < n
