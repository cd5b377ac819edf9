"""What the training runs cost: hours, electricity and carbon dioxide."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pretraining.results.runs_table import GRID_COLUMNS, KEY
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown_table, read_table, truths
from pretraining.study.estimate import estimated_seconds

POWER_W = 300.0
CARBON_KG_PER_KWH = 0.207
TRAINED = ("pretrain", "direct", "finetune")
_SUMS = ("runs", "without_time", "with_power", "hours", "kwh", "expected_hours")
_KINDS = (*TRAINED, "experiment", "total", "published")
_ORDER = {kind: place for place, kind in enumerate(_KINDS)}


def read_training_grid(path: str | Path) -> pd.DataFrame:
    """Read the table of all training runs as a grid of wanted results.

    Parameters
    ----------
    path
        The columns of a run's identity and ``path``, the run's folder relative to the results;
        runs marked in an ``imported`` column were not trained here and are left out.

    Raises
    ------
    UserError
        Naming the file and the column.
    """
    grid = read_table(path, (*KEY, "path"), "the table of training runs")
    if "imported" in grid:
        grid = grid[~truths(grid["imported"], path)]
    grid = grid.assign(metrics=grid["path"] + "/metrics.json", trained_on="")
    return grid[list(GRID_COLUMNS)]


def add_experiments(runs: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Add to collected runs which experiments want them, as the table of training runs says."""
    grid = read_table(path, (*KEY, "experiments"), "the table of training runs")
    names = grid[list(KEY)].apply(tuple, axis=1)
    wanted = dict(zip(names, grid["experiments"], strict=True))
    keys = runs[list(KEY)].astype(str).apply(tuple, axis=1)
    return runs.assign(experiments=keys.map(wanted))


