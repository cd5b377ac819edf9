"""Statistics over the seeds: cells of tables, points of learning curves, and their description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pretraining.results.runs_table import RMSE
from pretraining.results.selection import Selected
from pretraining.study.titles import SourceStyle, order_sources, title_of

AGGREGATES = ("best", "mean")
FLAG_ABOVE = 1.25
FLAG_NOTE = f"* a seed diverged or is above {FLAG_ABOVE} × the median of its cell"
POINT_COLUMNS = ("source", "npre", "n", "metric", "value", "std", "count", "flagged", "unconverged")


@dataclass(frozen=True)
class Cell:
    """Statistics of the runs that differ only by their seed, over the finite values."""

    mean: float
    std: float  # sample standard deviation (n - 1), NaN for a single value
    best: float
    count: int
    runs: int  # finished, with a finite value or not
    missing: int
    flagged: bool  # a run diverged or exceeds FLAG_ABOVE times the median
    unconverged: int  # runs that were still improving at max_epochs


def cell_of(rows: pd.DataFrame, column: str = RMSE["energy"]) -> Cell:
    """A diverged run with a finite error stays in the mean, as in the published table."""
    done = rows[rows["status"] != "missing"]
    values = done[column].to_numpy(dtype=float)
    diverged = ~np.isfinite(values) | done["diverged"].to_numpy(dtype=bool)
    finite = np.sort(values[np.isfinite(values)])
    high = len(finite) > 0 and finite[-1] > FLAG_ABOVE * np.median(finite)
    return Cell(
        mean=float(finite.mean()) if len(finite) else np.nan,
        std=float(finite.std(ddof=1)) if len(finite) > 1 else np.nan,
        best=float(finite[0]) if len(finite) else np.nan,
        count=len(finite),
        runs=len(done),
        missing=len(rows) - len(done),
        flagged=bool(high or diverged.any()),
        unconverged=int(np.sum(done.get("unconverged", False))),
    )


def marks_of(cell: Any) -> str:
    """The signs behind a cell's value: ``*`` of :data:`FLAG_NOTE`, ``†`` of `unconverged_note`."""
    return "*" * bool(cell.flagged) + "†" * bool(cell.unconverged)


def unconverged_note(unconverged: int, runs: int) -> str:
    """The meaning of ``†``, empty if no run has it."""
    share = f"{unconverged} of {runs} runs"
    return f"† a seed was still improving at max_epochs: {share}" if unconverged else ""


def sort_by_source(
    table: pd.DataFrame, by: Sequence[str], styles: Mapping[str, SourceStyle] | None = None
) -> pd.DataFrame:
    """Sort a table by some columns, label sources in their printed order."""
    place = {s: i for i, s in enumerate(order_sources(table["source"].unique(), styles))}
    return table.sort_values(
        list(by), key=lambda c: c.map(place) if c.name == "source" else c, kind="stable"
    ).reset_index(drop=True)


def with_titles(
    table: pd.DataFrame, styles: Mapping[str, SourceStyle] | None = None
) -> pd.DataFrame:
    """The table with the printed names of its label sources."""
    return table.assign(source=[title_of(source, styles) for source in table["source"]])


def common_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Keep the fine-tunings with seeds (of pre-training and fine-tuning) common to all sizes.

    The best of more seeds is better by chance alone.
    """
    tuned = runs[runs["kind"] == "finetune"]
    pairs = pd.Series(list(zip(tuned["preseed"], tuned["seed"], strict=True)), index=tuned.index)
    shared = set(pairs).intersection(*(set(group) for _, group in pairs.groupby(tuned["npre"])))
    if not shared:
        return runs
    return runs.drop(index=pairs.index[~pairs.isin(shared)])


def curve_points(runs: pd.DataFrame, metric: str, aggregate: str) -> pd.DataFrame:
    """The points of learning curves: one for each source, pre-training size and n.

    Parameters
    ----------
    metric
        ``energy`` or ``force``.
    aggregate
        ``best`` or ``mean`` of the seeds; std is NaN for the best.
    """
    rows = []
    for (source, npre, n), group in runs.groupby(["source", "npre", "n"]):
        cell = cell_of(group, RMSE[metric])
        std = cell.std if aggregate == "mean" else np.nan
        value = getattr(cell, aggregate)
        row = (source, npre, n, metric, value, std, cell.count, cell.flagged, cell.unconverged)
        rows.append(row)
    return pd.DataFrame(rows, columns=list(POINT_COLUMNS))


def describe_seeds(rows: pd.DataFrame) -> str:
    """``seed 42``, ``5 seeds``, ``up to 5 seeds``; ``2 × 5 seeds`` of two pre-trainings."""
    done = rows[rows["status"] != "missing"]
    rows = done if len(done) else rows
    seeds = sorted(set(rows["seed"]))
    first = sorted(set(rows["preseed"]))
    if len(seeds) == len(first) == 1:
        return f"seed {seeds[0]}"
    cells = rows.groupby(["source", "npre", "n"])
    counts = cells["seed"].nunique()
    times = f"{cells['preseed'].nunique().max()} × " if len(first) > 1 else ""
    return f"{'up to ' if counts.nunique() > 1 else ''}{times}{counts.max()} seeds"


def describe_runs(
    selections: Sequence[Selected], runs: pd.DataFrame, aggregate: str, metrics: Sequence[str]
) -> list[str]:
    """Describe the drawn `runs` in phrases: test set, sizes, seeds, missing and diverged runs."""
    prefix = {"best": "best of ", "mean": "mean ± s.d. of "}[aggregate]
    parts = [f"{selections[0].chosen.target} test set"]
    tuned, direct = (runs[runs["kind"] == kind] for kind in ("finetune", "direct"))
    if tuned["npre"].nunique() == 1:
        parts.append(f"{tuned['npre'].iloc[0]:,} pre-training structures")
    elif tuned["source"].nunique() == 1:
        parts.append(f"labels of {tuned['source'].iloc[0]}")
    seeds = {}
    for name, rows in (("direct", direct), ("fine-tuned", tuned)):
        if len(rows):
            text = describe_seeds(rows)
            seeds[name] = text if text.startswith("seed ") else prefix + text
    if len(set(seeds.values())) == 1:
        parts.append(next(iter(seeds.values())))
    else:
        parts += [f"{name}: {text}" for name, text in seeds.items()]
    missing = int((runs["status"] == "missing").sum())
    if missing:
        parts.append(f"{missing} of {len(runs)} runs missing")
    done = runs[runs["status"] != "missing"]
    columns = [RMSE[metric] for metric in metrics]
    finite = np.isfinite(done[columns].to_numpy(dtype=float)).all(axis=1)
    diverged = int((done["diverged"] | ~finite).sum())
    if diverged:
        parts.append(f"{diverged} {'run' if diverged == 1 else 'runs'} diverged")
    return parts
