"""What training costs: hours, electricity, carbon dioxide."""

from __future__ import annotations

import json
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretraining.results.cost import (
    as_markdown,
    cost,
    pretrainings_left_out,
    read_training_grid,
    training_runs,
)
from pretraining.results.published import read_claims
from pretraining.results.runs_table import COLUMNS, normalise
from pretraining.runtime.errors import UserError
from pretraining.study.estimate import published_costs

GPU = "NVIDIA RTX A6000"
EXTRA = ["wall_time_s", "device", "status"]


def runs_of(*rows: tuple) -> pd.DataFrame:
    """A runs table of rows (kind, target, source, npre, n, seed, seconds, device, status)."""
    table = pd.DataFrame(
        [(*row[:6], 1.0, 1.0, *row[6:]) for row in rows], columns=[*COLUMNS, *EXTRA]
    )
    return normalise(table, "runs")


PRETRAIN = ("pretrain", "", "ace", 10_000, 0, 42)
DIRECT = ("direct", "C-GAP-17", "none", 0, 800, 1)
TUNED = ("finetune", "C-GAP-17", "ace", 10_000, 25, 1)


def total(table: pd.DataFrame, device: str = "gpu") -> pd.Series:
    return table[(table["kind"] == "total") & (table["device"] == device)].iloc[0]


def test_hours_energy_and_carbon():
    runs = runs_of(
        (*PRETRAIN, 36_000, GPU, "ok"), (*DIRECT, 3600, GPU, "ok"), (*TUNED, 1800, GPU, "ok")
    )
    table = cost(training_runs([runs]), power_w=300, carbon_kg_per_kwh=0.207)
    assert table["kind"].tolist() == ["pretrain", "direct", "finetune", "total"]
    assert table["hours"].tolist() == [10.0, 1.0, 0.5, 11.5]
    assert total(table)["kwh"] == pytest.approx(3.45)
    assert total(table)["kg_co2e"] == pytest.approx(0.71415)


def test_the_published_cost_follows_from_its_hours(root):
    headlines = read_claims(root / "resources/published/headline.csv")
    runs = runs_of((*PRETRAIN, 590 * 3600, GPU, "ok"))
    table = cost(training_runs([runs]), published=headlines)
    published = table.iloc[-1]
    assert published["kind"] == "published"
    assert total(table)["kwh"] == pytest.approx(published["kwh"])
    assert round(total(table)["kg_co2e"]) == published["kg_co2e"]
    assert "**590**" in as_markdown(table, 300, 0.207)


def test_measured_power_takes_the_place_of_the_configured_one():
    runs = runs_of((*PRETRAIN, 3600, GPU, "ok"), (*DIRECT, 7200, GPU, "ok"))
    runs.loc[runs["kind"] == "direct", "power_w_mean"] = 100.0
    table = cost(training_runs([runs]), power_w=300, carbon_kg_per_kwh=0.5)
    assert total(table)["kwh"] == pytest.approx(0.3 + 0.2)
    assert total(table)["kg_co2e"] == pytest.approx(0.25)
    assert table.set_index("kind")["with_power"].to_dict() == {
        "pretrain": 0,
        "direct": 1,
        "total": 1,
    }


def test_cpu_hours_are_counted_apart_and_without_electricity():
    runs = runs_of((*DIRECT, 3600, "cpu", "ok"), (*TUNED, 1800, GPU, "ok"))
    table = cost(training_runs([runs]))
    assert total(table, "cpu")["hours"] == 1.0
    assert pd.isna(total(table, "cpu")["kwh"])
    assert total(table)["hours"] == 0.5


def test_a_run_counts_once_and_tests_of_pretrained_models_do_not():
    tests = [("pretrain", target, *PRETRAIN[2:], 5, GPU, "ok") for target in ("A", "B")]
    one = runs_of((*PRETRAIN, 3600, GPU, "ok"), *tests, (*DIRECT, "", "", "missing"))
    two = runs_of((*DIRECT, 7200, GPU, "ok"), (*DIRECT, 7200, GPU, "ok"))
    table = cost(training_runs([one, two]))
    assert total(table)["runs"] == 2
    assert total(table)["hours"] == 3.0


