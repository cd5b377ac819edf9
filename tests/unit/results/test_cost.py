"""What training costs: hours, electricity, carbon dioxide."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretraining.results.cost import (
    as_markdown,
    collect_trainings,
    cost,
    gpu_shares,
    pretrainings_left_out,
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


def use(start: float, end: float, watts: float | None = None, gpu: str = "GPU-a") -> dict:
    """A record of a GPU from hour to hour of a day, at a constant power if it was measured."""
    day = datetime(2026, 11, 21, tzinfo=UTC)
    times = {"start": start, "end": end}
    record = {"gpu": gpu} | {k: (day + timedelta(hours=h)).isoformat() for k, h in times.items()}
    counter = {f"{k}_j": None if watts is None else 3600 * watts * h for k, h in times.items()}
    return record | counter


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
    # Core hours.
    runs["threads"] = 4
    assert total(cost(training_runs([runs])), "cpu")["hours"] == 4.0
    assert total(cost(training_runs([runs])))["hours"] == 0.5


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
    trained = collect_trainings(grid, tmp_path, allow_missing=True)
    assert trained[["kind", "experiments"]].to_numpy().tolist() == [
        ["pretrain", "fig2,fig4"],
        ["direct", "fig4"],
    ]
    errors = {"energy_rmse_mev_per_atom": 1.0, "force_rmse_ev_per_angstrom": 1.0}
    (tmp_path / "runs/a").mkdir(parents=True)
    # Two hours of a GPU; the wall time does not count.
    records = {"wall_time_s": 7300, "device": "cuda", "gpu_use": [use(0, 1), use(3, 4)]}
    (tmp_path / "runs/a/metrics.json").write_text(json.dumps({"test": errors} | records))
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
    text = (tmp_path / "cost.md").read_text()
    assert re.search(r"\| experiment +\| fig4 +\| gpu +\|", text)


# -- GPUs that runs share ------------------------------------------------------------------------


def sharing(*uses: list[dict]) -> pd.DataFrame:
    """Runs that each have some records of GPUs."""
    return pd.DataFrame({"gpu_use": [json.dumps(records) if records else "" for records in uses]})


SHARED = {
    "disjoint": ([[use(0, 1)], [use(2, 4)]], [1, 2]),
    "adjacent": ([[use(0, 1)], [use(1, 2)]], [1, 1]),
    "equal": ([[use(0, 2)]] * 8, [0.25] * 8),
    "overlapping": ([[use(0, 2)], [use(1, 3)]], [1.5, 1.5]),
    "nested": ([[use(0, 4)], [use(1, 2)]], [3.5, 0.5]),
    "three": ([[use(0, 6)], [use(2, 5)], [use(3, 4)]], [13 / 3, 4 / 3, 1 / 3]),
    "resumed": ([[use(0, 1), use(3, 5)], [use(0, 4)]], [2, 3]),
    "another GPU": ([[use(0, 2)], [use(0, 2, gpu="GPU-b")]], [2, 2]),
    "resumed elsewhere": ([[use(0, 1), use(2, 3, gpu="GPU-b")], [use(0, 3)]], [1.5, 2.5]),
    "no duration": ([[use(0, 2), use(1, 1)]], [2]),
}


@pytest.mark.parametrize(("uses", "hours"), SHARED.values(), ids=SHARED)
def test_runs_share_the_hours_of_a_gpu(uses, hours):
    shares = gpu_shares(sharing(*uses), power_w=100)
    assert (shares["seconds"] / 3600).tolist() == pytest.approx(hours)
    assert (shares["joules"] / 3.6e5).tolist() == pytest.approx(hours)


def test_the_energy_of_a_gpu_is_that_of_its_counter():
    """100 W for an hour, 300 W for the hour in which the second run uses it, too."""
    long = use(0, 2) | {"start_j": 0, "end_j": 3600 * 400}
    short = use(1, 2) | {"start_j": 3600 * 100, "end_j": 3600 * 400}
    shares = gpu_shares(sharing([long], [short]), power_w=999)
    assert (shares["joules"] / 3600).tolist() == [250, 150]


def test_energy_without_readings_follows_from_the_powers_of_the_moment():
    runs = sharing([use(0, 4, 200)], [use(1, 2)], [use(3, 6)], [use(8, 9)])
    shares = gpu_shares(runs, power_w=50)
    # 200 W while the first runs; the others have measured nothing.
    assert (shares["joules"] / 3600).tolist() == pytest.approx([600, 100, 200, 50])


def test_a_shared_gpu_counts_once_in_every_sum():
    runs = runs_of(*((*TUNED[:5], seed, 3600, GPU, "ok") for seed in range(4)))
    # The last has no records: its wall time counts.
    uses = sharing([use(0, 2, 100)], [use(1, 3, 100)], [use(1, 2, 100)], [])
    runs = training_runs([runs.assign(**uses, experiments=["a", "a,b", "b", "b"])])
    table = cost(runs, power_w=300)
    assert total(table)["hours"] == pytest.approx(3 + 1)
    assert total(table)["kwh"] == pytest.approx(0.3 + 0.3)
    by_name = table[table["kind"] == "experiment"].set_index("experiment")["hours"]
    shares = [1 + 1 / 3, 1 / 3 + 1, 1 / 3, 1]
    assert by_name["a"] == pytest.approx(shares[0] + shares[1])
    assert by_name["b"] == pytest.approx(sum(shares[1:]))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), max_size=8))
def test_shares_add_up_to_the_union(spans):
    """Whatever the runs' times, a GPU of constant power costs its union of times."""
    uses = [use(min(a, b), max(a, b), 100 if known else None) for a, b, known in spans]
    hours = {hour for a, b, _ in spans for hour in range(min(a, b), max(a, b))}
    shares = gpu_shares(sharing(*([record] for record in uses)), power_w=100).sum()
    assert shares["seconds"] == pytest.approx(3600 * len(hours))
    assert shares["joules"] == pytest.approx(3.6e5 * len(hours))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_order_does_not_matter(seconds, random):
    runs = runs_of(*((*DIRECT[:5], seed, time, GPU, "ok") for seed, time in enumerate(seconds)))
    mixed = list(range(len(runs)))
    random.shuffle(mixed)
    pd.testing.assert_frame_equal(
        cost(training_runs([runs.iloc[mixed]])), cost(training_runs([runs]))
    )
