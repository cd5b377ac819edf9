"""The tutorial's studies: both are planned as its page says, and a shortened one runs."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

STUDIES = ("metal", "compound")


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_is_short_and_planned(checkout, study):
    file = f"config/tutorial-{study}.yaml"
    text = (checkout.folder / file).read_text()
    assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 35
    counts = checkout.job_counts("--configfile", file)
    sizes = counts["direct"] // 3
    assert sizes >= 2 and counts["direct"] == 3 * sizes
    assert (counts["pretrain"], counts["finetune"]) == (2, 2 * counts["direct"])


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_a_shortened_study_runs(checkout, study):
    config = yaml.safe_load((checkout.folder / f"config/tutorial-{study}.yaml").read_text())
    structures = next(s for s in config["datasets"].values() if "generate" in s)
    structures["generate"] |= {
        "atoms": 8,
        "replicas": 1,
        "stages": [{"temperature": 3000, "ps": 0.2}],
        "frame_every_ps": 0.02,
    }
    structures["filters"] = []
    one = {"sizes": [4], "pretrain_sizes": [10], "finetune_seeds": [1], "direct_seeds": [1]}
    config["experiments"]["fig3"] |= one
    config["training"] = {"max_epochs": 2, "pretrain": {"max_epochs": 2}, "compile": "never"}
    config["network"] = {"num_layers": 1, "num_features": 4}
    (checkout.folder / "config/short.yaml").write_text(yaml.safe_dump(config))
    checkout.snakemake("--configfile", "config/short.yaml", "--cores", "2", "fig3")
    results = checkout.folder / config["results"]
    runs = pd.read_csv(results / "tables/fig3-runs.csv")
    kinds = ["direct", *2 * ["finetune"], *2 * ["pretrain"], *2 * ["source"]]
    assert sorted(runs["kind"]) == kinds
    assert runs["test_energy_rmse"].notna().all()
    assert (results / "figures/fig3.png").is_file()
