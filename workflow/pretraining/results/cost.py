"""What the training runs cost: hours, electricity and carbon dioxide."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from pretraining.results.runs_table import KEY, collect, normalise, sort_by_kind
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown, read_table, truths
from pretraining.study.estimate import estimated_seconds

POWER_W = 300.0
CARBON_KG_PER_KWH = 0.207
TRAINED = ("pretrain", "direct", "finetune")
_KINDS = (*TRAINED, "experiment", "total", "published")
_COUNTS = ("runs", "without_time", "with_power")


def collect_trainings(
    path: str | Path, results: str | Path, *, allow_missing: bool = False
) -> pd.DataFrame:
    """Collect the runs that the table of all training runs lists, with their experiments.

    Each row has a run's identity, ``experiments`` and ``path``, its folder relative to `results`.
    Runs marked ``imported`` were not trained here and are left out.
    """
    key = list(KEY)
    grid = read_table(path, (*KEY, "path", "experiments"), "the table of training runs")
    if "imported" in grid:
        grid = grid[~truths(grid["imported"], path)]
    grid = grid.assign(metrics=grid["path"] + "/metrics.json", trained_on="")
    runs = collect(grid, results, allow_missing=allow_missing).astype(dict.fromkeys(key, str))
    return normalise(runs.merge(grid[[*key, "experiments"]], how="left", on=key), path)


def training_runs(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Return the training runs of one or more runs tables, each once.

    Of several rows of a run, the one with a time is kept, else one that is not missing.
    """
    runs = pd.concat(tables, ignore_index=True)
    # With a target, a row is a test of a pre-trained model.
    tests = (runs["kind"] == "pretrain") & (runs["target"] != "")
    runs = runs[runs["kind"].isin(TRAINED) & ~tests].copy()
    for column in ("device", "gpu_use"):
        runs[column] = runs[column].fillna("").astype(str) if column in runs else ""
    rank = 2 * runs["wall_time_s"].isna() + (runs["status"] == "missing")
    runs = runs.loc[rank.sort_values(kind="stable").index]
    return runs.drop_duplicates(list(KEY), ignore_index=True)


def pretrainings_left_out(runs: pd.DataFrame) -> int:
    """Count the pre-trainings of the fine-tuned runs that are not among the runs."""
    key = ["structures", "transform", "source", "npre", "preseed"]
    started = runs.loc[runs["kind"] == "finetune", key].drop_duplicates()
    there = runs.loc[runs["kind"] == "pretrain", key].drop_duplicates()
    return len(started) - len(started.merge(there, on=key))


@dataclass(frozen=True)
class _Use:
    """A run's use of a GPU: POSIX times, s, and the GPU's energy counter, J, at both ends."""

    run: Hashable
    start: float
    end: float
    start_j: float | None
    end_j: float | None

    @property
    def power_w(self) -> float | None:
        if self.start_j is None or self.end_j is None:
            return None
        return (self.end_j - self.start_j) / (self.end - self.start)


