"""What breaks while a training runs on Slurm costs time, and nothing else.

Each test disturbs the same training and holds its end against that of an undisturbed one. The time
from the fault to the training's next step is printed (``pytest -s``).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable

import pytest
from slurmcluster import NODE, Cluster, wait_for
from study import DIRECT, TARGET, Checkout, Head, long_training

SOON = 120
LATER = 400


class Training:
    """A checkout in which one training is disturbed."""

    def __init__(self, checkout: Checkout) -> None:
        self.checkout = checkout
        self.run = checkout.results / DIRECT

    def head(self, **options: str) -> Head:
        return self.checkout.head("--", TARGET, **options)

    def log(self) -> str:
        """Return what the training has logged so far, all its processes together."""
        for path in (self.run / "state/train.log", self.run / "train.log"):
            if path.exists():
                return path.read_text()
        return ""

    def wait_for_state(self) -> None:
        wait_for((self.run / "state/last.ckpt").exists, LATER, "a saved state")

    def wait_for_resumption(self) -> None:
        wait_for(lambda: "resuming from" in self.log(), LATER, "the next start")


def result_of(checkout: Checkout) -> tuple[dict, list[str]]:
    """Return the metrics and the curve of the training, without times."""
    run = checkout.results / DIRECT
    metrics = json.loads((run / "metrics.json").read_text())
    for key in ("train_time_s", "wall_time_s", "outputs_sha256", "record_digest"):
        del metrics[key]
    lines = (run / "curve.csv").read_text().splitlines()
    return metrics, [line.rpartition(",")[0] for line in lines]


@pytest.fixture
def disturbed(new_checkout):
    """A training to be disturbed."""
    return Training(new_checkout())


def number_of(cluster: Cluster) -> str:
    """Return the number of the training's only job."""
    (job,) = cluster.jobs_of("direct")
    return job["JobId"]


# -- faults --------------------------------------------------------------------------------------


def kill_the_program(cluster: Cluster, job: str) -> None:
    for pid in cluster.processes_of(job, "train.py --kind"):
        os.kill(pid, signal.SIGKILL)


def kill_the_step(cluster: Cluster, job: str) -> None:
    for pid in cluster.processes_of(job):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def cancel(cluster: Cluster, job: str) -> None:
    cluster.cancel(job)


def requeue(cluster: Cluster, job: str) -> None:
    cluster.scontrol("requeue", job)


def power_cut(cluster: Cluster, job: str) -> None:
    """The node is lost; Slurm notices after SlurmdTimeout, and the node comes back."""
    cluster.crash_node()
    wait_for(lambda: cluster.job(job)["Restarts"] == "1", SOON, "the requeue")
    cluster.start_node()


def lose_the_daemon(cluster: Cluster, job: str) -> None:
    """Slurm takes the node for lost while the training still runs on it."""
    cluster.stop_node_daemon(signal.SIGKILL)
    # What it does by itself after SlurmdTimeout, when a short training has ended.
    cluster.scontrol("update", f"NodeName={NODE}", "State=DOWN", "Reason=test")
    wait_for(lambda: cluster.job(job)["Restarts"] == "1", SOON, "the requeue")
    cluster.start_node()


