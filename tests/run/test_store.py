"""The store of a run: written events and content are there, whatever happened afterwards."""

import errno
import os
import shutil
import signal
import struct
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from forked import PIPE, Script, run
from journals import begin, chosen, label
from special_files import SPECIAL, put

from amp.nft.errors import LabellingError
from amp.nft.run import read_status
from amp.nft.run.store import RunRecord, RunStore, RunStoreError, write_atomically

TESTS = Path(__file__).parents[1]


def test_events_come_back_in_order(tmp_path):
    with RunStore(tmp_path) as store:
        begin(store)
        chosen(store, 0, [3, 4])
        written = list(store.events)
    with RunStore(tmp_path) as store:
        assert store.events == written == RunRecord(tmp_path).events
        assert [event["event"] for event in store.events] == ["run", "start", "trained", "evaluated", "chosen"]
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


def test_one_process_at_a_time_and_no_stale_lock(tmp_path):
    code = f"from amp.nft.run.store import RunStore\ns = RunStore({str(tmp_path)!r})\nprint('held', flush=True)\ninput()"
    holder = Script(code, stdout=PIPE, stdin=PIPE)
    assert holder.stdout.readline() == "held\n"
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
    driver = Script(code, stdout=PIPE)
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
sys.path.insert(0, sys.argv[3])
from forked import PIPE, Script, run
from journals import begin, chosen, label
from amp.nft.run.store import RunStore, RunStoreError
with RunStore(sys.argv[1]) as store:
    begin(store)
    chosen(store, 0, [1])
    label(store, 1, store.keep_array(np.zeros(10)))
    if "limit" in sys.argv:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
    for what in (lambda: store.keep_array(np.ones(100_000)), lambda: store.append("interrupted", signal="x" * 100_000)):
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
        filled = run(FILL, store, how, TESTS)
        says = filled.stdout.splitlines()
        assert len(says) == 2, filled.stderr
        assert all("cannot be written (" in line and "run the same script again" in line for line in says)
        with RunStore(store) as again:
            assert [event["event"] for event in again.events] == ["run", "start", "trained", "evaluated", "chosen", "label"]
            np.testing.assert_array_equal(again.array(again.events[-1]["file"]), np.zeros(10))
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
    done = run(code, store)
    assert "cannot be written (Permission denied)" in done.stderr and "give permission" in done.stderr


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match="without locks"):
        RunStore(tmp_path).close()


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


