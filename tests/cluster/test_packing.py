"""Several trainings in one job of Slurm: one fails, all are cut off, and nothing is done twice."""

from __future__ import annotations

import copy
import os
import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from slurmcluster import wait_for
from study import SMALL, Checkout, add, long_training, snippets

FIRST, SECOND = (f"runs/direct/target~Cu/source~none/n~{n}/seed~1" for n in (3, 20))
PARENT = "structures~Cu-synthetic/transform~none/source~{}/npre~12"
PREPARED = ["data/Cu/prepared.h5", *(f"settings/{kind}.yaml" for kind in ("direct", "finetune"))]
LABELLED = ["settings/pretrain~none.yaml"]
LABELLED += [f"labels/Cu-synthetic/{source}/npre~12.h5" for source in ("emt", "lj")]


def paths(*names: str) -> list[str]:
    """Return files of the study as targets."""
    return [f"results/small/{name}" for name in names]


def packed(study: dict) -> dict:
    """Return a study whose trainings share jobs two at a time."""
    study = copy.deepcopy(study)
    study["training"] |= {"pack": 2, "compile": "never"}
    study["experiments"]["fig3"] |= {"sizes": [3, 20]}
    return study


def packs(cluster, kind: str) -> list[dict[str, str]]:
    """Return the jobs of Slurm that are packs of trainings."""
    return [
        job for job in cluster.jobs() if re.fullmatch(rf"rule_{kind}s~\w+_{kind}", job["Comment"])
    ]


def log_of(checkout: Checkout, run: str) -> str:
    """Return what the last process of a training has said."""
    return (checkout.results / run.replace("runs", "logs", 1)).with_suffix(".log").read_text()


def environments(cluster, job: str) -> list[dict[str, str]]:
    """Return the environment of each training that runs in a job, when two do."""

    def trainings() -> list[int]:
        found = cluster.processes_of(job, "workflow/scripts/train.py")
        return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text().startswith("python")]

    wait_for(lambda: len(trainings()) == 2, 60, "the trainings")
    texts = [Path(f"/proc/{pid}/environ").read_text() for pid in trainings()]
    return [dict(word.split("=", 1) for word in text.split("\0") if word) for text in texts]


def test_one_failure_in_a_pack_costs_the_others_nothing(cluster, new_checkout):
    checkout = new_checkout(packed(SMALL))
    checkout.snakemake("--cores", "2", "--", *paths(*PREPARED, *LABELLED))
    good, bad = (f"runs/pretrain/{PARENT.format(source)}/seed~1" for source in ("emt", "lj"))
    tuned = [
        f"runs/finetune/target~Cu/{PARENT.format(source)}/preseed~1/n~3/seed~1/metrics.json"
        for source in ("emt", "lj")
    ]
    obstacle = checkout.results / bad / "state"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where a folder is to be\n")
    head = checkout.head("--retries", "1", "--", *paths(*tuned))
    assert head.wait(400) != 0

    # Both are one job, tried twice; what had succeeded at first was not done again, and stays.
    first, second, *later = packs(cluster, "pretrain")
    assert first["Comment"] == second["Comment"] and first["NumCPUs"] == "2"
    model = checkout.results / good / "model.ckpt"
    made = model.stat().st_ino
    assert "done before" in log_of(checkout, good) and model.stat().st_nlink == 1
    # What follows from it is there, though what follows from the other was to share its job.
    assert "Going on" in head.log() and {job["NumCPUs"] for job in later} == {"1"}
    assert [(checkout.results / name).exists() for name in tuned] == [True, False]
    assert "1 failed" in checkout.snakemake("--cores", "1", "--nolock", "status").stdout

    # When the obstacle is gone, only the other one is left to do.
    obstacle.unlink()
    target = paths(f"{bad}/metrics.json")
    checkout.head("--", *target, *paths(tuned[0])).finish(240)
    assert model.stat().st_ino == made and len(packs(cluster, "pretrain")) == 2 + len(later) + 1
    assert "Nothing to be done" in checkout.snakemake("-n", "--", *target, *paths(tuned[0])).stdout