FAULTS = {
    "program killed": (kill_the_program, 2),
    "step killed": (kill_the_step, 2),
    "cancelled": (cancel, 2),
    "requeued": (requeue, 1),
    "node lost": (power_cut, 1),
    "slurmd lost": (lose_the_daemon, 1),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_disturbed_training_ends_as_if_nothing_had_been(cluster, disturbed, whole, name):
    fault, jobs = FAULTS[name]
    head = disturbed.head()
    disturbed.wait_for_state()
    begun = time.monotonic()
    fault(cluster, number_of(cluster))
    disturbed.wait_for_resumption()
    print(f"\n{name}: {time.monotonic() - begun:.0f} s")
    head.finish(LATER)
    assert result_of(disturbed.checkout) == result_of(whole)
    assert "afresh" not in disturbed.log()
    # A new job by Snakemake's retry, or the same one put back into the queue by Slurm.
    assert len(cluster.jobs_of("direct")) == jobs
    assert not (disturbed.run / "running.json").exists()


def test_a_training_that_is_told_to_end_is_tried_again(cluster, disturbed, whole):
    """SIGTERM for the whole job, as Slurm sends it at a time limit."""
    head = disturbed.head()
    disturbed.wait_for_state()
    job = number_of(cluster)
    begun = time.monotonic()
    cluster.cancel("--signal=TERM", "--full", job)
    disturbed.wait_for_resumption()
    print(f"\nSIGTERM, as at a time limit: {time.monotonic() - begun:.0f} s")
    head.finish(LATER)
    assert result_of(disturbed.checkout) == result_of(whole)


@pytest.mark.parametrize("daemon", ["node", "controller"])
def test_daemons_that_come_back_disturb_nothing(cluster, disturbed, whole, daemon):
    head = disturbed.head()
    disturbed.wait_for_state()
    if daemon == "node":
        cluster.stop_node_daemon(signal.SIGKILL)
        cluster.start_node()
    else:
        cluster.stop_controller()
        time.sleep(5)
        cluster.start_controller()
    head.finish(LATER)
    assert result_of(disturbed.checkout) == result_of(whole)
    assert "resuming from" not in disturbed.log() and len(cluster.jobs_of("direct")) == 1


def test_a_drained_node_ends_what_it_runs(cluster, disturbed, whole):
    head = disturbed.head()
    disturbed.wait_for_state()
    cluster.drain()
    head.finish(LATER)
    cluster.resume()
    assert result_of(disturbed.checkout) == result_of(whole)
    assert "resuming from" not in disturbed.log()


# -- the head process ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def longer(whole, tmp_path_factory):
    """An undisturbed training that is still running when a second head has started."""
    checkout = whole.copy(tmp_path_factory.mktemp("longer") / "checkout")
    checkout.configure(long_training(1000))
    checkout.snakemake("--cores", "2", "--", TARGET)
    return checkout


@pytest.fixture
def left(new_checkout):
    """The same training, to be left by its head."""
    return Training(new_checkout(long_training(1000)))


def restart(disturbed: Training, head: Head, then: Callable[[], None] = lambda: None) -> str:
    """Kill the head process and start two more, one after another; return what the first says."""
    head.kill()
    disturbed.checkout.snakemake("--unlock")
    again = disturbed.head(log="again.log")
    wait_for(lambda: "of an earlier Snakemake" in again.log(), SOON, "the other's jobs")
    then()
    assert again.wait(LATER) == 1
    disturbed.head(log="third.log").finish(LATER)
    return again.log()


def test_a_new_head_waits_for_the_jobs_of_a_dead_one(cluster, left, longer):
    head = left.head()
    left.wait_for_state()
    said = restart(left, head)
    job = number_of(cluster)
    assert f"an earlier Snakemake in the queue: {job} (direct). Waiting for their end" in said
    assert said.strip().endswith("have ended: start Snakemake again")
    # Nothing is trained twice.
    assert result_of(left.checkout) == result_of(longer)
    assert "resuming from" not in left.log()
    assert "Nothing to be done" in left.checkout.snakemake("-n", "--", TARGET).stdout


def test_what_a_dead_head_left_can_be_cancelled(cluster, left, longer):
    head = left.head()
    left.wait_for_state()
    begun = time.monotonic()
    restart(left, head, lambda: cluster.cancel(number_of(cluster)))
    print(f"\nhead killed, its job cancelled: {time.monotonic() - begun:.0f} s")
    assert "resuming from" in left.log()
    assert result_of(left.checkout) == result_of(longer)
    assert len(cluster.jobs_of("direct")) == 2
