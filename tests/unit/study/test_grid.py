"""The table of runs: counts, identity, sharing, and what an added axis value adds."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretraining.study import estimate
from pretraining.study.config import load_config, validate_study
from pretraining.study.grid import Run, grid_table, largest_size, results_table, select


@pytest.fixture(scope="module")
def paper(root):
    """The shipped configuration of the paper's grid."""
    return load_config(root / "config/config.yaml")


@pytest.fixture(scope="module")
def grid(paper):
    """The paper's table of runs."""
    return grid_table(paper)


def counts(table):
    return tuple(int((table["kind"] == kind).sum()) for kind in ("pretrain", "direct", "finetune"))


def test_the_paper_has_703_runs(grid):
    assert counts(grid) == (20, 100, 583)
    assert grid["path"].is_unique


@pytest.mark.parametrize(
    ("experiment", "expected"),
    [("fig2", (7, 40, 56)), ("fig3", (4, 40, 160)), ("fig4", (1, 25, 25)), ("fig5", (10, 35, 350))],
)
def test_runs_of_each_experiment(grid, experiment, expected):
    assert counts(select(grid, experiment)) == expected


def test_finetunings_by_target(grid):
    by_target = select(grid, kind="finetune")["target"].value_counts()
    assert dict(by_target) == {"Si-GAP-18": 350, "C-GAP-17": 208, "nanotubes": 25}


def test_a_run_that_two_experiments_want_is_one_row(grid):
    shared = grid[grid["experiments"] == "fig2,fig3"]
    # Direct trainings, the pre-training of 10,000 and its fine-tunings with seed 42.
    assert counts(shared) == (0, 40, 8)
    assert select(grid, kind="pretrain", npre=10000, source="ace", transform="none")[
        "experiments"
    ].tolist() == ["fig2,fig3,fig4"]


def test_paths_carry_the_identity():
    parent = Run.pretrain("C-SYNTH-23M", "none", "ace", 10000, 42)
    child = parent.finetune("C-GAP-17", 25, 1)
    assert parent.path == (
        "runs/pretrain/structures~C-SYNTH-23M/transform~none/source~ace/npre~10000/seed~42"
    )
    assert child.path == (
        "runs/finetune/target~C-GAP-17/structures~C-SYNTH-23M/transform~none/source~ace"
        "/npre~10000/preseed~42/n~25/seed~1"
    )
    assert child.parent == parent
    direct = Run.direct("C-GAP-17", 25, 1)
    assert direct.path == "runs/direct/target~C-GAP-17/source~none/n~25/seed~1"
    assert direct.parent is None


def test_every_parent_is_in_the_grid(grid):
    children = select(grid, kind="finetune")
    assert set(children["parent"]) <= set(grid["path"])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(min_value=100, max_value=10**6))
def test_a_new_seed_adds_only_its_own_runs(paper, grid, seed):
    config = copy.deepcopy(paper)
    config["experiments"]["fig3"]["finetune_seeds"].append(seed)
    larger = grid_table(config)
    assert set(grid["path"]) < set(larger["path"])
    added = larger[~larger["path"].isin(grid["path"])]
    assert set(added["kind"]) == {"finetune"} and set(added["seed"]) == {seed}
    assert len(added) == 32


@settings(max_examples=25, deadline=None)
@given(size=st.integers(min_value=1, max_value=3000))
def test_a_new_size_adds_only_its_own_runs(paper, grid, size):
    config = copy.deepcopy(paper)
    sizes = config["experiments"]["fig2"]["sizes"]
    if size in sizes:
        return
    sizes.append(size)
    added = set(grid_table(config)["path"]) - set(grid["path"])
    assert len(added) == 5 + 7 and all(f"/n~{size}/" in path for path in added)


def test_largest_size(grid):
    assert largest_size(grid, "C-SYNTH-23M") == 100000
    assert largest_size(grid, "C-GAP-17") == 3200
    assert largest_size(grid, "Si-GAP-18") == 1600


def test_results_hold_the_untuned_models_and_the_sources(paper, grid):
    table = results_table(paper, grid, ["fig3"])
    kinds = table["kind"].value_counts()
    assert dict(kinds) == {"finetune": 160, "direct": 40, "pretrain": 4, "source": 4}
    assert (table.loc[table["kind"] == "source", "npre"] == 0).all()
    assert (table.loc[table["kind"] == "pretrain", "n"] == 0).all()
    # Carbon potentials say nothing of silicon.
    assert "source" not in set(results_table(paper, grid, ["fig5"])["kind"])


def test_models_are_tested_on_further_sets(paper, grid):
    table = results_table(paper, grid, ["fig4"])
    kinds = table["kind"].value_counts()
    assert dict(kinds) == {"finetune": 25, "direct": 25, "transfer": 50, "pretrain": 2, "source": 2}
    transfer = table[table["kind"] == "transfer"]
    assert set(transfer["target"]) == {"C-GAP-17"} and set(transfer["trained_on"]) == {"nanotubes"}
    assert (table.loc[table["kind"] != "transfer", "trained_on"] == "").all()
    folder = "results/evaluations/target~C-GAP-17"
    assert transfer["metrics"].tolist()[0] == (
        f"{folder}/direct/target~nanotubes/source~none/n~15/seed~1/metrics.json"
    )
    # What two experiments ask for is one row.
    both = results_table(paper, grid, ["fig3", "fig4"])
    assert not both["metrics"].duplicated().any()
    assert not {"transfer"} & set(results_table(paper, grid, ["fig3"])["kind"])