def test_a_directory_that_cannot_be_made_durable_is_an_error(tmp_path, monkeypatch):
    """A rename that the file system may lose is reported, unless the file system has no such thing."""
    real = os.fsync

    def fsync(number, descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", partial(fsync, errno.EINVAL))
    write_atomically(tmp_path / "file", b"data")
    monkeypatch.setattr(os, "fsync", partial(fsync, errno.EIO))
    with pytest.raises(RunStoreError, match="file cannot be written"):
        write_atomically(tmp_path / "file", b"other")


@pytest.mark.parametrize("how", ["renamed", "renamed and copied back", "removed"])
def test_a_directory_that_is_moved_while_the_run_works_is_noticed_and_complete(tmp_path, how):
    place, away = tmp_path / "al-training" / "saved-info", tmp_path / "away"
    with RunStore(place) as store:
        begin(store)
        chosen(store, 0, [1])
        written = list(store.events)
        if how == "removed":
            shutil.copytree(tmp_path / "al-training", away)
            shutil.rmtree(tmp_path / "al-training")
        else:
            os.rename(tmp_path / "al-training", away)
        if how == "renamed and copied back":
            shutil.copytree(away, tmp_path / "al-training")
        for write in (lambda: store.keep_array(np.zeros(3)), lambda: label(store, 1)):
            with pytest.raises(RunStoreError, match=r"was moved or replaced while the run works; finished work is kept.*rerun the script"):
                write()
    assert RunRecord(away / "saved-info").events == written
    assert (tmp_path / "al-training").exists() == (how == "renamed and copied back")


def test_files_missing_after_a_move_are_not_called_damage(tmp_path):
    place = tmp_path / "al-training" / "saved-info"
    with pytest.raises(RunStoreError, match="was moved or replaced while the run works"), RunStore(place) as store:
        begin(store)
        name = store.keep_array(np.zeros(3))
        os.rename(tmp_path / "al-training", tmp_path / "away")
        store.array(name)


def test_a_label_that_fails_after_a_move_is_not_called_a_failed_label(tmp_path):
    place = tmp_path / "al-training" / "saved-info"
    with pytest.raises(RunStoreError, match="was moved or replaced while the run works"), RunStore(place) as store:
        begin(store)
        os.rename(tmp_path / "al-training", tmp_path / "away")
        raise LabellingError("EMT cannot label images[0]: FileNotFoundError.")


HEADER = "{'descr': '<f8', 'fortran_order': False, 'shape': (%s,), }"


def npy(header, data=b""):
    """Return an ``.npy`` file with this header, as NumPy writes it."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) % 65536) + text + data


BAD_ARRAYS = {
    "not an array": b"plain text",
    "8 TB announced": npy(HEADER % 10**12),
    "a header of 2 MB": npy(HEADER % "3" + " " * 2**21, bytes(24)),
    "a pickle": b"\x93NUMPY\x01\x00" + struct.pack("<H", 61) + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }    \n" + b"cos",
    "a deep header": npy("(" * 9000 + ")" * 9000),
}


@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_content_that_is_no_array_is_refused(tmp_path, what):
    with RunStore(tmp_path) as store:
        name = store.keep(BAD_ARRAYS[what], ".npy")
        with pytest.raises(RunStoreError, match=f"{name} is not an array"):
            store.array(name)


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a": 1}', b"[]", b"[1, 2]", b"\xff\xfe"], ids=["deep", "object", "empty", "numbers", "bytes"]
)
def test_content_that_is_no_ensemble_is_refused(tmp_path, data):
    with RunStore(tmp_path) as store:
        name = store.keep(data, ".ensemble")
        with pytest.raises(RunStoreError, match=f"{name} is not an ensemble"):
            store.texts(name)


@pytest.mark.parametrize("data", [b"- of Ulm", b"- of UlmASE-Trajectory" + b"\xff" * 200, b"x" * 500, b""])
def test_content_that_is_no_trajectory_is_refused(tmp_path, data):
    with RunStore(tmp_path) as store:
        name = store.keep(data, ".traj")
        with pytest.raises(RunStoreError, match=f"{name} is not a trajectory"):
            store.image(name)


@pytest.mark.parametrize("what", SPECIAL)
@pytest.mark.parametrize("name", ["journal.jsonl", "content", "lock", "progress.json"])
def test_special_files_in_a_foreign_directory_neither_hang_nor_fill_the_memory(tmp_path, what, name):
    place = tmp_path / "al-training" / "saved-info"
    with RunStore(place) as store:
        begin(store)
        content = store.keep_array(np.zeros(3))
    path = place / "content" / content if name == "content" else place / name
    put(what, path)
    if name == "journal.jsonl":
        for reader in (RunRecord, RunStore, lambda _: read_status(tmp_path)):
            with pytest.raises(RunStoreError):
                reader(place)
    elif name == "content":
        with pytest.raises(RunStoreError, match="cannot be read"):
            RunRecord(place).array(content)
    else:
        read_status(tmp_path)
        if (name, what) != ("lock", "a directory"):
            RunStore(place).close()


@pytest.mark.parametrize("name", ["../../secret.npy", "/etc/passwd", "0" * 32 + ".npy/../x", "x" * 36, ""])
def test_content_has_names_made_of_hashes_only(tmp_path, name):
    with RunStore(tmp_path) as store, pytest.raises(RunStoreError, match="is not the name of content"):
        store.content(name)
