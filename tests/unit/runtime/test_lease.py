"""Who works on a run: one process at a time, and none that has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pretraining.runtime import lease
from pretraining.runtime.errors import UserError
from pretraining.runtime.lease import Lease

HOLD = """
import signal, sys, time
# Ignored by the children of a shell that runs the tests in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, "workflow")
from pathlib import Path
from pretraining.runtime.lease import Lease
with Lease(Path(sys.argv[1]), "run"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run" / "running.json"


def hold(path: Path, root: Path) -> subprocess.Popen:
    """Start a program that has the lease."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(path: Path, **changes) -> None:
    """Make a lease look like that of another machine."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": "other"} | changes))


def test_it_says_who_has_it_and_goes_away(path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with Lease(path, "run") as mine:
        assert not mine.waited
        content = json.loads(path.read_text())
        assert content["pid"] == os.getpid() and content["slurm_job"] == "17"
    assert list(path.parent.iterdir()) == []


def test_a_second_process_waits_for_the_first(path, root, capfd):
    first = hold(path, root)
    threading.Timer(1.5, first.send_signal, [signal.SIGINT]).start()
    started = time.monotonic()
    with Lease(path, "run") as second:
        assert second.waited and time.monotonic() - started > 1
        assert first.wait() != 0
    said = capfd.readouterr().err
    assert f"run: process {first.pid} on " in said and "works on it: waiting" in said
    assert list(path.parent.iterdir()) == []


def test_a_process_that_was_killed_is_taken_over_from_at_once(path, root, capfd):
    first = hold(path, root)
    first.kill()
    first.wait()
    with Lease(path, "run") as second:
        assert not second.waited
    assert f"process {first.pid} on " in capfd.readouterr().err


def test_a_number_that_another_process_has_now_is_not_the_holder(path):
    with Lease(path, "run"):
        content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"pid": 1, "token": "gone"}))
    with Lease(path, "run") as second:
        assert not second.waited


def test_of_another_machine_only_silence_tells(path, root, monkeypatch):
    monkeypatch.setattr(lease, "SILENCE", 2.0)
    first = hold(path, root)
    elsewhere(path)
    first.kill()
    first.wait()
    started = time.monotonic()
    with Lease(path, "run") as second:
        assert second.waited and 1 < time.monotonic() - started < 10


def test_a_process_that_is_heard_of_keeps_it(path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 0.2)
    monkeypatch.setattr(lease, "SILENCE", 1.0)
    with Lease(path, "first") as first:
        elsewhere(path)
        second = Lease(path, "second")
        thread = threading.Thread(target=second.__enter__)
        thread.start()
        time.sleep(3)
        assert thread.is_alive() and second.waited
        first.check()
    thread.join(timeout=10)
    second.check()
    second.__exit__()
    assert list(path.parent.iterdir()) == []


def test_one_that_was_replaced_stops_and_leaves_the_other_alone(path, monkeypatch):
    with Lease(path, "first") as first:
        elsewhere(path)
        monkeypatch.setattr(lease, "SILENCE", -1.0)
        with Lease(path, "second") as second:
            with pytest.raises(UserError, match=r"first: process \d+ on .* has taken over"):
                first.check()
            second.check()
            first.__exit__()
            second.check()
    assert list(path.parent.iterdir()) == []


def test_of_many_that_want_it_one_has_it(path, root):
    """Each adds a line while it has the lease; two at once would mix theirs."""
    program = """
import sys, time
sys.path.insert(0, "workflow")
from pathlib import Path
from pretraining.runtime import lease
lease.LOOK = 0.01
log = Path(sys.argv[1]).with_name("log")
for _ in range(10):
    with lease.Lease(Path(sys.argv[1]), "run"):
        before = log.read_text() if log.exists() else ""
        time.sleep(0.005)
        log.write_text(before + "x")
"""
    command = [sys.executable, "-c", program, str(path)]
    jobs = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE) for _ in range(4)]
    assert [job.communicate() and job.returncode for job in jobs] == [0] * 4
    assert path.with_name("log").read_text() == "x" * 40


def test_a_file_that_was_not_written_to_its_end_is_taken_over(path, monkeypatch):
    path.parent.mkdir()
    path.write_text("")
    os.utime(path, (1, 1))
    with Lease(path, "run") as mine:
        mine.check()
