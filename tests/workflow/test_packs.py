"""Trainings that share a GPU: in the jobs of a cluster (dry run), and on a workstation."""

from __future__ import annotations

import copy
import re
from collections import defaultdict

import pytest

import copper


@pytest.fixture(scope="module")
def packed(checkout):
    """The paper's grid with eight trainings on a GPU: a dry run's groups, by their names."""
    (checkout.folder / "config/pack.yaml").write_text("training: {pack: 8}\n")

    def plan(*arguments):
        files = ["--configfile", "config/config.yaml", "config/pack.yaml"]
        profile = ["--profile", "profiles/slurm"]
        output = checkout.snakemake("-n", *profile, *files, *arguments).stdout
        groups, alone = defaultdict(list), []
        for block in re.split(r"\n(?=\[)", output):
            group = re.search(r"Group job (\S+) ", block)
            for job in re.findall(
                r"rule (?:pretrain|direct|finetune):.*?resources: [^\n]*", block, re.S
            ):
                (groups[group[1]] if group else alone).append(job)
        assert not alone
        return groups

    return plan


def test_the_paper_s_grid_in_packs(packed):
    groups = packed()
    jobs = [job for pack in groups.values() for job in pack]
    assert len(jobs) == 703 and max(map(len, groups.values())) == 8
    # Few enough to be worth it, though of similar length each.
    assert len(groups) < 703 / 6
    for pack in groups.values():
        assert len({re.match(r"rule (\w+):", job)[1] for job in pack}) == 1
        minutes = [int(re.search(r"runtime=(\d+)", job)[1]) - 10 for job in pack]
        assert max(minutes) <= 2 * min(minutes) + 2
    # One GPU for all, which Snakemake would add up as a number.
    assert all("gres=gpu:1," in job and " gpu=" not in job for job in jobs)


def test_a_gpu_of_the_profile_s_model(packed):
    groups = packed("--set-resources", "direct:gpu_model=a100")
    for name, pack in groups.items():
        model = name.startswith("direct")
        assert all(("gpu_model=a100" in job) == model for job in pack), name
        assert all(("gres=gpu:1," in job) != model for job in pack), name


def test_runs_side_by_side_on_a_workstation(copy_repository, tmp_path):
    """Two at a time of four, on a GPU that is not there: they may use the CPU instead."""
    checkout = copy_repository(tmp_path / "checkout")
    copper.add_files(checkout)
    study = copy.deepcopy(copper.CONFIG)
    study["training"] |= {"device": "cuda", "allow_cpu": True, "pack": 2}
    study["experiments"]["fig3"]["direct_seeds"] = [1, 2]
    copper.write(checkout, study)
    runs = [
        f"runs/direct/target~Cu/source~none/n~{n}/seed~{seed}" for n in (3, 6) for seed in (1, 2)
    ]
    targets = [f"{study['results']}/{run}/metrics.json" for run in runs]
    options = ["--configfile", "config/copper.yaml", "--cores", "4", "--resources", "gpu=1"]
    output = checkout.snakemake(*options, "--", *targets).stdout
    running, most = 0, []
    for begun in re.findall(
        r"^(?:(?:local)?(rule) direct:|Finished .*\(Rule: direct\))$", output, re.M
    ):
        running += 1 if begun else -1
        most.append(running)
    assert len(most) == 8 and max(most) == 2