def gpu_shares(runs: pd.DataFrame, power_w: float = POWER_W) -> pd.DataFrame:
    """Divide the time and the energy of each GPU among the runs that used it.

    Each moment counts in equal parts for the runs that use the GPU then. Between two starts or ends
    of runs, the energy is the difference of the GPU's counter. Where a reading is missing, the
    power is the mean of those that the runs of that moment have measured, or else `power_w`.

    Parameters
    ----------
    runs
        Runs table; ``gpu_use`` holds what :class:`pretraining.training.device.GpuUse` records, as
        JSON, or is empty.
    power_w
        Power of a GPU without measurement, W.

    Returns
    -------
    pandas.DataFrame
        ``seconds`` and ``joules`` of the runs with records, indexed as in `runs`.
    """
    shares: dict[Hashable, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for uses in _uses_of_gpus(runs):
        counter: dict[float, float] = {}
        starting, ending = defaultdict(set), defaultdict(set)
        for use in uses:
            starting[use.start].add(use)
            ending[use.end].add(use)
            readings = ((use.start, use.start_j), (use.end, use.end_j))
            counter.update((time, joules) for time, joules in readings if joules is not None)
        active: set[_Use] = set()
        for start, end in pairwise(sorted({*starting, *ending})):
            active = (active | starting[start]) - ending[start]
            if start in counter and end in counter:
                joules = counter[end] - counter[start]
            else:
                powers = [use.power_w for use in active if use.power_w is not None]
                joules = (np.mean(sorted(powers)) if powers else power_w) * (end - start)
            for use in active:
                shares[use.run] += np.array([end - start, joules]) / len(active)
    names = ["seconds", "joules"]
    return pd.DataFrame.from_dict(shares, orient="index", columns=names).sort_index()


def _uses_of_gpus(runs: pd.DataFrame) -> list[list[_Use]]:
    """The uses of each GPU, without those that have no duration."""
    uses = defaultdict(list)
    for run, text in runs["gpu_use"].items():
        for record in json.loads(text or "[]"):
            gpu, times = record.pop("gpu"), (record["start"], record["end"])
            record["start"], record["end"] = (datetime.fromisoformat(t).timestamp() for t in times)
            if record["end"] > record["start"]:
                uses[gpu].append(_Use(run, **record))
    return [uses[gpu] for gpu in sorted(uses)]


def undisturbed_times(runs: pd.DataFrame) -> pd.Series:
    """Return the training times of runs, s: NaN where other runs used the same GPU meanwhile."""
    times = runs["train_time_s"].where(runs["train_time_s"] > 0)
    # A runs table can have several rows of a run.
    recorded = runs["gpu_use"].fillna("").astype(str) if "gpu_use" in runs else pd.Series(dtype=str)
    for uses in _uses_of_gpus(pd.DataFrame({"gpu_use": recorded.drop_duplicates()})):
        uses.sort(key=lambda use: use.start)
        last = uses[0]
        for use in uses[1:]:
            if use.start < last.end and use.run != last.run:
                shared = [recorded[use.run], recorded[last.run]]
                times[recorded.isin(shared)] = np.nan
            last = max(last, use, key=lambda use: use.end)
    return times


def cost(
    runs: pd.DataFrame,
    power_w: float = POWER_W,
    carbon_kg_per_kwh: float = CARBON_KG_PER_KWH,
    published: pd.DataFrame | None = None,
    costs: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Add up the hours of the runs.

    A run's GPU hours are its share of :func:`gpu_shares`, or its wall time if it has no records of
    its GPU. Its CPU hours are core hours: wall time times threads. Raises a `UserError` if power or
    carbon intensity is not a positive number.

    Parameters
    ----------
    runs
        Table of :func:`training_runs`.
    power_w
        Power of a GPU without measurement, W.
    published
        Rows quantity, value with gpu_hours, energy_used and carbon_dioxide, given as a last row.
    costs
        Table of :func:`pretraining.study.estimate.published_costs`, for the expected time of
        missing runs.

    Returns
    -------
    pandas.DataFrame
        A row for each kind, target and type of device (``gpu``, ``cpu``, ``unknown`` if not
        recorded, ``not run`` for missing runs); one for each experiment and type if the runs have
        `experiments` (names joined by commas); a total for each type. ``runs``; ``without_time``,
        runs without a recorded time, which count as nothing; ``with_power``, runs with measured
        power; ``hours``; ``kwh`` and ``kg_co2e``, of GPUs only; ``expected_hours``, GPU hours of
        missing runs by the published medians.
    """
    for name, value in (("power", power_w), ("carbon intensity", carbon_kg_per_kwh)):
        if not (np.isfinite(value) and value > 0):
            raise UserError(f"the {name} is {value}; a positive number is needed")
    device = runs["device"].str.lower()
    # A run without a recorded time has no recorded device either.
    known = runs["wall_time_s"].notna() | (device != "")
    types = np.where(device.str.startswith("cpu"), "cpu", np.where(known, "gpu", "unknown"))
    types = np.where((runs["status"] == "missing") & runs["wall_time_s"].isna(), "not run", types)
    cores = runs["threads"].fillna(1).where(types == "cpu", 1)
    joules = runs["wall_time_s"] * runs["power_w_mean"].fillna(power_w)
    runs = runs.assign(type=types, seconds=runs["wall_time_s"] * cores, joules=joules)
    runs.update(gpu_shares(runs, power_w))
    runs["expected_s"] = np.nan
    if costs is not None:
        runs["expected_s"] = estimated_seconds(runs, costs).where(types == "not run")
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
    if published is not None:
        values = published.drop_duplicates("quantity").set_index("quantity")["value"]
        row = {"kind": "published", "experiment": "", "target": "", "device": "gpu"}
        row |= {"hours": values.get("gpu_hours"), "kwh": values.get("energy_used")}
        rows.append(row | {"kg_co2e": values.get("carbon_dioxide")})
    names = ("kind", "experiment", "target", "device", *_COUNTS)
    table = pd.DataFrame(rows, columns=[*names, "hours", "kwh", "kg_co2e", "expected_hours"])
    # The power of a CPU core is not that of a machine.
    table["kwh"] = table["kwh"].where(table["device"] == "gpu")
    table["kg_co2e"] = table["kg_co2e"].astype(float).fillna(table["kwh"] * carbon_kg_per_kwh)
    table = table.astype(dict.fromkeys(_COUNTS, "Int64"))
    return sort_by_kind(table, ["kind", "experiment", "target", "device"], _KINDS)


def _row(
    group: pd.DataFrame, kind: str, device: str, target: str = "", experiment: str = ""
) -> dict:
    def total(column: str) -> float:
        # Sorted, so that the order of the rows does not show in the last digit.
        return np.sort(group[column].dropna().to_numpy(dtype=float)).sum()

    return {
        "kind": kind,
        "experiment": experiment,
        "target": target,
        "device": device,
        "runs": len(group),
        "without_time": int(group["wall_time_s"].isna().sum()),
        "with_power": int(group["power_w_mean"].notna().sum()),
        "hours": total("seconds") / 3600,
        "kwh": total("joules") / 3.6e6,
        "expected_hours": total("expected_s") / 3600 if group["expected_s"].any() else np.nan,
    }


def as_markdown(
    table: pd.DataFrame, power_w: float, carbon_kg_per_kwh: float, left_out: int = 0
) -> str:
    """The costs in Markdown; `left_out` is the number of pre-trainings that are not counted."""

    def number(value: float, places: int) -> str:
        return "" if pd.isna(value) else f"{value:,.{places}f}"

    rows = []
    for _, row in table.iterrows():
        few = 0 if row["hours"] >= 10 else 2
        bold = "**" if row["kind"] in ("total", "published") else ""
        cells = [row["kind"], row["experiment"] or row["target"], row["device"]]
        cells += [number(row[name], 0) for name in _COUNTS]
        cells += [number(row[name], few) for name in ("hours", "kwh", "kg_co2e", "expected_hours")]
        rows.append([f"{bold}{cell}{bold}" if cell else "" for cell in cells])
    names = ["kind", "target or experiment", "device"]
    numbers = ["runs", "without time", "power measured"]
    numbers += ["hours", "kWh", "kg CO2e", "expected hours"]
    remark = f"\nPre-trainings that are not counted: {left_out}.\n" if left_out else ""
    return (
        "# Cost of training\n\n"
        + markdown(pd.DataFrame(rows, columns=names + numbers), dict.fromkeys(numbers, ">"))
        + "\nGPU hours and energy are by each run's records of its GPU: runs that use a GPU at the "
        "same time share both. A run without records counts its wall time. A GPU without measured "
        f"energy draws {power_w:g} W; {carbon_kg_per_kwh:g} kg CO2e a kWh. CPU hours are core "
        "hours, without electricity. A run of two experiments is in the rows of both, and once in "
        "the total. Runs without a recorded time count as nothing; expected hours are those of "
        "missing runs by the published medians.\n" + remark
    )