def training_runs(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """All training runs of one or more runs tables, each once.

    A row of kind ``pretrain`` that has a target is a test of a pre-trained model, not its training.
    Of the rows of one run, one with a time is kept rather than one without, and one without rather
    than one that says the run is missing.
    """
    runs = pd.concat(tables, ignore_index=True)
    tests = (runs["kind"] == "pretrain") & (runs["target"] != "")
    runs = runs[runs["kind"].isin(TRAINED) & ~tests].copy()
    runs["device"] = runs["device"].fillna("").astype(str) if "device" in runs else ""
    order = runs.assign(_missing=runs["status"] == "missing", _no_time=runs["wall_time_s"].isna())
    runs = order.sort_values(["_no_time", "_missing"], kind="stable")
    runs = runs.drop_duplicates(list(KEY)).drop(columns=["_missing", "_no_time"])
    return runs.reset_index(drop=True)


def pretrainings_left_out(runs: pd.DataFrame) -> int:
    """How many pre-trainings the fine-tuned runs started from that are not among the runs."""
    key = ["structures", "transform", "source", "npre", "preseed"]
    started = runs.loc[runs["kind"] == "finetune", key].drop_duplicates()
    there = runs.loc[runs["kind"] == "pretrain", key].drop_duplicates()
    return len(started) - len(started.merge(there, on=key))


def cost(
    runs: pd.DataFrame,
    power_w: float = POWER_W,
    carbon_kg_per_kwh: float = CARBON_KG_PER_KWH,
    published: pd.DataFrame | None = None,
    costs: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Add up the recorded wall times.

    Parameters
    ----------
    runs
        As :func:`training_runs` returns them.
    power_w
        Power in W drawn by the GPU of a run that has no measured mean power.
    carbon_kg_per_kwh
        Carbon dioxide equivalents of a kWh in kg.
    published
        Rows quantity, value with gpu_hours, energy_used and carbon_dioxide, given as a last row.
    costs
        As :func:`pretraining.study.estimate.published_costs` returns them: what a missing run is
        expected to take.

    Returns
    -------
    pandas.DataFrame
        One row for each kind, target and type of device (``gpu``, ``cpu``, ``unknown`` where none
        is recorded, ``not run`` for missing runs), one for each experiment and type if the runs
        have `experiments` (names joined by a comma; a run of two experiments is in the rows of
        both), then a total for each type: ``runs``, ``without_time`` (runs whose time is not
        recorded, which therefore count as nothing), ``with_power`` (runs whose power was measured),
        ``hours``, ``kwh`` and ``kg_co2e`` (for GPUs only: the power of a CPU core is not that of a
        machine) and ``expected_hours`` (GPU hours of the missing runs, by published medians).

    Raises
    ------
    UserError
        If power or carbon intensity is not a positive number.
    """
    for name, value in (("power", power_w), ("carbon intensity", carbon_kg_per_kwh)):
        if not (np.isfinite(value) and value > 0):
            raise UserError(f"the {name} is {value}; a positive number is needed")
    device = runs["device"].str.lower()
    # What kept no record of its time says nothing of its device either.
    known = runs["wall_time_s"].notna() | (device != "")
    kinds = np.where(device.str.startswith("cpu"), "cpu", np.where(known, "gpu", "unknown"))
    kinds = np.where((runs["status"] == "missing") & runs["wall_time_s"].isna(), "not run", kinds)
    power = runs["power_w_mean"].fillna(power_w)
    runs = runs.assign(type=kinds, expected_s=np.nan, joules=runs["wall_time_s"] * power)
    if costs is not None:
        runs["expected_s"] = estimated_seconds(runs, costs).where(kinds == "not run")
    rows = []
    for (kind, target, device), group in runs.groupby(["kind", "target", "type"]):
        rows.append(_row(group, kind, device, target=target))
    for device, group in runs.groupby("type"):
        rows.append(_row(group, "total", device))
        if "experiments" in group:
            names = group["experiments"].str.split(",")
            for name in dict.fromkeys(names.explode()):
                part = group[[name in wanted for wanted in names]]
                rows.append(_row(part, "experiment", device, experiment=name))
    table = pd.DataFrame(rows, columns=["kind", "experiment", "target", "device", *_SUMS])
    on_gpu = table["device"] == "gpu"
    table["kwh"] = table["kwh"].where(on_gpu)
    table["kg_co2e"] = (table["kwh"] * carbon_kg_per_kwh).where(on_gpu)
    if published is not None:
        known = published.drop_duplicates("quantity").set_index("quantity")["value"]
        row = {"kind": "published", "experiment": "", "target": "", "device": "gpu"}
        row |= {"hours": known.get("gpu_hours")}
        row |= {"kwh": known.get("energy_used"), "kg_co2e": known.get("carbon_dioxide")}
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
    table["_rank"] = table["kind"].map(_ORDER)
    table = table.sort_values(["_rank", "experiment", "target", "device"]).drop(columns="_rank")
    order = ["kind", "experiment", "target", "device", "runs", "without_time", "with_power"]
    table = table[[*order, "hours", "kwh", "kg_co2e", "expected_hours"]]
    for column in ("runs", "without_time", "with_power"):
        table[column] = table[column].astype("Int64")
    return table.reset_index(drop=True)


def _row(
    group: pd.DataFrame, kind: str, device: str, target: str = "", experiment: str = ""
) -> dict:
    """Add up some runs."""
    name = {"kind": kind, "experiment": experiment, "target": target, "device": device}
    # Sorted, so that the order of the rows does not show in the last digit.
    seconds = np.sort(group["wall_time_s"].dropna().to_numpy(dtype=float))
    expected = np.sort(group["expected_s"].dropna().to_numpy(dtype=float))
    joules = np.sort(group["joules"].dropna().to_numpy(dtype=float))
    return name | {
        "runs": len(group),
        "without_time": len(group) - len(seconds),
        "with_power": int(group["power_w_mean"].notna().sum()),
        "hours": seconds.sum() / 3600,
        "kwh": joules.sum() / 3.6e6,
        "expected_hours": expected.sum() / 3600 if len(expected) else np.nan,
    }


def as_markdown(
    table: pd.DataFrame, power_w: float, carbon_kg_per_kwh: float, left_out: int = 0
) -> str:
    """The costs in Markdown, with a remark if `left_out` pre-trainings are not in the table."""

    def number(value: float, places: int) -> str:
        return "" if pd.isna(value) else f"{value:,.{places}f}"

    rows = []
    for _, row in table.iterrows():
        few = 0 if row["hours"] >= 10 else 2
        bold = "**" if row["kind"] in ("total", "published") else ""
        cells = [row["kind"], row["experiment"] or row["target"], row["device"]]
        cells += [number(row[name], 0) for name in ("runs", "without_time", "with_power")]
        cells += [number(row[name], few) for name in ("hours", "kwh", "kg_co2e", "expected_hours")]
        rows.append([f"{bold}{cell}{bold}" if cell else "" for cell in cells])
    header = ["kind", "target or experiment", "device", "runs", "without time", "power measured"]
    header += ["hours", "kWh", "kg CO2e", "expected hours"]
    remark = f"\nPre-trainings that are not counted: {left_out}.\n" if left_out else ""
    return (
        "# Cost of training\n\n"
        + markdown_table(header, rows)
        + "\nWall time of the training runs, and the mean power of the GPU as measured in each run "
        f"or, where it was not, {power_w:g} W; {carbon_kg_per_kwh:g} kg CO2e a kWh. A run that two "
        "experiments share is in the rows of both, and once in the total. CPU hours are counted "
        "apart, without electricity. Runs without a recorded time count as nothing; expected hours "
        "are what missing runs would take by the published medians.\n" + remark
    )
