"""The runs table: collecting metrics files, reading tables, naming what is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretraining.results.runs_table import (
    COLUMNS,
    GRID_COLUMNS,
    collect,
    read_grid,
    read_runs,
    unique_runs,
)
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import read_csv, write_csv

HEADER = ",".join(COLUMNS)


def metrics_file(folder: Path, energy: float | None = 70.0, **more) -> Path:
    path = folder / "metrics.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    errors = {"energy_rmse_mev_per_atom": energy, "force_rmse_ev_per_angstrom": 0.9}
    content = {"kind": "finetune", "n": 25, "seed": 1, "test": errors, "val": errors}
    path.write_text(json.dumps({**content, "epochs": 3, "wall_time_s": 12.5, **more}))
    return path


def grid_file(folder: Path, *metrics: str) -> Path:
    lines = ["\t".join(GRID_COLUMNS)]
    for seed, path in enumerate(metrics, start=1):
        row = ["finetune", "T", "S", "none", "ace", "100", "42", "25", str(seed), "", path]
        lines.append("\t".join(row))
    path = folder / "grid.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


def runs_file(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "runs.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_collected_row_holds_identity_errors_and_records(tmp_path):
    metrics_file(tmp_path / "a", device="cpu", best_epoch=2, config_hash="abc")
    runs = collect(read_grid(grid_file(tmp_path, "a/metrics.json")), tmp_path)
    assert list(runs.columns[:8]) == list(COLUMNS)
    row = runs.iloc[0]
    assert (row["kind"], row["source"], row["npre"], row["n"], row["seed"]) == (
        "finetune",
        "ace",
        100,
        25,
        1,
    )
    assert row["test_energy_rmse"] == 70.0
    assert row["test_force_rmse"] == 0.9
    assert row["val_energy_rmse"] == 70.0
    assert math.isnan(row["train_energy_rmse"])
    assert row["wall_time_s"] == 12.5
    assert row["status"] == "ok"
    assert row["config_hash"] == "abc"


def test_collected_table_survives_writing_and_reading(tmp_path):
    metrics_file(tmp_path / "a")
    metrics_file(tmp_path / "b", seed=2, energy=None)
    runs = collect(read_grid(grid_file(tmp_path, "a/metrics.json", "b/metrics.json")), tmp_path)
    write_csv(tmp_path / "runs.csv", runs)
    again = read_runs(tmp_path / "runs.csv")
    assert list(again["status"]) == ["ok", "diverged"]
    assert math.isnan(again["test_energy_rmse"].iloc[1])
    assert again["preseed"].iloc[0] == "42"


@pytest.mark.parametrize("energy", [None, float("nan"), float("inf")])
def test_a_run_without_finite_error_is_diverged(tmp_path, energy):
    metrics_file(tmp_path / "a", energy=energy)
    runs = collect(read_grid(grid_file(tmp_path, "a/metrics.json")), tmp_path)
    assert runs["status"].iloc[0] == "diverged"


def test_missing_result_is_an_error_that_names_the_run(tmp_path):
    metrics_file(tmp_path / "a")
    grid = read_grid(grid_file(tmp_path, "a/metrics.json", "b/metrics.json"))
    with pytest.raises(UserError, match=r"source=ace npre=100 .*n=25 seed=2 \(1 of 2 missing\)"):
        collect(grid, tmp_path)


def test_allowed_missing_result_stays_as_a_row_without_errors(tmp_path):
    metrics_file(tmp_path / "a")
    grid = read_grid(grid_file(tmp_path, "a/metrics.json", "b/metrics.json"))
    runs = collect(grid, tmp_path, allow_missing=True)
    assert list(runs["status"]) == ["ok", "missing"]
    assert math.isnan(runs["test_energy_rmse"].iloc[1])


def test_metrics_of_another_run_are_refused(tmp_path):
    metrics_file(tmp_path / "a", n=50)
    with pytest.raises(UserError, match="is of n=50"):
        collect(read_grid(grid_file(tmp_path, "a/metrics.json")), tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"test": {"energy_rmse_mev_per_atom": "x"}}'])
def test_damaged_metrics_are_named(tmp_path, text):
    path = metrics_file(tmp_path / "a")
    path.write_text(text)
    with pytest.raises(UserError, match="a/metrics.json"):
        collect(read_grid(grid_file(tmp_path, "a/metrics.json")), tmp_path)


def test_the_script_writes_the_table_and_one_line_for_an_error(tmp_path, script):
    metrics_file(tmp_path / "a")
    grid = grid_file(tmp_path, "a/metrics.json", "b/metrics.json")
    options = ["--grid", grid, "--results", tmp_path, "--out", tmp_path / "runs.csv"]
    status, message = script("collect_runs", *options)
    assert status == 1 and message.startswith("error: ") and message.count("\n") == 1
    assert script("collect_runs", *options, "--allow-missing") == (0, "")
    assert len(read_runs(tmp_path / "runs.csv")) == 2


def test_eight_columns_are_enough(tmp_path):
    runs = read_runs(runs_file(tmp_path, "direct,T,none,0,25,1,190.0,1.3"))
    assert runs["transform"].iloc[0] == "none"
    assert runs["status"].iloc[0] == "ok"
    assert not runs["diverged"].iloc[0]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("direct,T,none,0,many,1,190.0,1.3", "column n, line 2: 'many' is not a whole number"),
        ("direct,T,none,0,25,1.5,190.0,1.3", "column seed, line 2"),
        ("direct,T,none,0,25,1,big,1.3", "column test_energy_rmse, line 2: 'big'"),
        ("direct,T,none,0,25,1,-3,1.3", "column test_energy_rmse has a negative value"),
        ("training,T,none,0,25,1,190.0,1.3", "column kind, line 2: 'training'"),
        ("direct,T,ace,100,25,1,190.0,1.3", "line 2: direct training has the source 'none'"),
        ("finetune,T,ace,,25,1,190.0,1.3", "column npre, line 2"),
        ("direct,T,none,0,0,1,190.0,1.3", "line 2: training has an n of 1 or more"),
        ("direct,,none,0,25,1,190.0,1.3", "line 2: column target is empty"),
        ("finetune,T,,100,25,1,190.0,1.3", "line 2: without a label source it is direct training"),
        ("finetune,T,none,100,25,1,190.0,1.3", "line 2: without a label source"),
        ("finetune,T,-,100,25,1,190.0,1.3", "line 2: without a label source"),
        ("pretrain,T,,100,0,1,190.0,1.3", "line 2: without a label source"),
        ("source,T,,0,0,0,190.0,1.3", "line 2: without a label source"),
        ("finetune,T,ace,0,25,1,190.0,1.3", "line 2: pre-training has an npre of 1 or more"),
    ],
)
def test_bad_cells_are_named(tmp_path, row, problem):
    with pytest.raises(UserError, match=problem) as error:
        read_runs(runs_file(tmp_path, row))
    assert "runs.csv" in str(error.value)


def test_bad_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no column seed"):
        read_runs(runs_file(tmp_path, "x", header=HEADER.replace("seed,", "")))
    with pytest.raises(UserError, match="no rows"):
        read_runs(runs_file(tmp_path))
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(UserError, match="empty"):
        read_runs(empty)
    with pytest.raises(UserError, match="no such file"):
        read_runs(tmp_path / "none.csv")
    for path, words in [(tmp_path / "none.csv", "none.csv: no such"), (empty, "is empty")]:
        with pytest.raises(UserError, match=words):
            read_csv(path, ["x"])
    empty.write_text("y\n1\n")
    with pytest.raises(UserError, match="no column x"):
        read_csv(empty, ["x"])


@pytest.mark.parametrize("text", ["", "nan", "NaN", "inf"])
def test_lost_results_are_read_as_not_finite(tmp_path, text):
    runs = read_runs(runs_file(tmp_path, f"direct,T,none,0,25,1,{text},1.3"))
    assert not np.isfinite(runs["test_energy_rmse"].iloc[0])


def test_a_run_listed_twice_counts_once_and_must_agree(tmp_path):
    row = "direct,T,none,0,25,1,190.0,1.3"
    assert len(unique_runs(read_runs(runs_file(tmp_path, row, row)))) == 1
    lost = "direct,T,none,0,25,1,nan,nan"
    assert len(unique_runs(read_runs(runs_file(tmp_path, lost, lost)))) == 1
    other = "direct,T,none,0,25,1,191.0,1.3"
    with pytest.raises(UserError, match="direct target=T .*seed=1 is listed twice"):
        unique_runs(read_runs(runs_file(tmp_path, row, other)))


def test_a_result_takes_the_place_of_a_missing_row(tmp_path):
    rows = ["direct,T,none,0,25,1,,,missing", "direct,T,none,0,25,1,190.0,1.3,ok"]
    runs = unique_runs(read_runs(runs_file(tmp_path, *rows, header=HEADER + ",status")))
    assert list(runs["status"]) == ["ok"]


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_numbers_survive_writing(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("numbers") / "t.csv"
    write_csv(path, pd.DataFrame({"x": values}), floats="%.17g")
    assert list(pd.read_csv(path)["x"]) == values


def test_errors_after_a_shift_power_and_use_of_gpus_are_kept(tmp_path):
    errors = {"energy_rmse_mev_per_atom": 300.0, "force_rmse_ev_per_angstrom": 0.9}
    errors["energy_rmse_after_median_shift_mev_per_atom"] = 40.0
    use = [{"gpu": "GPU-a", "start": "2026-11-21T16:00:00+00:00", "start_j": None}]
    metrics_file(tmp_path / "a", test=errors, power_w_mean=215.5, gpu_use=use)
    metrics_file(tmp_path / "b", seed=2)
    runs = collect(read_grid(grid_file(tmp_path, "a/metrics.json", "b/metrics.json")), tmp_path)
    write_csv(tmp_path / "runs.csv", runs)
    again = read_runs(tmp_path / "runs.csv")
    assert again["test_energy_shifted_rmse"].tolist()[0] == 40.0
    assert again["power_w_mean"].tolist()[0] == 215.5
    assert again[["test_energy_shifted_rmse", "power_w_mean"]].iloc[1].isna().all()
    assert json.loads(again["gpu_use"][0]) == use and again["gpu_use"][1] == ""


def test_a_table_of_collected_runs_stands_in_for_metrics_files(tmp_path):
    metrics_file(tmp_path / "a", gpu_use=[{"gpu": "x"}], config_hash="0123")
    metrics_file(tmp_path / "b", energy=None, seed=2)
    grid = read_grid(grid_file(tmp_path, "a/metrics.json", "b/metrics.json", "c/metrics.json"))
    first = collect(grid, tmp_path, allow_missing=True)
    shipped = tmp_path / "shipped.csv"
    write_csv(shipped, first[first["status"] != "missing"])
    for folder in "ab":
        (tmp_path / folder / "metrics.json").unlink()
    again = collect(grid, shipped, allow_missing=True)
    assert again["status"].tolist() == ["ok", "diverged", "missing"]
    files = [tmp_path / name for name in ("first.csv", "again.csv")]
    for path, table in zip(files, (first, again), strict=True):
        write_csv(path, table)
    assert files[0].read_text() == files[1].read_text()
    with pytest.raises(UserError, match="1 of 3 missing"):
        collect(grid, shipped)
    # No row is taken from a file that happens to be there.
    metrics_file(tmp_path / "c", seed=3)
    assert collect(grid, shipped, allow_missing=True)["status"].tolist()[-1] == "missing"
    lines = shipped.read_text().splitlines()
    for text, words in [
        ("\n".join([*lines, lines[1].replace(",70,", ",71,", 1)]), "finetune .* is listed twice"),
        ("\n".join(lines).replace(",70,", ",many,", 1), "line 2: 'many' is not a number"),
    ]:
        shipped.write_text(text)
        with pytest.raises(UserError, match=f"shipped.csv: .*{words}"):
            collect(grid, shipped, allow_missing=True)
    shipped.write_text("kind,target\n")
    with pytest.raises(UserError, match="shipped.csv: no column"):
        collect(grid, shipped)
