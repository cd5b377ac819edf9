"""What programs do at the end of their Slurm allocation."""

from __future__ import annotations

import json
import sys

import pandas as pd
import pytest
from slurmcluster import wait_for
from study import DIRECT, TARGET, long_training

from pretraining.runtime.slurm import seconds_left

# A program that works until it is interrupted.
PROGRAM = """
import sys, time
sys.path.insert(0, {workflow!r})
from pretraining.runtime.slurm import progress
from pretraining.runtime.errors import UserError
from pretraining.runtime.stop import Interrupted, StopRequest
with StopRequest() as stop:
    try:
        if {saves}:
            progress()
        time.sleep(600)
    except Interrupted as interruption:
        try:
            sys.exit(stop.leave(interruption))
        except UserError as error:
            sys.exit(f"error: {{error}}")
"""
SNAKEMAKE = "--comment=rule_any"


@pytest.fixture
def submit(cluster, root, tmp_path):
    """A function that submits the program with a limit of a minute; returns job and output file."""

    def submit(name, *options, saves=True):
        script, out = tmp_path / f"{name}.py", tmp_path / f"{name}.log"
        script.write_text(PROGRAM.format(workflow=str(root / "workflow"), saves=saves))
        options = ("--time=1", f"--output={out}", "--open-mode=append", *options)
        return cluster.submit(f"exec {sys.executable} {script}", *options), out

    return submit


def test_the_end_of_an_allocation(cluster, submit, new_checkout, whole):
    """Programs at their time limit, and meanwhile a training that is longer than its limit."""
    saved, saved_out = submit("saved", SNAKEMAKE)
    stuck, stuck_out = submit("stuck", SNAKEMAKE, saves=False)
    fixed, fixed_out = submit("fixed", SNAKEMAKE, "--no-requeue")
    cancelled, cancelled_out = submit("cancelled", SNAKEMAKE)
    foreign, foreign_out = submit("foreign")
    array, array_out = submit("array", SNAKEMAKE, "--array=1-2")
    wait_for(lambda: cluster.processes_of(cancelled, "cancelled.py"), what="the jobs")
    wait_for(lambda: len(cluster.jobs(JobState="RUNNING")) == 7, what="all jobs")
    # 50 s of work, by the pace of the undisturbed training; an allocation has less than 45.
    elapsed = pd.read_csv(whole.results / DIRECT / "curve.csv")["elapsed_s"]
    study = long_training(epochs=int(50 / elapsed.diff().quantile(0.1)))
    alone, checkout = new_checkout(study), new_checkout(study)
    uninterrupted = alone.start("--cores", "1", "--", TARGET)
    options = ("--retries", "0", "--set-resources", "direct:runtime=1")
    head = checkout.head(*options, "--", TARGET)
    # Python needs a moment to set up its handlers.
    wait_for(lambda: cluster.job(cancelled)["RunTime"] > "00:00:10", what="the program")
    cluster.cancel(cancelled)

    # What has saved its state goes on; the job stays the same.
    wait_for(lambda: cluster.job(saved)["Restarts"] == "1", 90, "the requeue")
    assert "is requeued" in saved_out.read_text()
    wait_for(lambda: cluster.job(saved)["JobState"] == "RUNNING", 60, "the second allocation")
    # Each task of an array does so for itself.
    wait_for(lambda: [j["Restarts"] for j in cluster.jobs(ArrayJobId=array)] == ["1", "1"], 30)
    # What has not saved anything would not in the next one.
    wait_for(lambda: cluster.job(stuck)["JobState"] == "FAILED", 30, "the guard")
    assert "error: nothing could be saved in this allocation" in stuck_out.read_text()
    assert "max_runtime" in stuck_out.read_text()
    # Where Slurm does not requeue, Snakemake tries again.
    wait_for(lambda: cluster.job(fixed)["JobState"] == "FAILED", 30, "the end")
    assert cluster.job(fixed)["ExitCode"] == "75:0"
    assert "was not requeued" in fixed_out.read_text() and "--retries" in fixed_out.read_text()
    # Cancelled is cancelled.
    assert cluster.job(cancelled)["JobState"] == "CANCELLED"
    assert "stopped by SIGTERM" in cancelled_out.read_text()
    assert cluster.job(cancelled)["Restarts"] == "0"
    # Somebody's own script is left alone.
    assert cluster.job(foreign)["Restarts"] == "0"
    assert "allocation" not in foreign_out.read_text()
    cluster.cancel(saved, array)

    # The training ends as one that was not interrupted, and no retry is spent.
    head.finish(600)
    uninterrupted.finish(300)
    (job,) = cluster.jobs_of("direct")
    assert job["TimeLimit"] == "00:01:00" and job["JobState"] == "COMPLETED"
    assert int(job["Restarts"]) >= 1
    log = (checkout.results / DIRECT / "train.log").read_text()
    assert log.count("resuming from") == int(job["Restarts"])
    here, there = (json.loads((c.folder / TARGET).read_text()) for c in (checkout, alone))
    for part in ("test", "val", "train", "epochs", "best_epoch", "steps"):
        assert here[part] == there[part], part


def test_what_is_left_of_a_job(cluster):
    jobs = [cluster.submit("sleep 99", "--time=2-01:00", *more) for more in ([SNAKEMAKE], [])]
    wait_for(lambda: len(cluster.jobs(JobState="RUNNING")) == 2, what="the jobs")
    assert seconds_left(jobs[0]) == pytest.approx(49 * 3600, abs=30)
    assert seconds_left(jobs[1]) is None
