"""Several trainings in one job of Slurm: one fails, all are cut off, and nothing is done twice."""

from __future__ import annotations

import copy
import re

from study import SMALL, Checkout, long_training

FIRST, SECOND = (f"runs/direct/target~Cu/source~none/n~{n}/seed~1" for n in (3, 20))
TARGETS = [f"results/small/{run}/metrics.json" for run in (FIRST, SECOND)]
PREPARED = ["results/small/data/Cu/prepared.h5", "results/small/settings/direct.yaml"]


def packed(study: dict) -> dict:
    """Return a study with two direct trainings, of 3 and of 20 structures, which share a job."""
    study = copy.deepcopy(study)
    study["training"]["pack"] = 2
    study["experiments"]["fig3"] |= {"sizes": [3, 20]}
    return study


def packs(cluster) -> list[dict[str, str]]:
    """Return the jobs of Slurm that are packs of direct trainings."""
    return [
        job for job in cluster.jobs() if re.fullmatch(r"rule_directs~\w+_direct", job["Comment"])
    ]


def log_of(checkout: Checkout, run: str) -> str:
    """Return what the last process of a training has said."""
    return (checkout.results / run.replace("runs", "logs", 1)).with_suffix(".log").read_text()


def test_one_failure_in_a_pack_costs_the_others_nothing(cluster, new_checkout):
    checkout = new_checkout(packed(SMALL))
    checkout.snakemake("--cores", "2", "--", *PREPARED)
    obstacle = checkout.results / SECOND / "state"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder is to be\n")
    assert checkout.head("--retries", "1", "--", *TARGETS).wait(240) != 0

    # Both are one job, tried twice; what had succeeded at first was not done again, and stays.
    first, second = packs(cluster)
    assert first["Comment"] == second["Comment"] and first["NumCPUs"] == "2"
    model = checkout.results / FIRST / "model.ckpt"
    made = model.stat().st_ino
    assert "done before" in log_of(checkout, FIRST) and model.stat().st_nlink == 1
    assert "1 failed" in checkout.snakemake("--cores", "1", "--nolock", "status").stdout

    # When the obstacle is gone, only the other one is left to do.
    obstacle.unlink()
    checkout.head("--", *TARGETS).finish(240)
    assert model.stat().st_ino == made and len(packs(cluster)) == 3
    assert len(log_of(checkout, FIRST).splitlines()) == 1
    assert "Nothing to be done" in checkout.snakemake("-n", "--", *TARGETS).stdout


def test_a_pack_goes_on_in_the_next_allocation(cluster, new_checkout):
    """One training has finished when the time ends, the other has not; no retry is spent."""
    study = long_training(epochs=700)
    checkout = new_checkout(packed(study))
    checkout.snakemake("--cores", "2", "--", *PREPARED)
    options = ("--retries", "0", "--set-resources", "direct:runtime=1")
    checkout.head(*options, "--", *TARGETS).finish(600)
    (job,) = packs(cluster)
    assert job["TimeLimit"] == "00:01:00" and int(job["Restarts"]) >= 1
    logs = [(checkout.results / run / "train.log").read_text() for run in (FIRST, SECOND)]
    print(logs, log_of(checkout, FIRST))
    assert "done before" in log_of(checkout, FIRST) and "going on from" not in logs[0]
    assert logs[1].count("going on from") == int(job["Restarts"]) and "afresh" not in logs[1]
