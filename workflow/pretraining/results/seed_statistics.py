"""From runs to the points of learning curves, and what there is to say of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pretraining.results.published import POINT_COLUMNS
from pretraining.results.runs_table import RMSE
from pretraining.results.selection import Selected
from pretraining.results.table1 import cell_of


def common_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Keep the fine-tunings with the seeds that every pre-training size was wanted for.

    A size with more seeds than the others would look better for having been tried more often. A
    seed is that of the pre-training and that of the fine-tuning.
    """
    tuned = runs[runs["kind"] == "finetune"]
    pairs = pd.Series(list(zip(tuned["preseed"], tuned["seed"], strict=True)), index=tuned.index)
    shared = set(pairs).intersection(*(set(group) for _, group in pairs.groupby(tuned["npre"])))
    if not shared:
        return runs
    return runs.drop(index=pairs.index[~pairs.isin(shared)])


def points_of(runs: pd.DataFrame, metric: str, aggregate: str) -> pd.DataFrame:
    """One point for each source, pre-training size and n.

    Parameters
    ----------
    metric
        ``energy`` or ``force``.
    aggregate
        ``best`` of the seeds or their ``mean``.

    Returns
    -------
    pandas.DataFrame
        The columns of :data:`.published.POINT_COLUMNS`; value is NaN if no run has a
        finite result, std is NaN for the best of the seeds.
    """
    rows = []
    for (source, npre, n), group in runs.groupby(["source", "npre", "n"]):
        cell = cell_of(group, RMSE[metric])
        std = cell.std if aggregate == "mean" else np.nan
        value = getattr(cell, aggregate)
        rows.append((source, npre, n, metric, value, std, cell.count, cell.flagged))
    return pd.DataFrame(rows, columns=list(POINT_COLUMNS))


def seeds_in_words(rows: pd.DataFrame) -> str:
    """The seeds of some runs: ``seed 42``, ``5 seeds``, ``up to 5 seeds``, ``2 × 5 seeds``.

    The last one is of two pre-trainings with five fine-tunings each.
    """
    seeds = sorted(set(rows["seed"]))
    first = sorted(set(rows["preseed"]))
    if len(seeds) == len(first) == 1:
        return f"seed {seeds[0]}"
    cells = rows.groupby(["source", "npre", "n"])
    counts = cells["seed"].nunique()
    times = f"{cells['preseed'].nunique().max()} × " if len(first) > 1 else ""
    return f"{'up to ' if counts.nunique() > 1 else ''}{times}{counts.max()} seeds"


def remarks(
    selections: Sequence[Selected], runs: pd.DataFrame, aggregate: str, metrics: Sequence[str]
) -> list[str]:
    """What a reader must know of the runs behind a figure, in a few phrases.

    Parameters
    ----------
    runs
        Those of all `selections` that are drawn.
    """
    word = {"best": "best of ", "mean": "mean ± s.d. of "}[aggregate]
    parts = [f"{selections[0].chosen.target} test set"]
    tuned, direct = (runs[runs["kind"] == kind] for kind in ("finetune", "direct"))
    if tuned["npre"].nunique() == 1:
        parts.append(f"{tuned['npre'].iloc[0]:,} pre-training structures")
    elif tuned["source"].nunique() == 1:
        parts.append(f"labels of {tuned['source'].iloc[0]}")
    said = {}
    for name, rows in (("direct", direct), ("fine-tuned", tuned)):
        if len(rows):
            text = seeds_in_words(rows)
            said[name] = text if text.startswith("seed ") else word + text
    if len(set(said.values())) == 1:
        parts.append(next(iter(said.values())))
    else:
        parts += [f"{name}: {text}" for name, text in said.items()]
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