def test_estimated_hours_are_the_published_medians(root, grid):
    costs = estimate.published_costs(root / "resources/published/training-cost.csv")
    hours = grid.assign(s=estimate.estimated_seconds(grid, costs) / 3600)
    # Every row of the grid but the unscaled silicon was published; medians times runs.
    pretrained = select(hours, kind="pretrain", npre=100000)["s"].item()
    assert pretrained == pytest.approx(226555 / 3600)
    scaled = select(hours, kind="pretrain", transform="Si-x1.5", npre=3300)["s"].item()
    assert scaled == pytest.approx(12350 / 3600)
    assert select(hours, target="nanotubes", n=60, kind="direct")["s"].iloc[0] * 3600 == 155
    assert 400 < hours["s"].sum() < 554


def hours(root, name, monkeypatch, finished=None, **changes):
    """Return the expected hours of a shipped study on the machine of docs/performance.md."""
    monkeypatch.setattr(estimate, "_bandwidth", lambda: estimate.BANDWIDTH)
    monkeypatch.chdir(root)
    config = load_config(root / f"config/{name}.yaml") | {"results": "results/none"}
    config = validate_study({**config, **changes}, name)
    grid = grid_table(config)
    costs = estimate.published_costs(root / "resources/published/training-cost.csv")
    none = pd.Series(np.nan, grid.index)
    finished = none if finished is None else none.where(grid["kind"] != "direct", finished)
    seconds = estimate.expected_seconds(config, grid, costs, finished) / 3600
    return seconds, grid, estimate.summarise(config, grid, seconds * 3600, finished)


def test_expected_hours_are_those_of_network_epochs_and_machine(root, monkeypatch):
    demo, _, text = hours(root, "demo", monkeypatch)
    # Measured: 8.2 minutes beside compiling.
    assert 0.1 < demo.sum() < 0.2
    assert "GPU" not in text and "on one core of this machine" in text
    starts = len(demo) * estimate.START_S / 3600
    config = load_config(root / "config/demo.yaml")
    training = {**config["training"], "max_epochs": 75, "pretrain": {"max_epochs": 30}}
    half = hours(root, "demo", monkeypatch, training=training)[0].sum()
    assert half - starts == pytest.approx((demo.sum() - starts) / 2, rel=0.2)
    larger = {**config["network"], "num_layers": 4, "num_features": 32}
    larger = hours(root, "demo", monkeypatch, network=larger)[0].sum()
    assert larger - starts == pytest.approx(8 * (demo.sum() - starts))
    training = {**config["training"], "compile": "never"}
    plain = hours(root, "demo", monkeypatch, training=training)[0].sum()
    assert plain - starts == pytest.approx(7 * (demo.sum() - starts))
    paper, grid, text = hours(root, "config", monkeypatch)
    assert 430 < paper.sum() < 432 and "GPU h of training" in text and "RTX A6000" in text


def test_finished_runs_scale_the_estimate(root, monkeypatch):
    before, grid, _ = hours(root, "demo", monkeypatch)
    after, _, text = hours(root, "demo", monkeypatch, finished=360.0)
    direct = grid["kind"] == "direct"
    assert (after[direct] == 0.1).all() and (after[~direct] == before[~direct]).all()
    assert "scaled to the finished runs" in text


def test_structures_are_counted_before_they_are_prepared(tmp_path):
    (tmp_path / "a.xyz").write_text("2\n\nC 0 0 0\nC 0 0 1\n4\n\n" + "C 0 0 0\n" * 4)
    assert estimate._first_atoms([str(tmp_path / "a.xyz")]) == 3
    (tmp_path / "b.vasp").write_text("comment\n1.0\n")
    assert estimate._first_atoms([str(tmp_path / "b.vasp")]) is None
    assert estimate._first_atoms([]) is None


def test_published_weights_stand_in_for_a_pretraining(paper):
    config = copy.deepcopy(paper)
    weights = {"structures": "C-SYNTH-23M", "source": "ace", "npre": 10000, "seed": 42}
    config["pretrained_weights"] = [weights | {"file": "w.pth", "avg_num_neighbors": 31}]
    table = grid_table(validate_study(config, "test"))
    row = select(table, kind="pretrain", source="ace", npre=10000, transform="none").iloc[0]
    assert row["imported"] and row["path"].startswith("runs/imported/")
    children = table[table["parent"] == row["path"]]
    assert len(children) == 65
    assert all(path.startswith("runs/finetune/") for path in children["path"])


def test_the_replication_trains_nothing_before_fine_tuning(root):
    config = validate_study(load_config(root / "config/replication.yaml"), "test")
    table = grid_table(config)
    assert table["kind"].value_counts().to_dict() == {"finetune": 104, "direct": 20, "pretrain": 10}
    assert table.loc[table["kind"] == "pretrain", "imported"].all()