def test_runs_without_time_are_said(root):
    runs = runs_of((*DIRECT, "", "", "ok"), (*TUNED, "", "", "missing"))
    runs.loc[runs["kind"] == "finetune", "structures"] = "C-SYNTH-23M"
    costs = published_costs(root / "resources/published/training-cost.csv")
    table = cost(training_runs([runs]), costs=costs)
    assert total(table, "unknown")["without_time"] == 1
    # 50 s is the published median of this fine-tuning.
    assert total(table, "not run")["expected_hours"] == pytest.approx(50 / 3600)


def test_pretrainings_that_are_not_counted_are_said():
    one = training_runs([runs_of((*TUNED, 50, GPU, "ok"))])
    assert pretrainings_left_out(one) == 1
    assert "Pre-trainings that are not counted: 1." in as_markdown(cost(one), 300, 0.207, 1)
    both = training_runs([runs_of((*TUNED, 50, GPU, "ok"), (*PRETRAIN, 50, GPU, "ok"))])
    assert pretrainings_left_out(both) == 0


def test_published_records_are_complete(root):
    costs = published_costs(root / "resources/published/training-cost.csv")
    assert costs["runs"].sum() == 717
    hours = (costs["runs"] * costs["gpu_seconds_median"]).sum() / 3600
    assert hours == pytest.approx(502.6, abs=0.1)


@pytest.mark.parametrize("power", [0.0, -1.0, float("nan")])
def test_impossible_power_is_refused(power):
    with pytest.raises(UserError, match="power"):
        cost(training_runs([runs_of((*DIRECT, 1, GPU, "ok"))]), power_w=power)


def grid_file(folder):
    header = "kind target structures transform source npre preseed n seed experiments path imported"
    lines = [
        header,
        "pretrain ~ S none ace 100 42 0 42 fig2,fig4 runs/a False",
        "pretrain ~ S none ace 330 42 0 42 fig2 runs/imported True",
        "direct T ~ none none 0 0 25 1 fig4 runs/b False",
    ]
    path = folder / "grid.tsv"
    path.write_text("\n".join(lines).replace(" ", "\t").replace("~", "") + "\n")
    return path


def test_program_reads_the_metrics_of_the_grid(tmp_path, root):
    grid = grid_file(tmp_path)
    assert read_training_grid(grid)["metrics"].tolist() == [
        "runs/a/metrics.json",
        "runs/b/metrics.json",
    ]
    errors = {"energy_rmse_mev_per_atom": 1.0, "force_rmse_ev_per_angstrom": 1.0}
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/metrics.json").write_text(
        json.dumps({"test": errors, "wall_time_s": 7200, "device": GPU})
    )
    command = [sys.executable, root / "workflow/scripts/cost.py", "--grid", grid]
    command += ["--results", tmp_path, "--out", tmp_path / "cost.csv"]
    command += ["--markdown", tmp_path / "cost.md", "--power-w", "500"]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert "runs/b/metrics.json: no result of the run direct" in failed.stderr
    subprocess.run([*command, "--allow-missing"], check=True)
    table = pd.read_csv(tmp_path / "cost.csv", keep_default_na=False)
    assert float(total(table)["kwh"]) == 1.0
    assert total(table, "not run")["runs"] == 1
    by_experiment = table[table["kind"] == "experiment"].set_index(["experiment", "device"])
    assert float(by_experiment.loc[("fig2", "gpu"), "hours"]) == 2.0
    assert float(by_experiment.loc[("fig4", "gpu"), "hours"]) == 2.0
    assert set(by_experiment.index) == {("fig2", "gpu"), ("fig4", "gpu"), ("fig4", "not run")}
    assert "| experiment | fig4 | gpu |" in (tmp_path / "cost.md").read_text()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_order_does_not_matter(seconds, random):
    runs = runs_of(*((*DIRECT[:5], seed, time, GPU, "ok") for seed, time in enumerate(seconds)))
    mixed = list(range(len(runs)))
    random.shuffle(mixed)
    pd.testing.assert_frame_equal(
        cost(training_runs([runs.iloc[mixed]])), cost(training_runs([runs]))
    )
