"""The journal: what was written is there, whatever happened afterwards."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from amp.nft.run.store import RunStore, RunStoreError, write_atomically


def test_events_come_back_in_order(tmp_path):
    with RunStore(tmp_path) as store:
        store.append("run", format=1)
        for k in range(3):
            store.append("trained", iteration=k, value=k**2)
    with RunStore(tmp_path) as store:
        assert [event["event"] for event in store.events] == ["run", "trained", "trained", "trained"]
        assert store.find("trained", iteration=2)["value"] == 4
        assert store.find("trained", iteration=7) is None
        assert len(store.find_all("trained")) == 3
        times = [event["time"] for event in store.events]
        assert times == sorted(times) and abs(times[-1] - time.time()) < 60


def test_content_is_named_by_what_is_in_it(tmp_path):
    image = molecule("H2O")
    image.calc = SinglePointCalculator(image, energy=-1.5, forces=np.ones((3, 3)))
    array = np.arange(6.0).reshape(2, 3)
    with RunStore(tmp_path) as store:
        name, image_name = store.keep_array(array), store.keep_image(image)
        assert store.keep_array(array.copy()) == name
        np.testing.assert_array_equal(store.array(name), array)
        back = store.image(image_name)
        assert back == image and back.get_potential_energy() == -1.5
        (tmp_path / "content" / name).write_bytes(b"something else")
        with pytest.raises(RunStoreError, match="damaged"):
            store.array(name)
        (tmp_path / "content" / name).unlink()
        with pytest.raises(RunStoreError, match="missing"):
            store.array(name)


def test_a_torn_last_line_is_forgiven(tmp_path):
    with RunStore(tmp_path) as store:
        store.append("run", format=1)
        store.append("label", atom=1)
    with open(tmp_path / "journal.jsonl", "a") as file:
        file.write('{"event": "label", "at')
    with RunStore(tmp_path) as store:
        assert len(store.events) == 2
        store.append("label", atom=2)
    with RunStore(tmp_path) as store:
        assert [event.get("atom") for event in store.events] == [None, 1, 2]


def test_a_torn_earlier_line_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "run", "format": 1}\n{"event": "lab\n{"event": "label", "atom": 3}\n')
    with pytest.raises(RunStoreError, match=r"journal\.jsonl, line 2: not a journal event"):
        RunStore(tmp_path)
    assert len(path.read_text().splitlines()) == 3


def test_a_newer_format_is_refused(tmp_path):
    (tmp_path / "journal.jsonl").write_text(json.dumps({"event": "run", "format": 99}) + "\n")
    with pytest.raises(RunStoreError, match=r"newer amp\.nft"):
        RunStore(tmp_path)


def test_one_process_at_a_time_and_no_stale_lock(tmp_path):
    code = f"from amp.nft.run.store import RunStore\ns = RunStore({str(tmp_path)!r})\nprint('held', flush=True)\ninput()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(RunStoreError, match=f"in use by process {holder.pid}"):
        RunStore(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    RunStore(tmp_path).close()


def test_a_forked_worker_that_outlives_its_driver_does_not_hold_the_lock(tmp_path):
    code = f"""
import os, time
from amp.nft.run.store import RunStore
store = RunStore({str(tmp_path)!r})
worker = os.fork()
if not worker:
    time.sleep(60)
    os._exit(0)
print(worker, flush=True)
os.kill(os.getpid(), 9)
"""
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    worker = int(driver.stdout.readline())
    assert driver.wait(30) == -signal.SIGKILL
    try:
        os.kill(worker, 0)
        RunStore(tmp_path).close()
    finally:
        os.kill(worker, signal.SIGKILL)
        driver.stdout.close()


FILL = """
import resource, sys
import numpy as np
from amp.nft.run.store import RunStore, RunStoreError
with RunStore(sys.argv[1]) as store:
    store.append("run", format=1)
    store.append("label", file=store.keep_array(np.zeros(10)))
    if "limit" in sys.argv:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
    for what in (lambda: store.keep_array(np.ones(100_000)), lambda: store.append("event", much="x" * 100_000)):
        try:
            what()
        except RunStoreError as error:
            print(error)
"""


@pytest.mark.parametrize("how", ["limit", "disk"])
def test_a_full_disk_loses_nothing(tmp_path, how):
    store = tmp_path / "store"
    store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", store]
    if how == "disk" and subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small file system cannot be mounted here (needs root)")
    try:
        filled = subprocess.run([sys.executable, "-c", FILL, store, how], capture_output=True, text=True, check=False)
        says = filled.stdout.splitlines()
        assert len(says) == 2, filled.stderr
        assert all("cannot be written (" in line and "run the same script again" in line for line in says)
        with RunStore(store) as again:
            assert [event["event"] for event in again.events] == ["run", "label"]
            np.testing.assert_array_equal(again.array(again.events[1]["file"]), np.zeros(10))
            assert len(os.listdir(store / "content")) == 1
    finally:
        if how == "disk":
            subprocess.run(["umount", store], check=True)


def test_a_directory_that_may_not_be_written(tmp_path):
    store = tmp_path / "store"
    store.mkdir(mode=0o555)
    code = (
        "import os, sys\nfrom amp.nft.run.store import RunStore\n"
        "if os.getuid() == 0: os.setgid(65534), os.setuid(65534)\n"
        "RunStore(sys.argv[1] + '/saved-info')"
    )
    for parent in store.parents:
        if parent.stat().st_uid == os.getuid() and parent.is_relative_to("/tmp"):
            parent.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code, store], capture_output=True, text=True, check=False)
    assert "cannot be written (Permission denied)" in done.stderr and "give permission" in done.stderr


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match="without locks"):
        RunStore(tmp_path).close()


@pytest.mark.parametrize("text", ['{"event": "label"}\n', "[1]\n", '{"event": 3}\n', "\n\n"])
def test_what_is_no_journal(tmp_path, text):
    (tmp_path / "journal.jsonl").write_text(text)
    with pytest.raises(RunStoreError, match="line 1: not a journal event"):
        RunStore(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunStoreError, match=r"file cannot be written \(No space left on device\).*run the same script"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
