"""What profiles/slurm/README.md shows, added to the profile as a user does, on a real Slurm."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from slurmcluster import wait_for
from study import DIRECT, TARGET, add, long_training, snippets

LABELLED = [f"results/small/labels/Cu-synthetic/emt/chunks/{c}.extxyz" for c in ("eval", "00000")]
REFERENCES = "results/small/labels/references/lj.json"
GPUS = "Several trainings on one GPU"


def job_of(cluster, checkout, rule: str, *arguments: str) -> dict[str, str]:
    """Return the job that a head submits for a rule; the head is killed, as soon as it has."""
    head = checkout.head("--nolock", *arguments)
    (job,) = wait_for(lambda: cluster.jobs_of(rule), 120, f"the job of {rule}")
    head.kill()
    cluster.clear()
    return job


def test_what_a_user_edits(cluster, new_checkout):
    """The comments of the profile are filled in, with this cluster's names."""
    checkout = new_checkout()
    file = checkout.folder / "profiles/slurm/config.yaml"
    text = re.sub(
        r"^( *)# (slurm_account|slurm_partition): ", r"\1\2: ", file.read_text(), flags=re.M
    )
    text = re.sub(r"^# (set-resources:|  \w+: [&*]gpu)", r"\1", text, flags=re.M)
    # A training that does not use the GPU that it asks for: there is none here.
    text = text.replace("my_gpu_partition, gpu_model", "urgent, gpu: 1, gpu_model")
    file.write_text(text.replace("my_cpu_partition", "scavenge"))
    training = job_of(cluster, checkout, "direct", "--", TARGET)
    other = job_of(cluster, checkout, "isolated_atoms", "--", REFERENCES)
    assert training["Partition"] == "urgent" and training["TresPerJob"] == "gres:gpu:a100:1"
    assert other["Partition"] == "scavenge" and "TresPerJob" not in other
    assert training["Account"] == other["Account"] == "my_account"


def test_gpus_by_gres(cluster, new_checkout, root):
    checkout = new_checkout()
    add(checkout, snippets(root, "Sites with --gres")[0])
    job = job_of(cluster, checkout, "direct", "--", TARGET)
    assert job["TresPerNode"] == "gres:gpu:a100:1" and "TresPerJob" not in job


def test_trainings_share_a_gpu_by_its_shards(cluster, new_checkout, root):
    """The GPU has two shards: two of three trainings run on it at once, the third waits."""
    study = long_training(epochs=9999)
    study["experiments"]["fig3"] |= {"direct_seeds": [1, 2, 3]}
    checkout = new_checkout(study)
    add(checkout, snippets(root, GPUS, "shard")[0])
    run = TARGET.removesuffix("1/metrics.json")
    checkout.head("--", *(f"{run}{seed}/metrics.json" for seed in (1, 2, 3)))

    def states() -> list[str]:
        return sorted(job["JobState"] for job in cluster.jobs_of("direct"))

    wait_for(lambda: states() == ["PENDING", "RUNNING", "RUNNING"], 120, "two trainings")
    jobs = cluster.jobs_of("direct")
    assert all(job["TresPerNode"] == "gres:shard:1" and "TresPerJob" not in job for job in jobs)
    running = [job["JobId"] for job in jobs if job["JobState"] == "RUNNING"]
    gpus = [environment(cluster, job)["CUDA_VISIBLE_DEVICES"] for job in running]
    assert gpus == ["0", "0"]
    assert all(environment(cluster, job)["SLURM_SHARDS_ON_NODE"] == "1" for job in running)
    # Both train.
    states_of = [checkout.results / f"{DIRECT[:-1]}{seed}/state/last.ckpt" for seed in (1, 2, 3)]
    wait_for(lambda: sum(state.exists() for state in states_of) == 2, 120, "two states")
    # The third takes the shard of the one that ends.
    (waiting,) = (job["JobId"] for job in jobs if job["JobId"] not in running)
    cluster.cancel(running[0])
    wait_for(lambda: cluster.job(waiting)["JobState"] == "RUNNING", 60, "the third training")


def environment(cluster, job: str) -> dict[str, str]:
    """Return the environment of the training that runs in a job."""
    (pid, *_) = wait_for(lambda: cluster.processes_of(job, "train.py --kind"), 60, "the training")
    words = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_the_partition_that_fits(cluster, new_checkout, root):
    checkout = new_checkout()
    key, partitions = snippets(root, "The partition that fits")
    add(checkout, key)
    # This cluster has GPUs in another partition than the README's.
    partitions = partitions.replace("  gpu:", "  urgent:")
    (checkout.folder / yaml.safe_load(key)["slurm-partition-config"]).write_text(partitions)
    options = ("--set-resources", "direct:gpu=1", "direct:runtime=61", "isolated_atoms:runtime=1")
    job = job_of(cluster, checkout, "direct", *options, "--", TARGET)
    assert job["Partition"] == "urgent" and job["TresPerJob"] == "gres:gpu:1"
    job = job_of(cluster, checkout, "isolated_atoms", *options, "--", REFERENCES)
    assert job["Partition"] == "short"


def test_job_arrays(cluster, new_checkout, root):
    # Only jobs that are ready at the same time become an array.
    checkout = new_checkout()
    add(checkout, snippets(root, "Job arrays")[0])
    checkout.head("--", *LABELLED).finish(300)
    tasks = cluster.jobs_of("label")
    assert len(tasks) == 2 and tasks[0]["ArrayJobId"] == tasks[1]["ArrayJobId"]
    assert all((checkout.folder / chunk).stat().st_size > 100 for chunk in LABELLED)


@pytest.mark.parametrize("grace", [0, 10])
def test_a_preempted_training_is_resumed(cluster, new_checkout, root, grace):
    """Without a grace time it stays the same job; with one it fails, and the next resumes."""
    checkout = new_checkout(long_training(epochs=1000))
    add(checkout, snippets(root, "Preemptable partitions")[0])
    cluster.scontrol("update", "PartitionName=scavenge", f"GraceTime={grace}")
    head = checkout.head("--", TARGET)
    state = checkout.results / DIRECT / "state/last.ckpt"
    wait_for(state.exists, 120, "the first checkpoint")
    cluster.submit("sleep 5", "--partition=urgent", "--ntasks=64")
    head.finish(400)
    jobs = cluster.jobs_of("direct")
    assert [job["Restarts"] for job in jobs] == (["0", "0"] if grace else ["1"])
    assert all(job["Partition"] == "scavenge" for job in jobs)
    log = (checkout.results / DIRECT / "train.log").read_text()
    assert log.count("resuming from") == 1


def test_a_limit_that_the_profile_does_not_say_is_refused(cluster, new_checkout):
    checkout = new_checkout()
    add(checkout, "default-resources: {max_runtime: a day}")
    head = checkout.head("--", TARGET)
    assert head.wait(60) != 0
    assert "error: max_runtime of the profile" in head.log()
