"""Data efficiency: how few DFT-labelled structures a pre-trained model needs.

A pre-trained model that reaches with n structures the accuracy direct training needs N for is
N / n times as data-efficient. The number depends on the metric, on how the seeds are summarised and
on the pre-training size, so each row states all three. The runs of a cell are those of all seeds,
of the pre-training and of the fine-tuning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from pretraining.results.runs_table import RMSE, TRAINED, unique_runs
from pretraining.results.table1 import cell_of
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown_table
from pretraining.study.titles import SourceStyle, order_sources, title_of

AGGREGATES = ("best", "mean")
SERIES = ("structures", "transform", "source", "npre")
UNITS = {"energy": "meV/atom", "force": "eV/Å"}


def _on(runs: pd.DataFrame, target: str | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a target (None: of all), and the direct and fine-tuned runs among them."""
    if target is not None:
        there = sorted(set(runs["target"]) - {""})
        runs = runs[runs["target"] == target]
        if runs.empty:
            raise UserError(f"no runs with target {target!r}; there are: {', '.join(there)}")
    return runs, unique_runs(runs[runs["kind"].isin(TRAINED)])


def _curve(rows: pd.DataFrame, metric: str, aggregate: str) -> dict[int, tuple[float, int]]:
    """For each n with a finite result: its error and how many seeds are behind it."""
    points = {}
    for n, group in rows.groupby("n"):
        cell = cell_of(group, RMSE[metric])
        value = getattr(cell, aggregate)
        if np.isfinite(value):
            points[int(n)] = (value, cell.count)
    return points


def _series(runs: pd.DataFrame) -> Iterator[tuple[dict, pd.DataFrame, pd.DataFrame]]:
    """Each pre-trained model's fine-tunes, beside the direct training on the same target."""
    for target, rows in runs.groupby("target"):
        direct = rows[rows["kind"] == "direct"]
        tuned = rows[rows["kind"] == "finetune"]
        if direct.empty:
            continue
        for key, group in tuned.groupby(list(SERIES)):
            yield {"target": target, **dict(zip(SERIES, key, strict=True))}, group, direct


def _untuned(runs: pd.DataFrame, name: Mapping, metric: str, aggregate: str) -> float:
    """The error of the pre-trained model as it is, on the target; NaN if it was not evaluated."""
    rows = runs[(runs["kind"] == "pretrain") & (runs["status"] != "missing")]
    for column in ("target", "source", "npre"):
        rows = rows[rows[column] == name[column]]
    for column in ("structures", "transform"):
        rows = rows[(rows[column] == name[column]) | (rows[column] == "")]
    return getattr(cell_of(rows, RMSE[metric]), aggregate)


def _time_ratios(tuned: pd.DataFrame, direct: pd.DataFrame) -> tuple[float, float]:
    """How many times longer direct training took: at least and at most, over the seeds.

    NaN without times, or with times of different devices, which say nothing of each other.
    """
    tuned, direct = (rows[rows["wall_time_s"] > 0] for rows in (tuned, direct))
    if tuned.empty or direct.empty:
        return np.nan, np.nan
    both = pd.concat([tuned, direct])
    if any(both[name].nunique() > 1 for name in ("device", "device_name") if name in both):
        return np.nan, np.nan
    times, longer = tuned["wall_time_s"], direct["wall_time_s"]
    return float(longer.min() / times.max()), float(longer.max() / times.min())


