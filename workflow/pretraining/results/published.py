"""The published numbers: points of learning curves, and claims of the text beside computed ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pretraining.results.cost import undisturbed_times
from pretraining.results.runs_table import MEAN_SHIFTED, RMSE, TRAINED
from pretraining.results.seed_statistics import POINT_COLUMNS
from pretraining.results.table1 import read_table1
from pretraining.runtime.tables import numbers, read_csv, read_table

# Size of the pre-training set behind every fine-tuned value of the published Table 1.
TABLE1_NPRE = 10_000
CLAIM_COLUMNS = ("quantity", "target", "source", "npre", "n", "metric", "aggregate", "relation")
CLAIM_COLUMNS = (*CLAIM_COLUMNS, "value", "unit", "origin")
# Quantity of a claim -> column of the table that has it, if their names differ.
COLUMN_OF = {
    "data_efficiency": "ratio",
    "source_error": "value",
    "untuned_error": "value",
    "forgetting_finetuned": "ratio_finetuned",
    "forgetting_direct": "ratio_direct",
    "wall_time_ratio_min": "train_time_ratio_min",
    "wall_time_ratio_max": "train_time_ratio_max",
}


def published_points(
    table1: str | Path | None, curves: str | Path | None = None
) -> pd.DataFrame | None:
    """All published points of learning curves, or None without a file.

    Parameters
    ----------
    table1
        Table 1: mean energy errors and their standard deviations.
    curves
        Single values: columns source, npre, n, energy_rmse (meV/atom), force_rmse (eV/Å); cells
        without a published value are empty.
    """
    parts = []
    if table1:
        points = read_table1(table1).rename(columns={"mean": "value"}).assign(metric="energy")
        points["npre"] = np.where(points["source"] == "none", 0, TABLE1_NPRE)
        parts.append(points)
    if curves:
        table = read_csv(curves, ("source", "npre", "n", "energy_rmse", "force_rmse"))
        table = table.assign(std=np.nan, count=1, flagged=False)
        for metric in RMSE:
            points = table.assign(metric=metric, value=table[f"{metric}_rmse"])
            parts.append(points.dropna(subset="value"))
    return pd.concat(parts, ignore_index=True)[list(POINT_COLUMNS)] if parts else None


def read_claims(path: str | Path, names: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read the single numbers that the paper states in its text.

    `names` has the published names of test sets, by their names here; claims on others are left
    out. None keeps all claims with their published names.
    """
    table = read_table(path, CLAIM_COLUMNS, "published numbers")
    table["value"] = numbers(table["value"], path)
    table = table[list(CLAIM_COLUMNS)]
    if names is None:
        return table
    of_none = table[table["target"] == ""]
    renamed = [
        table[table["target"] == published].assign(target=name) for name, published in names.items()
    ]
    return pd.concat([*renamed, of_none], ignore_index=True)


def _values(table: pd.DataFrame, claim: pd.Series, conditions: Mapping[str, str]) -> pd.Series:
    """The computed values of a claimed quantity under the claim's conditions.

    `conditions` is column of the claim -> column of the table; an empty one holds for all rows.
    """
    for name, column in conditions.items():
        if claim[name] != "":
            table = table[table[column].astype(str) == claim[name]]
    return table[COLUMN_OF.get(claim["quantity"], claim["quantity"])].dropna()


def claims_of_efficiency(
    claims: pd.DataFrame, efficiency: pd.DataFrame, gains: pd.DataFrame, runs: pd.DataFrame
) -> pd.DataFrame:
    """The claims on efficiency, gains, times and errors before fine-tuning, beside the computed.

    ``computed`` and ``difference`` from published are NaN unless exactly one value was computed
    under the claim's conditions. The n of a data efficiency is the number of structures of direct
    training. Energy errors of label sources and of untuned models are those after a mean shift.
    """
    same = {name: name for name in ("target", "source", "npre", "metric", "aggregate")}
    ratios = ("data_efficiency", "wall_time_ratio_min", "wall_time_ratio_max")
    places = dict.fromkeys(ratios, (efficiency, same | {"n": "n_direct"}))
    places |= dict.fromkeys(("gain", "gain_percent"), (gains, same | {"n": "n"}))
    model = {name: name for name in ("target", "source", "npre", "metric")}
    for quantity, kind in (("source_error", "source"), ("untuned_error", "pretrain")):
        places[quantity] = (_errors(runs[runs["kind"] == kind]), model)
    for quantity in ("wall_time", "wall_time_min", "wall_time_max"):
        which = {name: name for name in ("target", "source", "npre", "n", "unit")}
        places[quantity] = (_times(runs), which)
    rows = []
    for _, claim in claims[claims["quantity"].isin(list(places))].iterrows():
        table, conditions = places[claim["quantity"]]
        found = _values(table, claim, conditions)
        value = float(found.iloc[0]) if len(found) == 1 else np.nan
        rows.append({**claim, "computed": value, "difference": value - claim["value"]})
    return pd.DataFrame(rows, columns=[*CLAIM_COLUMNS, "computed", "difference"])


def _errors(rows: pd.DataFrame) -> pd.DataFrame:
    """``value`` of each metric on the test sets, mean of the seeds."""
    columns = {"energy": MEAN_SHIFTED, "force": RMSE["force"]}
    tested = rows[rows["target"] != ""].groupby(["target", "source", "npre"], as_index=False)
    means = [
        tested[column].mean().rename(columns={column: "value"}).assign(metric=metric)
        for metric, column in columns.items()
    ]
    return pd.concat(means, ignore_index=True)


def _times(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean, smallest and largest training time of the seeds on a GPU, in seconds and minutes."""
    times = runs[runs["kind"].isin(TRAINED)]
    times = times.assign(train_time_s=undisturbed_times(times))
    device = times.get("device", pd.Series("", times.index)).fillna("").astype(str)
    times = times[~device.str.startswith("cpu")]
    grouped = times.groupby(["target", "source", "npre", "n"])["train_time_s"]
    table = grouped.agg(wall_time="mean", wall_time_min="min", wall_time_max="max").reset_index()
    minutes = table.assign(**{c: table[c] / 60 for c in table if c.startswith("wall_time")})
    return pd.concat([table.assign(unit="s"), minutes.assign(unit="min")], ignore_index=True)


def claims_of_forgetting(claims: pd.DataFrame, forgetting: pd.DataFrame) -> pd.DataFrame:
    """The claims on forgetting beside ``low``, ``median`` and ``high`` of the ratios over n.

    Claims under whose conditions nothing was computed are left out.
    """
    rows = []
    for _, claim in claims[claims["quantity"].str.startswith("forgetting_")].iterrows():
        conditions = {"target": "test_set", "metric": "metric", "aggregate": "aggregate"}
        if claim["source"] != "none":
            conditions |= {"source": "source", "npre": "npre"}
        ratios = _values(forgetting, claim, conditions)
        if len(ratios):
            span = {"low": ratios.min(), "median": ratios.median(), "high": ratios.max()}
            rows.append({**claim, **span})
    return pd.DataFrame(rows, columns=[*claims.columns, "low", "median", "high"])
