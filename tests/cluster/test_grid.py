"""The demo's grid, reduced, goes through Slurm to Table 1, and every job asks for what it needs."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import yaml

TRAININGS = ("pretrain", "direct", "finetune")
# The others are cheap, and run where Snakemake does.
SUBMITTED = {"isolated_atoms", "prepare", "label", "evaluate", *TRAININGS}
TABLE = ["tables/table1.csv", "tables/table1.md", "figures/fig3.png"]


def reduced_demo(root):
    """Return the demo's study with its Figure 3 only, small sizes and short trainings."""
    study = yaml.safe_load((root / "config/demo.yaml").read_text())
    fig3 = study["experiments"]["fig3"]
    fig3 |= {"pretrain_sizes": [20], "sizes": [8], "finetune_seeds": [1], "direct_seeds": [1]}
    study |= {"results": "results/small", "experiments": {"fig3": fig3}}
    study |= {"embeddings": {}, "dynamics": {}, "labelling": {"chunk_size": 20}}
    study["training"] = {"batch_size": 4, "max_epochs": 3, "device": "cpu"}
    study["network"] |= {"num_layers": 1, "num_features": 4}
    return study


@pytest.fixture
def finished(cluster, new_checkout, root):
    """The study after its runs through Slurm and without, the plan and what the head said.

    Nothing can train on the GPUs of this cluster: trainings ask for one and do not use it.
    """
    checkout = new_checkout(reduced_demo(root), fresh=True)
    gpus = [f"{rule}:gpu=1" for rule in TRAININGS] + [
        f"{rule}:gpu_model=a100" for rule in TRAININGS
    ]
    alone = new_checkout(reduced_demo(root), fresh=True)
    without_slurm = alone.start("--cores", "1", "--", "table1")
    plan = checkout.snakemake("-n", "--profile", "slurm", "--", "table1", "fig3").stdout
    log = checkout.head("--set-resources", *gpus, "--", "table1", "fig3").finish(900)
    without_slurm.finish(900)
    return checkout, alone, plan, log


def requests(log):
    """Return threads and resources of every job that a head has submitted, by Slurm's number."""
    asked, found = {}, {}
    for block in re.split(r"\n\[", log):
        number = re.search(r"^    jobid: (\d+)$", block, re.MULTILINE)
        if number and "\nrule " in block:
            pairs = re.findall(r"(\w+)=(\d+)(?:,|$)", block.split("resources: ")[-1].split("\n")[0])
            threads = re.search(r"threads: (\d+)", block)
            asked[number[1]] = dict(pairs) | {"threads": threads[1] if threads else "1"}
    for number, job in re.findall(r"Job (\d+) has been submitted with SLURM jobid (\d+)", log):
        found[job] = asked[number]
    return found


def megabytes(text):
    """Return a size that Slurm has written, such as 8008M or 7.50G, in MB."""
    return float(text[:-1]) * {"M": 1, "G": 1024}[text[-1]]


def test_the_demo_goes_through_slurm(cluster, finished):
    checkout, alone, plan, log = finished
    for name in TABLE:
        assert (checkout.results / name).stat().st_size > 100, name

    # Each job that is not cheap was submitted, once.
    planned = Counter(re.findall(r"^rule (\w+):$", plan, re.MULTILINE))
    planned = {rule: count for rule, count in planned.items() if rule in SUBMITTED}
    assert set(planned) == SUBMITTED
    submitted = [job for job in cluster.jobs() if job["Comment"].startswith("rule_")]
    assert {rule: len(cluster.jobs_of(rule)) for rule in planned} == planned
    assert len(submitted) == sum(planned.values())

    # It got what its rule asks for.
    asked = requests(log)
    assert set(asked) == {job["JobId"] for job in submitted}
    for job in submitted:
        wanted = asked[job["JobId"]]
        hours, minutes, _ = job["TimeLimit"].split(":")
        assert 60 * int(hours) + int(minutes) == int(wanted["runtime"])
        assert job["MinMemoryNode"] in (
            f"{wanted['mem_mb']}M",
            f"{int(wanted['mem_mb']) / 1000:g}G",
        )
        assert job["NumCPUs"] == wanted["threads"]
        assert job["Requeue"] == "1" and job["JobState"] == "COMPLETED"
        training = any(f"rule_{rule}_" in job["Comment"] for rule in TRAININGS)
        assert job.get("TresPerJob") == ("gres:gpu:a100:1" if training else None)

    # The same table without Slurm.
    for name in TABLE[:2]:
        assert (alone.results / name).read_text() == (checkout.results / name).read_text()

    # Nothing is left to do.
    again = checkout.snakemake("-n", "--profile", "slurm", "--", "table1", "fig3").stdout
    assert "Nothing to be done" in again
