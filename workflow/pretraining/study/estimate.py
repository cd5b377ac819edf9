"""Expected time of the runs of a grid, from published medians and from finished runs.

The published medians (Gardner, Baker and Deringer 2023, one RTX A6000) are in
``resources/published/training-cost.csv``. Other runs are interpolated.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pretraining.study.settings import COMPILE_ABOVE_S, KINDS


def published_costs(path: str | Path) -> pd.DataFrame:
    """Read the published medians: columns of the table of runs, and ``gpu_seconds_median``."""
    return pd.read_csv(path, keep_default_na=False)


def finished_seconds(grid: pd.DataFrame, results: str | Path) -> pd.Series:
    """Return the wall time of each run of the table, s; NaN for a run that has not finished."""

    def seconds(path: str) -> float:
        try:
            metrics = json.loads((Path(results) / path / "metrics.json").read_text())
        except (OSError, json.JSONDecodeError):
            return np.nan
        return float(metrics.get("wall_time_s") or np.nan)

    return grid["path"].map(seconds).astype(float)


def estimated_seconds(
    grid: pd.DataFrame, costs: pd.DataFrame, finished: pd.Series | None = None
) -> pd.Series:
    """Return the expected wall time of each run, s.

    A published run has its published median. For others the median is interpolated in the number of
    structures (log-log; proportional above the published range, constant below) among the published
    runs of the same kind, and of the same target if possible.

    Parameters
    ----------
    costs
        Table of :func:`published_costs`.
    finished
        Series of :func:`finished_seconds`. Finished runs have their own time; the median of its
        ratio to the estimate scales the other runs of their kind.
    """
    published = {_key(row): row.gpu_seconds_median for row in costs.itertuples()}
    keys = [_key(run) for run in grid.itertuples()]
    # Runs that differ in the seed cost the same.
    one_of = dict(zip(keys, grid.itertuples(), strict=True))
    known = {key: published.get(key) or _interpolate(costs, run) for key, run in one_of.items()}
    estimate = pd.Series([known[key] for key in keys], index=grid.index, dtype=float)
    if finished is None:
        return estimate
    for kind in grid["kind"].unique():
        rows = grid["kind"] == kind
        ratio = (finished[rows] / estimate[rows]).median()
        if np.isfinite(ratio):
            estimate[rows] *= ratio
    return finished.fillna(estimate)


def _key(row: Any) -> tuple:
    return (row.kind, row.target, row.structures, row.transform, row.source, row.npre, row.n)


def _interpolate(costs: pd.DataFrame, run: Any) -> float:
    rows = costs[costs["kind"] == run.kind]
    if (rows["target"] == run.target).any():
        rows = rows[rows["target"] == run.target]
    axis = "npre" if run.kind == "pretrain" else "n"
    size = getattr(run, axis)
    known = rows.groupby(axis)["gpu_seconds_median"].median()
    sizes, values = known.index.to_numpy(float), known.to_numpy(float)
    inside = np.clip(size, sizes[0], sizes[-1])
    value = float(np.exp(np.interp(np.log(inside), np.log(sizes), np.log(values))))
    # Below the published range, start-up dominates and the time no longer falls.
    return value * max(1.0, size / inside)


def summarise(
    grid: pd.DataFrame, seconds: pd.Series, finished: pd.Series, sources: Iterable[str]
) -> str:
    """Return the grid as text: runs and hours by kind, target or structures, source and sizes."""
    table = grid.assign(hours=seconds / 3600)
    left = table.loc[finished.isna(), "hours"].sum()
    lines = [
        f"{len(table)} training runs, {finished.notna().sum()} finished, about "
        f"{table['hours'].sum():.1f} h of training in all, {left:.1f} h of it left",
        "",
    ]
    order = {name: i for i, name in enumerate(["none", *sources])}
    for kind, runs in table.groupby("kind", sort=False):
        lines.append(f"{kind}: {_count(runs)}")
        sizes = {"pretrain": ["npre"], "direct": ["n"], "finetune": ["n", "npre"]}[kind]
        where = "structures" if kind == "pretrain" else "target"
        groups = runs.groupby([where, "source", "transform"], sort=False)
        for (name, source, transform), part in sorted(
            groups, key=lambda item: (item[0][0], item[0][2], order.get(item[0][1], 99))
        ):
            label = " ".join(word for word in (name, source, transform) if word != "none")
            axes = [
                f"{axis} {', '.join(f'{value:,}' for value in sorted(part[axis].unique()))}"
                for axis in sizes
            ]
            axes.append(f"seeds {', '.join(str(seed) for seed in sorted(part['seed'].unique()))}")
            lines.append(f"  {label:<34} {_count(part)}   {'; '.join(axes)}")
        lines.append("")
    return "\n".join(lines)


def _count(runs: pd.DataFrame) -> str:
    return f"{len(runs):>4} runs {runs['hours'].sum():>8.1f} h"


def compile_choice(training: dict[str, Any], grid: pd.DataFrame, seconds: pd.Series) -> str:
    """Return ``always`` in place of ``auto`` if a grid is long; else each job decides for itself.

    All trainings share the compiled functions, so their sum is compared with `COMPILE_ABOVE_S`.
    `seconds` is the expected wall time of each run: that of a published one, which had 300 epochs.
    """
    if training["compile"] != "auto":
        return training["compile"]
    epochs = {kind: training[kind].get("max_epochs", training["max_epochs"]) for kind in KINDS}
    expected = (seconds * grid["kind"].map(epochs).clip(upper=300) / 300)[~grid["imported"]]
    return "always" if expected.sum() > COMPILE_ABOVE_S else "auto"
