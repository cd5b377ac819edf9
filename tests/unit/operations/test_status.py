"""What is told of runs that have finished, diverged or failed, are running, or were killed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from copper import CONFIG
from pretraining.operations import status
from pretraining.study import estimate
from pretraining.study.config import validate_study
from pretraining.study.grid import grid_table
from pretraining.training.progress import Progress, log_of
from pretraining.training.run import Request, train
from toy import write_settings, write_store

STATES = {3: "finished", 4: "diverged", 5: "stopped", 6: "running", 7: "failed", 8: "left"}


def path_of(n):
    return f"runs/direct/target~Cu/source~none/n~{n}/seed~1"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A study with a direct run in each state, and nothing else done."""
    config = json.loads(json.dumps(CONFIG))
    config["experiments"]["fig3"]["sizes"] = list(STATES)
    return validate_study(config, "copper") | {"results": str(tmp_path_factory.mktemp("results"))}


@pytest.fixture(scope="module")
def processes(root, config, tmp_path_factory):
    """Train, and return the processes by size: one of them runs as long as the tests."""
    folder = tmp_path_factory.mktemp("data")
    data = write_store(folder / "data.h5")
    broken = folder / "broken.h5"
    broken.write_bytes(data.read_bytes()[:2000])
    long = {"max_epochs": 100_000, "patience": 100_000}
    options = {
        3: {"max_epochs": 2},
        4: {"max_epochs": 50, "learning_rate": 1e6},
        **dict.fromkeys((5, 6, 7), long),
    }
    started = {}

    def start(n):
        settings = write_settings(folder / f"{n}.yaml", **options[n])
        out, log = f"{config['results']}/{path_of(n)}", log_of(config["results"], path_of(n))
        for place in (log.parent, Path(out)):  # as Snakemake does
            place.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, root / "workflow/scripts/train.py", "--kind", "direct"]
        command += ["--data", broken if n == 7 else data, "--n", str(n), "--seed", "1"]
        command += ["--settings", settings, "--out", out]
        with open(log, "w") as handle:
            started[n] = subprocess.Popen(command, stdout=handle, stderr=subprocess.STDOUT)

    def wait_for_an_epoch(n):
        log = Path(config["results"]) / path_of(n) / "state/train.log"
        deadline = time.monotonic() + 600
        while not (log.exists() and "epoch 1:" in log.read_text()):
            assert started[n].poll() is None and time.monotonic() < deadline
            time.sleep(0.2)

    try:
        for n in (5, 6, 7):
            start(n)
        for n in (3, 4):
            settings = write_settings(folder / f"{n}.yaml", **options[n])
            train(Request("direct", data, n, 1, settings, Path(config["results"], path_of(n))))
        started[7].wait(600)
        for n in (5, 6):
            wait_for_an_epoch(n)
        started[5].kill()
        started[5].wait()
        yield started
    finally:
        for process in started.values():
            process.kill()
            process.wait()


@pytest.fixture
def table(root, config, processes):
    costs = estimate.published_costs(root / "resources/published/training-cost.csv")
    return status.run_table(config, grid_table(config), costs)


def test_every_state_is_told_apart(table):
    direct = table[table["kind"] == "direct"].set_index("n")
    assert dict(direct["state"]) == STATES
    assert set(table.loc[table["kind"] != "direct", "state"]) == {"left"}
    assert (
        direct.loc[3, "remaining"] == direct.loc[4, "remaining"] == 0 < direct.loc[8, "remaining"]
    )
    assert direct.loc[3, "measured"] > 0 and not direct.loc[3, "gpu"]


def test_the_summary_names_who_runs_what_and_what_has_failed(config, table, processes):
    text = status.summary(config, grid_table(config), table, sizes=True, names=10)
    first, hours, *_ = text.splitlines()
    told = "1 finished, 1 diverged, 1 running, 1 failed, 1 stopped, 15 left"
    assert first == f"{config['results']}: 20 training runs: {told}"
    assert re.match(r"0\.\d\d h measured on CPUs[,;] ", hours) and "GPU" not in hours
    running = text.split("\nRunning:\n")[1].splitlines()[0]
    assert "/n~6/" in running and f"process {processes[6].pid} on" in running
    failed = text.split("\nFailed:\n")[1].splitlines()
    assert "/n~7/" in failed[0] and "broken.h5" in failed[1]
    assert failed[2].split() == ["log:", str(log_of(config["results"], path_of(7)))]
    assert failed[3].endswith(f"{config['results']}/{path_of(7)}/metrics.json")
    assert "labels of Cu-synthetic by emt: 0 of 3 chunks" in text
    line = next(line for line in text.splitlines() if line.startswith("direct Cu n 3 "))
    assert line.split()[4:7] == ["1", "1", "·"]


def test_what_a_run_does_before_its_first_epoch_is_said(config, table):
    row = next(table.itertuples())
    progress = Progress("running", by="process 1 on here", phase="compiling")
    (line,) = status._named(config, row._replace(progress=progress))
    assert line.endswith(": compiling, process 1 on here")


def test_at_the_end_the_failed_and_the_killed_are_named(config, processes):
    told = status.failures(config, grid_table(config), since=1)
    assert told.count("again: snakemake") == 2
    assert "n~5/" in told and "it was killed" in told and "n~7/" in told
    assert status.failures(config, grid_table(config), since=time.time() + 1) == ""
    told = status.failures(config, grid_table(config), since=1, interrupted=True)
    assert told.startswith("You interrupted it: start it again")


def test_jobs_that_are_no_runs_are_named_by_their_last_error(config, processes):
    log = Path(config["results"]) / "logs/prepare/Cu.log"
    log.parent.mkdir(parents=True)
    log.write_text("note: something\nerror: first\nerror: dataset 'Cu': broken\n")
    (log.parent / "fine.log").write_text("an error: of nobody\n")
    told = status.failures(config, grid_table(config), since=1)
    assert f"  prepare/Cu\n    dataset 'Cu': broken\n    log:   {log}" in told
    assert "fine" not in told
    log.unlink()


def test_a_failing_training_says_how_to_run_only_it_again(config, processes):
    lines = log_of(config["results"], path_of(7)).read_text().splitlines()
    assert f"{path_of(7)}/metrics.json" in lines[-2] and lines[-1].startswith("error: ")


def test_names_are_cut_short(config, table):
    table = table.assign(state="failed")
    text = status.summary(config, grid_table(config), table, sizes=False, names=2)
    assert "… and 18 more (--names 20)" in text


def test_a_metrics_file_that_is_cut_off_is_a_failure(config, tmp_path):
    file = tmp_path / path_of(3) / "metrics.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"kind": "dir')
    progress = status.run_progress(tmp_path, path_of(3))
    assert progress.state == "failed" and str(file) in progress.message


def test_the_program_reads_any_configuration(root, config, processes, tmp_path):
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config | {"results": "results"}))
    command = [sys.executable, root / "workflow/scripts/status.py"]
    command += ["--config", tmp_path / "study.yaml", "--results", config["results"]]
    output = subprocess.check_output(command, text=True)
    assert "1 running, 1 failed, 1 stopped" in output