def efficiency(runs: pd.DataFrame, target: str | None = None) -> pd.DataFrame:
    """The fewest fine-tuning structures that do what direct training needs N for.

    Parameters
    ----------
    runs
        As :func:`pretraining.results.runs_table.read_runs` returns them.
    target
        One target only; None takes all.

    Returns
    -------
    pandas.DataFrame
        One row for each target, metric, aggregate, pre-training and N (``n_direct``):
        ``rmse_direct``, ``n_finetune``, ``rmse_finetune`` and ``ratio`` = n_direct / n_finetune
        (all three empty where no fine-tune reaches ``rmse_direct``), ``at_least`` (true where the
        smallest size that was run suffices, so that the true ratio may be larger),
        ``seeds_direct``, ``seeds_finetune``, ``wall_time_ratio_min`` and ``_max`` (training time of
        direct over fine-tuning, without the pre-training), ``rmse_untuned`` and
        ``untuned_reaches`` (whether the pre-trained model does so with no structures at all).

    Raises
    ------
    UserError
        If there are no runs on the target, or a run is listed twice with different results.
    """
    runs, trained = _on(runs, target)
    rows = []
    for name, tuned, direct in _series(trained):
        for metric in RMSE:
            for aggregate in AGGREGATES:
                untuned = _untuned(runs, name, metric, aggregate)
                needed = _curve(direct, metric, aggregate)
                reached = _curve(tuned, metric, aggregate)
                for n_direct, (rmse, seeds) in needed.items():
                    row = {
                        **name,
                        "metric": metric,
                        "aggregate": aggregate,
                        "n_direct": n_direct,
                        "rmse_direct": rmse,
                        "seeds_direct": seeds,
                        "rmse_untuned": untuned,
                        "untuned_reaches": _answer(untuned, rmse),
                    }
                    enough = [n for n, (value, _) in reached.items() if value <= rmse]
                    if enough:
                        n = min(enough)
                        low, high = _time_ratios(
                            tuned[tuned["n"] == n], direct[direct["n"] == n_direct]
                        )
                        row |= {
                            "n_finetune": n,
                            "rmse_finetune": reached[n][0],
                            "seeds_finetune": reached[n][1],
                            "ratio": n_direct / n,
                            "at_least": "true" if n == min(reached) else "false",
                            "wall_time_ratio_min": low,
                            "wall_time_ratio_max": high,
                        }
                    rows.append(row)
    columns = ["target", *SERIES, "metric", "aggregate", "n_direct", "rmse_direct", "n_finetune"]
    columns += ["rmse_finetune", "ratio", "at_least", "seeds_direct", "seeds_finetune"]
    columns += ["wall_time_ratio_min", "wall_time_ratio_max", "rmse_untuned", "untuned_reaches"]
    table = pd.DataFrame(rows, columns=columns)
    for column in ("n_finetune", "seeds_finetune"):
        table[column] = table[column].astype("Int64")
    return table


def _answer(value: float, rmse: float) -> str:
    return "" if np.isnan(value) else str(bool(value <= rmse)).lower()


def gains(runs: pd.DataFrame, target: str | None = None) -> pd.DataFrame:
    """What pre-training gains at the same number of structures.

    Returns
    -------
    pandas.DataFrame
        One row for each target, metric, aggregate, pre-training and n: ``rmse_direct``,
        ``rmse_finetune``, ``gain`` (their difference, positive where pre-training helps) and
        ``gain_percent`` (of the direct error).
    """
    _, trained = _on(runs, target)
    rows = []
    for name, tuned, direct in _series(trained):
        for metric in RMSE:
            for aggregate in AGGREGATES:
                without = _curve(direct, metric, aggregate)
                for n, (value, _) in _curve(tuned, metric, aggregate).items():
                    if n in without:
                        gain = without[n][0] - value
                        rows.append(
                            {**name, "metric": metric, "aggregate": aggregate, "n": n}
                            | {"rmse_direct": without[n][0], "rmse_finetune": value, "gain": gain}
                            | {"gain_percent": 100 * gain / without[n][0]}
                        )
    columns = ["target", *SERIES, "metric", "aggregate", "n", "rmse_direct", "rmse_finetune"]
    return pd.DataFrame(rows, columns=[*columns, "gain", "gain_percent"])


def best_of_each(table: pd.DataFrame) -> pd.DataFrame:
    """For each pre-training, metric and aggregate, the row of the largest ratio.

    Where no fine-tune reaches any direct training, a row without ratio stands for them.
    """
    key = ["target", *SERIES, "metric", "aggregate"]
    return table.sort_values("ratio", ascending=False, kind="stable").drop_duplicates(key)


