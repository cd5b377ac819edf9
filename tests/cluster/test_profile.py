"""What profiles/slurm/README.md shows, added to the profile as a user does, on a real Slurm."""

from __future__ import annotations

import re

import pytest
import yaml
from slurmcluster import wait_for
from study import DIRECT, SMALL, add, long_training, snippets

TARGET = f"results/small/{DIRECT}/metrics.json"
PREPARED = ["results/small/data/Cu/prepared.h5", "results/small/settings/direct.yaml"]
UNLABELLED = [f"results/small/data/Cu-synthetic/chunks/{c}.extxyz" for c in ("eval", "00000")]
LABELLED = [f"results/small/labels/Cu-synthetic/emt/chunks/{c}.extxyz" for c in ("eval", "00000")]


@pytest.fixture
def prepared(new_checkout):
    """A function that makes a checkout in which a training can start, or what is asked for."""

    def make(study, files=PREPARED):
        checkout = new_checkout(study)
        if files:
            checkout.snakemake("--cores", "2", "--", *files)
        return checkout

    return make


def test_what_a_user_edits(cluster, prepared):
    """The comments of the profile are filled in, with this cluster's names."""
    checkout = prepared(SMALL)
    file = checkout.folder / "profiles/slurm/config.yaml"
    text = re.sub(
        r"^( *)# (slurm_account|slurm_partition): ", r"\1\2: ", file.read_text(), flags=re.M
    )
    text = re.sub(r"^# (set-resources:|  \w+: [&*]gpu)", r"\1", text, flags=re.M)
    # A training that does not use the GPU that it asks for: there is none here.
    text = text.replace("my_gpu_partition,", "urgent, gpu: 1,").replace(
        "my_cpu_partition", "scavenge"
    )
    file.write_text(text)
    references = "results/small/labels/references/lj.json"
    checkout.head("--", TARGET, references).finish(180)
    (training,), (other,) = cluster.jobs_of("direct"), cluster.jobs_of("isolated_atoms")
    assert training["Partition"] == "urgent" and training["TresPerJob"] == "gres:gpu:a100:1"
    assert other["Partition"] == "scavenge" and "TresPerJob" not in other
    assert training["Account"] == other["Account"] == "my_account"


def test_gpus_by_gres(cluster, prepared, root):
    checkout = prepared(SMALL)
    add(checkout, snippets(root, "Sites with --gres")[0])
    checkout.head("--", TARGET).finish(180)
    (job,) = cluster.jobs_of("direct")
    assert job["TresPerNode"] == "gres:gpu:a100:1" and "TresPerJob" not in job


def test_shards_of_a_gpu(cluster, prepared, root):
    checkout = prepared(SMALL)
    add(checkout, snippets(root, "Several trainings on one GPU", "shard")[0])
    checkout.head("--", TARGET).finish(180)
    (job,) = cluster.jobs_of("direct")
    assert job["TresPerNode"] == "gres:shard:1" and "TresPerJob" not in job


def test_the_partition_that_fits(cluster, prepared, root):
    checkout = prepared(SMALL)
    key, partitions = snippets(root, "The partition that fits")
    add(checkout, key)
    # This cluster has GPUs in another partition than the README's.
    partitions = partitions.replace("  gpu:", "  urgent:")
    (checkout.folder / yaml.safe_load(key)["slurm-partition-config"]).write_text(partitions)
    checkout.head("--set-resources", "direct:gpu=1", "direct:runtime=61", "--", TARGET).finish(180)
    (job,) = cluster.jobs_of("direct")
    assert job["Partition"] == "urgent" and job["TresPerJob"] == "gres:gpu:1"
    references = "results/small/labels/references/lj.json"
    checkout.head("--set-resources", "isolated_atoms:runtime=1", "--", references).finish(180)
    assert cluster.jobs_of("isolated_atoms")[-1]["Partition"] == "short"


def test_job_arrays(cluster, prepared, root):
    # Only jobs that are ready at the same time become an array.
    references = ["results/small/labels/references/emt.json"]
    checkout = prepared(SMALL, [*UNLABELLED, *references])
    add(checkout, snippets(root, "Job arrays")[0])
    checkout.head("--", *LABELLED).finish(300)
    tasks = cluster.jobs_of("label")
    assert len(tasks) == 2 and tasks[0]["ArrayJobId"] == tasks[1]["ArrayJobId"]
    assert all((checkout.folder / chunk).stat().st_size > 100 for chunk in LABELLED)


@pytest.mark.faults
@pytest.mark.parametrize("grace", [0, 10])
def test_a_preempted_training_goes_on(cluster, prepared, root, grace):
    """Without a grace time it stays the same job; with one it fails, and the next goes on."""
    checkout = prepared(long_training(epochs=1000))
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


def test_a_limit_that_the_profile_does_not_say_is_refused(cluster, prepared):
    checkout = prepared(SMALL, [])
    add(checkout, "default-resources: {max_runtime: a day}")
    head = checkout.head("--", TARGET)
    assert head.wait(60) != 0
    assert "error: max_runtime of the profile" in head.log()
