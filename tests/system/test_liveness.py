"""Heartbeats: how they are written, and how they are judged on this machine and on others."""

import json
import os
import resource
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from forked import PIPE, Script
from waiting import wait_for

from amp.nft.system.liveness import CLOCKS, Heartbeat, Unchanged, Watched, heartbeat_age, read_heartbeat, read_process, version
from amp.nft.system.processes import process_of, runs, this_process


def set_age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_a_heartbeat_names_its_process_and_carries_more_entries(tmp_path):
    heartbeat = Heartbeat(tmp_path / "new" / "alive.json", period=0.0)
    heartbeat.beat(steps=3)
    assert read_heartbeat(heartbeat.path) == (this_process(), {"steps": 3})
    heartbeat.beat(steps=4)
    assert read_heartbeat(heartbeat.path) == (this_process(), {"steps": 4})
    heartbeat.remove()
    assert list(heartbeat.path.parent.iterdir()) == []


def test_beats_before_they_are_due_change_nothing_and_later_ones_touch_the_file(tmp_path):
    slow, quick = Heartbeat(tmp_path / "slow", period=3600.0), Heartbeat(tmp_path / "quick", period=0.0)
    for heartbeat in (slow, quick):
        heartbeat.beat()
        set_age(heartbeat.path, 100.0)
        heartbeat.beat()
    assert heartbeat_age(slow.path) > 99.0 and heartbeat_age(quick.path) < 99.0


def test_a_full_disk_stops_no_heartbeat(tmp_path):
    """Else a driver on another machine would give up a job that works."""
    heartbeat = Heartbeat(tmp_path / "alive.json", period=0.0)
    heartbeat.beat(steps=3)
    set_age(heartbeat.path, 100.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        heartbeat.beat(steps=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert heartbeat_age(heartbeat.path) < 99.0 and read_process(heartbeat.path) == this_process()


def test_a_clock_that_was_set_back_gives_no_negative_age(tmp_path):
    path = tmp_path / "alive.json"
    assert heartbeat_age(path) is None
    path.touch()
    set_age(path, -CLOCKS / 2)
    assert heartbeat_age(path) == 0.0
    set_age(path, -2 * CLOCKS)
    assert heartbeat_age(path) is None  # else the driver would seem alive until the clock has caught up


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", '{"machine": "a", "pid": "x", "start_time": 1}', '{"machine": "a", "pid"'])
def test_a_damaged_heartbeat_names_nobody(text, tmp_path):
    path = tmp_path / "alive.json"
    path.write_text(text)
    assert read_process(path) is None


def test_unchanged_counts_from_the_first_sight():
    unchanged = Unchanged()
    assert unchanged.seconds("a") < unchanged.seconds("a")
    before = unchanged.seconds("a")
    assert unchanged.seconds("b") < before


def test_a_process_here_is_asked_and_one_elsewhere_is_judged_by_its_heartbeat(tmp_path):
    with subprocess.Popen(["sleep", "600"]) as process:
        here = process_of(process.pid)
        heartbeat = Heartbeat(tmp_path / "alive.json", period=0.0)
        heartbeat.beat()
        watched = Watched(here, tmp_path / "missing", silence=0.0)
        elsewhere = Watched(replace(here, machine="node07 pid:[1]"), heartbeat.path, silence=0.5)
        assert watched.lost() == ""
        process.kill()
    assert "has ended without a message" in watched.lost()
    looked = version(heartbeat.path)
    heartbeat.beat()
    assert version(heartbeat.path) != looked and elsewhere.lost() == ""
    assert wait_for(elsewhere.lost) == "no heartbeat from node07 for 0.5 s"
    heartbeat.beat()
    assert elsewhere.lost() == ""


DAEMON = """
import os, sys, time
from amp.nft.system import liveness
liveness.CHECK = 0.1
liveness.watch_forks()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(10 * liveness.CHECK)
        open(sys.argv[1], "w").close()
        time.sleep(600)
    os._exit(0)
os.wait()
"""


def test_a_daemon_that_a_parent_forks_in_the_driver_is_left_alone(tmp_path):
    done = tmp_path / "done"
    driver = Script(DAEMON, done, stdout=PIPE)
    daemon = psutil.Process(int(driver.stdout.readline()))
    try:
        driver.wait()
        wait_for(lambda: done.exists() or not runs(daemon))
        assert runs(daemon)
    finally:
        daemon.kill()
        driver.communicate()


def test_the_record_on_disk_is_plain_json(tmp_path):
    path = Path(tmp_path, "alive.json")
    Heartbeat(path).beat(token="x")
    assert set(json.loads(path.read_text())) == {"machine", "pid", "start_time", "token"}