def sentence(row: Mapping, styles: Mapping[str, SourceStyle] | None = None) -> str:
    """One result in words, e.g. ``25 instead of 800 (32×) in energy, best of seeds, …``."""
    seeds = "best of seeds" if row["aggregate"] == "best" else "mean of seeds"
    bound = "at least " if row["at_least"] == "true" else ""
    unit = UNITS[row["metric"]]
    text = (
        f"{row['n_finetune']} instead of {row['n_direct']} ({bound}{row['ratio']:.3g}×) in "
        f"{row['metric']}, {seeds}, {title_of(row['source'], styles)}, {row['npre']:,} "
        f"pre-training structures"
    )
    if row["transform"] != "none":
        text += f", {row['transform']}"
    text += f": {row['rmse_finetune']:.3g} against {row['rmse_direct']:.3g} {unit}"
    if np.isfinite(row["wall_time_ratio_min"]):
        text += f", training time ratio {_range(row)}"
    return text


def _range(row: Mapping) -> str:
    """The training time ratio from the fastest to the slowest seeds, empty without times."""
    ends = [f"{row[f'wall_time_ratio_{end}']:.2g}" for end in ("min", "max")]
    return "" if "nan" in ends else " to ".join(dict.fromkeys(ends))


def as_markdown(
    table: pd.DataFrame,
    styles: Mapping[str, SourceStyle] | None = None,
    beside: pd.DataFrame | None = None,
) -> str:
    """The most that each pre-training saves, the overall best in words first.

    Parameters
    ----------
    beside
        Published numbers with computed ones, from :func:`.claims.beside_published`.
    """
    best = best_of_each(table)
    text = "# Data efficiency\n\n"
    if best.empty:
        return text + "Nothing to compare: no target has both direct and fine-tuned results.\n"
    for _, group in best.dropna(subset="ratio").groupby(["target", "metric", "aggregate"]):
        # Of equally efficient models, the one with the least pre-training.
        row = group.sort_values(["ratio", "npre", "source"], ascending=[False, True, True]).iloc[0]
        text += f"- {row['target']}: {sentence(row, styles)}.\n"
    header = ["target", "source", "transform", "pre-training", "metric", "seeds", "fine-tuning on"]
    header += ["instead of", "ratio", "training time ratio", "untuned reaches"]
    rows = []
    rank = {s: i for i, s in enumerate(order_sources(best["source"].unique(), styles))}
    order = best.assign(_rank=best["source"].map(rank))
    order = order.sort_values(["target", "metric", "aggregate", "transform", "_rank", "npre"])
    for _, row in order.iterrows():
        bound = "≥ " if row["at_least"] == "true" else ""
        cells = [row["target"], title_of(row["source"], styles), row["transform"]]
        cells += [f"{row['npre']:,}", row["metric"]]
        if pd.isna(row["ratio"]):
            rows.append([*cells, row["aggregate"], "–", "–", "none reached", "", ""])
            continue
        cells += [f"{row['aggregate']} ({row['seeds_finetune']}/{row['seeds_direct']})"]
        cells += [str(row["n_finetune"]), str(row["n_direct"]), f"{bound}{row['ratio']:.3g}"]
        rows.append([*cells, _range(row), row["untuned_reaches"]])
    text += "\n" + markdown_table(header, rows)
    text += (
        "\nThe largest ratio of each pre-training; (k/m): k seeds fine-tuned, m direct. ≥: the "
        "smallest size that was run is already enough. Times are those of the training runs alone, "
        "without the pre-training, which is paid once. Untuned reaches: whether the pre-trained "
        "model is as accurate with no DFT-labelled structure at all.\n"
    )
    if beside is not None and len(beside):
        text += "\n## Beside the published numbers\n\n" + _beside(beside, styles)
    return text


def _beside(beside: pd.DataFrame, styles) -> str:
    rows = []
    for _, row in beside.iterrows():
        computed = "" if pd.isna(row["computed"]) else f"{row['computed']:.3g}"
        difference = "" if pd.isna(row["computed"]) else f"{row['difference']:+.3g}"
        rows.append(
            [row["quantity"].replace("_", " "), row["target"], row["metric"], row["aggregate"]]
            + [title_of(row["source"], styles) if row["source"] else "", row["npre"], row["n"]]
            + [computed, f"{row['relation']} {row['value']:g}", difference, row["unit"]]
        )
    header = ["quantity", "target", "metric", "seeds", "source", "pre-training", "n"]
    return markdown_table([*header, "computed", "published", "difference", "unit"], rows)
