"""Where a study stands, while Snakemake works on it and after it has failed."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from copper import CONFIG, add_files, run, write

LONG = "results/copper/runs/direct/target~Cu/source~none/n~3/seed~1"
SHORT = "results/copper/runs/direct/target~Cu/source~none/n~6/seed~1"


@pytest.fixture(scope="module")
def study(copy_repository, tmp_path_factory):
    """A study of two direct trainings, prepared; the shorter one has been trained."""
    checkout = copy_repository(tmp_path_factory.mktemp("study"))
    add_files(checkout)
    config = copy.deepcopy(CONFIG)
    config["training"] |= {"max_epochs": 100_000, "patience": 100_000, "checkpoint_seconds": 0}
    config["training"]["compile"] = "never"
    write(checkout, config)
    run(checkout, "results/copper/data/Cu/prepared.h5")
    return checkout


def status(checkout, *arguments):
    return subprocess.run(
        [
            sys.executable,
            "workflow/scripts/status.py",
            "--config",
            "config/copper.yaml",
            *arguments,
        ],
        cwd=checkout.folder,
        text=True,
        capture_output=True,
        check=True,
    ).stdout


@pytest.mark.slow
def test_a_running_workflow_can_be_looked_at(study):
    """Also through Snakemake, whose lock is held by the one at work."""
    command = ["snakemake", "--configfile", "config/copper.yaml", "--cores", "1"]
    log = study.folder / LONG / "state/train.log"
    with open(study.folder / "out", "w") as out:
        process = subprocess.Popen(
            [*command, f"{LONG}/metrics.json"],
            cwd=study.folder,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 600
        while not (log.exists() and "epoch 2:" in log.read_text()):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        worker = json.loads((study.folder / LONG / "running.json").read_text())["pid"]
        refused = run(study, "status", check=False).stdout
        shown = run(study, "status", "--nolock").stdout
        locked = study.snakemake(*command[1:], f"{LONG}/curve.csv", check=False).stdout
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(600)
    assert "error: target 'status': add --nolock" in refused
    assert "LockException" in locked
    assert "8 training runs: 1 running, 7 left" in shown
    line = next(line for line in shown.splitlines() if line.startswith("  direct/"))
    assert "n~3/seed~1: epoch " in line and f"process {worker} on" in line
    text = status(study)
    assert "8 training runs: 1 stopped, 7 left" in text
    assert "Stopped (killed, or at a limit" in text


@pytest.mark.slow
def test_a_failed_run_names_its_log_and_its_cure(study):
    path = study.folder / "results/copper/data/Cu/prepared.h5"
    whole = path.read_bytes()
    times = path.stat()
    path.write_bytes(whole[: len(whole) // 2])
    os.utime(path, (times.st_atime, times.st_mtime))
    process = run(study, f"{SHORT}/metrics.json", check=False)
    path.write_bytes(whole)
    os.utime(path, (times.st_atime, times.st_mtime))
    assert process.returncode != 0
    told = process.stdout.split("\nFailed:\n")[1]
    for text in (told, status(study).split("Failed:")[1]):
        assert "  direct/target~Cu/source~none/n~6/seed~1" in text
        assert "log:   results/copper/logs/direct/target~Cu/source~none/n~6/seed~1.log" in text
        assert f"again: snakemake [the same options] {SHORT}/metrics.json" in text
    # The other, interrupted before, is not among them.
    assert "n~3" not in told
