"""The published numbers: points of learning curves, and claims of the text beside computed ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from pretraining.results.cost import undisturbed_times
from pretraining.results.runs_table import MEAN_SHIFTED, RMSE, TRAINED
from pretraining.results.seed_statistics import POINT_COLUMNS
from pretraining.results.selection import Selected
from pretraining.results.table1 import read_table1
from pretraining.results.training_time import SPEED_UPS, TIMES, speed_ups, training_times
from pretraining.runtime.tables import numbers, read_csv, read_table
from pretraining.study.queries import PUBLISHED_TARGET

CELL = ("source", "npre", "n")
# The seed of the published single runs, and the name of its value among the statistics.
PUBLISHED_SEED = 42
SEED = f"seed {PUBLISHED_SEED}"
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
    table1: str | Path | None,
    points: str | Path | None,
    target: str,
    selections: Sequence[Selected] = (),
    *,
    compare: str = "source",
    aggregate: str = "best",
) -> pd.DataFrame | None:
    """Published points of learning curves, or None if there are none.

    Each has the statistic that the figure shows of the same cell: seed 42 beside seed 42, else the
    best of the seeds beside the best, or Table 1's means beside means.

    Parameters
    ----------
    table1
        Table 1: mean energy errors and their standard deviations, on C-GAP-17.
    points
        Errors of the best seed and of seed 42, with the columns :data:`CELL` and ``seeds``.
    target
        Published name of the test set.
    selections
        The runs of a figure; without any, all cells that belong in such a figure are returned.
    compare
        ``source`` or ``npre``; the pre-training sizes have seed 42 in common.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`.seed_statistics.POINT_COLUMNS`, ``transform`` and ``aggregate``: ``best``,
        ``mean`` or ``seed 42``.
    """
    cells = _published_cells(table1, points, target)
    if selections:
        shown = pd.concat([_shown_cells(selected, aggregate) for selected in selections])
    else:
        shown = cells[cells["transform"] == "none"]
        of_one = ("source", "ace") if compare == "npre" else ("npre", TABLE1_NPRE)
        shown = shown[(shown[of_one[0]] == of_one[1]) | (shown["source"] == "none")]
        one = (compare == "npre") & (shown["npre"] > 0)
        shown = shown[["transform", *CELL]].assign(aggregate=np.where(one, SEED, aggregate))
    found = shown.drop_duplicates().merge(cells, on=["transform", *CELL, "aggregate"])
    return found[[*POINT_COLUMNS, "transform", "aggregate"]] if len(found) else None


def _shown_cells(selected: Selected, aggregate: str) -> pd.DataFrame:
    """The cells of a figure's runs, and the statistic that it shows of each."""
    rows = []
    for cell, runs in selected.runs.groupby(list(CELL)):
        done = runs[runs["status"] != "missing"]
        seeds = set((done if len(done) else runs)["seed"])
        # A single seed is its own mean and the best.
        statistic = SEED if seeds == {PUBLISHED_SEED} else aggregate
        # Direct training knows no transform.
        transform = (selected.chosen.transform or "none") if cell[0] != "none" else "none"
        rows.append((transform, *cell, statistic))
    return pd.DataFrame(rows, columns=["transform", *CELL, "aggregate"])


def _published_cells(
    table1: str | Path | None, points: str | Path | None, target: str
) -> pd.DataFrame:
    """All published points on a test set, a row for each cell, metric and statistic."""
    parts = []
    if table1 and target == PUBLISHED_TARGET:
        means = read_table1(table1).rename(columns={"mean": "value"})
        npre = np.where(means["source"] == "none", 0, TABLE1_NPRE)
        parts.append(
            means.assign(
                unconverged=0, metric="energy", npre=npre, transform="none", aggregate="mean"
            )
        )
    if points:
        columns = [f"{metric}_{how}" for metric in RMSE for how in ("best", "seed42")]
        table = read_csv(points, ("target", "transform", *CELL, "seeds", *columns))
        table = table[table["target"] == target].rename(columns={"seeds": "count"})
        table = table.assign(std=np.nan, flagged=False, unconverged=0)
        for metric in RMSE:
            # The best of one seed is no statistic of several.
            best = table[table["count"] > 1].assign(aggregate="best")
            one = table.assign(aggregate=SEED, count=1)
            for part, column in ((best, "best"), (one, "seed42")):
                parts.append(part.assign(metric=metric, value=part[f"{metric}_{column}"]))
    names = [*POINT_COLUMNS, "transform", "aggregate"]
    cells = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
    return cells.dropna(subset="value")[names]


def published_times(path: str | Path | None, target: str) -> pd.DataFrame | None:
    """Published training times on a test set, as :func:`.training_times` has them, if any."""
    if path is None:
        return None
    table = read_csv(path, ("target", "transform", *CELL, *TIMES, *RMSE))
    table = table[table["target"] == target].assign(structures="")
    return table if len(table) else None


def with_published_errors(selected: Selected, path: str | Path | None, target: str) -> Selected:
    """Add the published errors of label sources and of untuned models on a test set."""
    if path is None:
        return selected
    claims = read_claims(path)
    kinds = claims["quantity"].map({"source_error": "source", "untuned_error": "pretrain"})
    claims = claims.assign(kind=kinds)[(claims["target"] == target) & kinds.notna()]
    claims = claims[["kind", "source", "npre", "metric", "value"]].astype({"npre": int})
    return replace(selected, published=claims)


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
    same_n = speed_ups(training_times(runs))
    places |= dict.fromkeys(SPEED_UPS, (same_n, {c: c for c in ("target", "source", "npre")}))
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
    times = runs.assign(train_time_s=undisturbed_times(runs))
    times = times[times["kind"].isin(TRAINED)]
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
