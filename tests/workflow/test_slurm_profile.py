"""What the Slurm profile asks for, without a Slurm: tests/cluster has one."""

from __future__ import annotations

import os
import re
import subprocess

HEAVY = {"ase", "h5py", "lightning", "matplotlib", "nequip", "quippy", "scipy", "torch", "umap"}


def requests(output):
    """Return the resources of a dry run's jobs, by rule."""
    found = {}
    for block in re.split(r"\n\[", output):
        rule = re.search(r"^rule (\w+):$", block, re.MULTILINE)
        line = re.search(r"^    resources: (.*)$", block, re.MULTILINE)
        if rule and line:
            found.setdefault(rule[1], []).append(dict(re.findall(r"(\w+)=(\d+)", line[1])))
    return found


def test_jobs_ask_for_what_their_run_needs(checkout):
    asked = requests(checkout.snakemake("-n", "--profile", "profiles/slurm").stdout)
    assert len(asked["finetune"]) == 583
    trainings = asked["pretrain"] + asked["direct"] + asked["finetune"]
    assert {job["gpu"] for job in trainings} == {"1"}
    assert all("gpu" not in job for job in asked["label"] + asked["prepare"])
    # The longest pre-training is published with 126 h.
    limits = sorted(int(job["runtime"]) for job in trainings)
    assert limits[-1] == 1440 and limits[0] < 60 and len(set(limits)) > 10
    assert len({job["mem_mb"] for job in asked["pretrain"]}) > 1
    assert all(int(job["runtime"]) <= 1440 for jobs in asked.values() for job in jobs)


def test_nothing_heavy_is_imported_to_submit(checkout):
    process = subprocess.run(
        ["snakemake", "-n", "--profile", "profiles/slurm", "--configfile", "config/demo.yaml"],
        cwd=checkout.folder,
        env=os.environ | {"PYTHONPROFILEIMPORTTIME": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(re.findall(r"^import time:.*\| +(\w+)", process.stderr, re.MULTILINE))
    assert "snakemake" in imported and not HEAVY & imported
