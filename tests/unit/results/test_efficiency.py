"""Data efficiency: fewest structures for the same accuracy, gains, and the published numbers."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretraining.results.efficiency import as_markdown, efficiency, gains
from pretraining.results.published import claims_of_efficiency, read_claims
from pretraining.results.runs_table import COLUMNS, MEAN_SHIFTED, normalise
from pretraining.runtime.errors import UserError

DIRECT = {25: 166.5, 50: 150.0, 100: 125.0, 200: 94.0, 400: 84.0, 800: 66.0, 1600: 55.0}
UNMEASURED = {"start_j": None, "end_j": None}
TUNED = {25: 61.1, 50: 60.0, 100: 56.0, 200: 50.0}


def runs_of(
    direct=DIRECT, tuned=TUNED, times=None, extra=(), source="ace", npre=100_000
) -> pd.DataFrame:
    """One fine-tuning seed and two direct ones, of which the second is worse by a tenth."""
    rows = []
    for n, error in direct.items():
        for seed in (1, 2):
            rows.append(("direct", "C-GAP-17", "none", 0, n, seed, error * (0.9 + seed / 10), 1))
    for n, error in tuned.items():
        rows.append(("finetune", "C-GAP-17", source, npre, n, 42, error, 2))
    table = pd.DataFrame([*rows, *extra], columns=list(COLUMNS))
    if times is not None:
        table["train_time_s"] = [
            times.get((r.kind, r.n, r.seed), "") for r in table.itertuples(index=False)
        ]
        table["device"] = "NVIDIA RTX A6000"
    return normalise(table, "runs")


def row_of(table: pd.DataFrame, n: int, metric="energy", aggregate="best") -> pd.Series:
    chosen = table[(table["n_direct"] == n) & (table["metric"] == metric)]
    return chosen[chosen["aggregate"] == aggregate].iloc[0]


def test_the_published_case_25_instead_of_800():
    row = row_of(efficiency(runs_of()), 800)
    assert (row["n_finetune"], row["ratio"], row["at_least"]) == (25, 32.0, "true")
    assert (row["rmse_direct"], row["rmse_finetune"]) == (66.0, 61.1)
    assert (row["seeds_direct"], row["seeds_finetune"]) == (2, 1)


def test_the_fewest_structures_are_found_beyond_the_smallest_size():
    table = efficiency(runs_of())
    row = row_of(table, 1600)
    assert (row["n_finetune"], row["ratio"], row["at_least"]) == (200, 8.0, "false")
    # The mean of the direct seeds is easier to reach than the best.
    assert row_of(table, 1600, aggregate="mean")["n_finetune"] == 100


def test_equal_accuracy_is_enough():
    row = row_of(efficiency(runs_of(tuned={25: 66.0})), 800)
    assert row["ratio"] == 32.0


def test_structures_that_fewer_equal_are_no_measure():
    """Direct training with 8 that is worse than with 4 makes no ratio of 8."""
    table = efficiency(runs_of(direct={4: 13.0, 8: 19.0, 16: 12.0}, tuned={4: 15.0, 8: 10.0}))
    energy = table[(table["metric"] == "energy") & (table["aggregate"] == "best")]
    assert energy[["n_direct", "ratio"]].values.tolist() == [[4, 0.5], [16, 2]]


def test_what_is_never_reached_is_empty():
    table = efficiency(runs_of())
    row = row_of(table, 25, metric="force")
    assert pd.isna(row["n_finetune"])
    assert math.isnan(row["ratio"])
    assert "none reached" in as_markdown(table)


def test_time_ratios_span_fastest_and_slowest_seed():
    times = {("direct", 800, 1): 15 * 60, ("direct", 800, 2): 44 * 60, ("finetune", 25, 42): 35}
    row = row_of(efficiency(runs_of(times=times)), 800)
    assert row["train_time_ratio_min"] == pytest.approx(25.7, abs=0.05)
    assert row["train_time_ratio_max"] == pytest.approx(75.4, abs=0.05)
    assert "training time ratio 26 to 75." in as_markdown(efficiency(runs_of(times=times)))
    untimed = row_of(efficiency(runs_of()), 800)
    assert math.isnan(untimed["train_time_ratio_min"])


def test_times_of_different_devices_are_not_compared():
    runs = runs_of(times={("direct", 800, 1): 900, ("finetune", 25, 42): 35})
    runs.loc[runs["kind"] == "direct", "device"] = "cpu"
    assert math.isnan(row_of(efficiency(runs), 800)["train_time_ratio_min"])


def test_times_on_a_shared_gpu_do_not_count():
    """Those of runs that had the GPU for themselves do."""
    times = {("direct", 800, 1): 900, ("direct", 800, 2): 2640, ("finetune", 25, 42): 35}
    runs = runs_of(times=times)

    def use(start, end):
        return json.dumps([{"gpu": "GPU-0", "start": start, "end": end} | UNMEASURED])

    def at(hour, minute):
        return f"2026-01-01T{hour:02}:{minute:02}:00+00:00"

    runs["gpu_use"] = ""
    for kind, n, seed, start, end in (
        ("direct", 800, 1, at(0, 0), at(0, 15)),
        ("direct", 800, 2, at(1, 0), at(1, 44)),
        ("finetune", 25, 42, at(2, 0), at(2, 1)),
        # Beside the second direct training.
        ("finetune", 50, 42, at(1, 43), at(1, 50)),
    ):
        row = (runs["kind"] == kind) & (runs["n"] == n) & (runs["seed"] == seed)
        runs.loc[row, "gpu_use"] = use(start, end)
    row = row_of(efficiency(runs), 800)
    assert row["train_time_ratio_min"] == row["train_time_ratio_max"] == pytest.approx(900 / 35)


def test_training_times_at_the_same_number_of_structures():
    times = {("direct", 25, 1): 80, ("direct", 25, 2): 120, ("finetune", 25, 42): 20}
    row = gains(runs_of(times=times)).iloc[0]
    assert (row["n"], row["train_time_ratio_min"], row["train_time_ratio_max"]) == (25, 4, 6)


def test_the_untuned_model_is_reported_apart():
    extra = [("pretrain", "C-GAP-17", "ace", 100_000, 0, 42, 80.0, 1)]
    table = efficiency(runs_of(extra=extra))
    assert row_of(table, 400)["untuned_reaches"] == "true"
    assert row_of(table, 800)["untuned_reaches"] == "false"
    assert row_of(table, 800)["n_finetune"] == 25
    assert row_of(efficiency(runs_of()), 800)["untuned_reaches"] == ""


def test_lost_runs_are_left_out():
    runs = runs_of(direct={25: 100.0}, tuned={8: float("nan"), 16: 90.0})
    assert row_of(efficiency(runs), 25)["n_finetune"] == 16


def test_without_direct_training_there_is_nothing_to_compare():
    table = efficiency(runs_of(direct={}))
    assert table.empty
    assert "n_finetune" in table
    assert "Nothing to compare" in as_markdown(table)
    with pytest.raises(UserError, match="no runs with target 'X'; there are: C-GAP-17"):
        efficiency(runs_of(), "X")


def test_published_gain():
    table = gains(runs_of())
    row = table[(table["n"] == 25) & (table["metric"] == "energy")].iloc[0]
    assert row["aggregate"] == "best"
    assert row["gain"] == pytest.approx(105.4)
    assert row["gain_percent"] == pytest.approx(63.3, abs=0.01)


def test_published_numbers_stand_beside_the_computed_ones(root):
    claims = read_claims(root / "resources/published/headline.csv")
    runs = runs_of()
    found = claims_of_efficiency(claims, efficiency(runs), gains(runs), runs)
    energy = found[(found["quantity"] == "data_efficiency") & (found["metric"] == "energy")]
    assert energy[["computed", "value", "difference"]].iloc[0].tolist() == [32.0, 32.0, 0.0]
    other = found[found["source"] == "edip"]
    assert other["computed"].isna().all()
    text = " ".join(as_markdown(efficiency(runs), None, found).split())
    assert "| 63.3 | = 63 | +0.303 | % | paper section 4 |" in text


def test_the_gain_of_empirical_sources_is_stated_by_records_means_and_text(root):
    claims = read_claims(root / "resources/published/headline.csv")
    runs = runs_of(direct={25: 166.5}, tuned={25: 131.9}, source="edip", npre=10_000)
    found = claims_of_efficiency(claims, efficiency(runs), gains(runs), runs)
    found = found[(found["quantity"] == "gain_percent") & (found["source"] == "edip")]
    energy = found[found["metric"] == "energy"].set_index(["aggregate", "origin"])
    best = energy.loc[("best", "published records")]
    assert best["value"] == 20.8 and abs(best["difference"]) < 0.05
    assert energy.loc[("best", "paper section 5.1"), "value"] == 25
    assert energy.loc[("mean", "Table 1"), "value"] == 29.1


def test_published_errors_of_sources_and_times_stand_beside_the_computed_ones(root):
    claims = read_claims(root / "resources/published/headline.csv")
    times = {("direct", 800, 1): 1200, ("direct", 800, 2): 2400, ("finetune", 25, 42): 30}
    extra = [("source", "C-GAP-17", "ace", 0, 0, 0, 500.0, 0.75)]
    extra += [("pretrain", "C-GAP-17", "ace", 10_000, 0, 42, 300.0, 0.9)]
    runs = runs_of(times=times, extra=extra)
    runs[MEAN_SHIFTED] = runs["kind"].map({"source": 90.0, "pretrain": 120.0})
    found = claims_of_efficiency(claims, efficiency(runs), gains(runs), runs)
    found = found[found["computed"].notna()].set_index(["quantity", "metric"])
    assert found.loc[("source_error", "energy"), "difference"] == pytest.approx(90 - 90.7)
    assert found.loc[("source_error", "force"), "difference"] == pytest.approx(0.75 - 0.732)
    assert found.loc[("untuned_error", "energy"), "difference"] == pytest.approx(120 - 112.9)
    assert found.loc[("wall_time", ""), "computed"] == 30
    assert found.loc[("wall_time_min", ""), ["computed", "value"]].tolist() == [20, 15]
    assert found.loc[("wall_time_max", ""), ["computed", "value"]].tolist() == [40, 44]


def test_the_summary_leaves_out_what_says_nothing():
    """As many structures instead of as many, and pre-trainings without a run."""
    runs = runs_of(direct={25: 166.5, 50: 60.0}, tuned={25: 100.0, 50: 61.0})
    text = as_markdown(efficiency(runs))
    assert "25 instead of 25" not in text and "| energy" not in text
    assert "No fine-tuned model is yet as accurate as direct training on more" in text
    runs.loc[runs["kind"] == "finetune", "status"] = "missing"
    assert efficiency(runs).empty


def test_summary_states_metric_seeds_and_size():
    text = as_markdown(efficiency(runs_of()))
    assert (
        "- C-GAP-17: 25 instead of 800 (at least 32×) in energy, best of seeds, C-ACE, 100,000 "
        "pre-training structures: 61.1 against 66 meV/atom."
    ) in text


def test_the_script(tmp_path, root, script):
    runs_of()[list(COLUMNS)].to_csv(tmp_path / "runs.csv", index=False)
    options = ["--runs", tmp_path / "runs.csv", "--out", tmp_path / "e.csv"]
    options += ["--gains", tmp_path / "g.csv", "--markdown", tmp_path / "e.md"]
    options += ["--published", root / "resources/published/headline.csv"]
    assert script("efficiency", *options, "--differences", tmp_path / "d.csv") == (0, "")
    table = pd.read_csv(tmp_path / "e.csv")
    assert row_of(table, 800)["ratio"] == 32
    assert all((tmp_path / name).stat().st_size for name in ("g.csv", "e.md", "d.csv"))


ERRORS = st.dictionaries(
    st.sampled_from([8, 25, 50, 100]), st.sampled_from([10.0, 20.0, 30.0]), min_size=1
)


@settings(max_examples=20, deadline=None)
@given(ERRORS, ERRORS, st.randoms(use_true_random=False))
def test_ratios_are_of_sizes_that_suffice(direct, tuned, random):
    runs = runs_of(direct=direct, tuned=tuned)
    table = efficiency(runs)
    mixed = list(range(len(runs)))
    random.shuffle(mixed)
    pd.testing.assert_frame_equal(efficiency(runs.iloc[mixed]), table)
    for row in table[(table["metric"] == "energy") & (table["aggregate"] == "best")].itertuples():
        enough = [n for n, error in tuned.items() if error <= row.rmse_direct]
        if enough:
            assert row.n_finetune == min(enough)
            assert row.ratio == row.n_direct / row.n_finetune
        else:
            assert pd.isna(row.n_finetune)