@pytest.mark.faults
def test_a_pack_goes_on_in_the_next_allocation(cluster, new_checkout):
    """One training has finished when the time ends, the other has not; no retry is spent."""
    trial = new_checkout(packed(long_training(epochs=200)))
    trial.snakemake("--cores", "2", "--", *paths(f"{SECOND}/metrics.json"))
    elapsed = pd.read_csv(trial.results / SECOND / "curve.csv")["elapsed_s"]
    epochs = int(40 / elapsed.diff().quantile(0.1))
    checkout = new_checkout(packed(long_training(epochs)))
    checkout.snakemake("--cores", "2", "--", *paths(*PREPARED))
    options = ("--retries", "0", "--set-resources", "direct:runtime=1")
    targets = paths(*(f"{run}/metrics.json" for run in (FIRST, SECOND)))
    checkout.head(*options, "--", *targets).finish(600)
    (job,) = packs(cluster, "direct")
    assert job["TimeLimit"] == "00:01:00" and int(job["Restarts"]) >= 1
    logs = [(checkout.results / run / "train.log").read_text() for run in (FIRST, SECOND)]
    assert "done before" in log_of(checkout, FIRST) and logs[0].count(" stopped (") == 1
    assert logs[1].count("going on from") == int(job["Restarts"])
    assert not any("afresh" in log for log in logs)


def test_a_pack_shares_one_gpu(cluster, new_checkout, root):
    """On a machine without a GPU the trainings run on the CPU instead."""
    study = packed(long_training(epochs=1000))
    study["training"] |= {"device": "cuda", "allow_cpu": True}
    checkout = new_checkout(study)
    checkout.snakemake("--cores", "2", "--", *paths(*PREPARED))
    (mps,) = snippets(root, "Several trainings on one GPU", "precommand")
    add(checkout, mps)
    # In place of NVIDIA's program, which needs its driver.
    daemon = checkout.folder / "bin/nvidia-cuda-mps-control"
    daemon.parent.mkdir()
    daemon.write_text(
        '#!/bin/sh\necho "$1 $CUDA_VISIBLE_DEVICES" >> $CUDA_MPS_PIPE_DIRECTORY/calls\n'
    )
    daemon.chmod(0o755)
    path = f"{daemon.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    other = new_checkout(study)
    other.snakemake("--cores", "2", "--", *paths(*PREPARED))
    targets = paths(*(f"{run}/metrics.json" for run in (FIRST, SECOND)))
    checkout.head("--", *targets, PATH=path)
    other.head("--set-resources", "direct:gpu_model=a100", "--", *targets)
    wait_for(lambda: len(packs(cluster, "direct")) == 2, 60, "the packs")
    any_gpu, model = sorted(packs(cluster, "direct"), key=lambda job: "TresPerJob" in job)
    assert any_gpu["TresPerNode"] == "gres:gpu:1" and "TresPerJob" not in any_gpu
    assert model["TresPerJob"] == "gres:gpu:a100:1" and "TresPerNode" not in model
    assert any_gpu["NumCPUs"] == model["NumCPUs"] == "2"

    seen = [environments(cluster, job["JobId"]) for job in (any_gpu, model)]
    # Two trainings in each job, which see the one GPU of that job.
    assert [len(job) for job in seen] == [2, 2]
    gpus = [{one["CUDA_VISIBLE_DEVICES"] for one in job} for job in seen]
    assert len(gpus[0]) == len(gpus[1]) == 1 and gpus[0] != gpus[1]
    pipes = {one["CUDA_MPS_PIPE_DIRECTORY"] for one in seen[0]}
    assert pipes == {f"/tmp/mps-{any_gpu['JobId']}"}
    (pipe,) = map(Path, pipes)
    assert (pipe / "calls").read_text() == "-d \n"
    shutil.rmtree(pipe)
