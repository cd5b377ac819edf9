"""Forgetting: what models lose on a general test set when they are trained on a special one.

The error of a pre-trained model on the general test set is the measure. Fine-tuned on another
dataset, the model has that many times this error; a model trained on that dataset alone, without
pre-training, has as many times more.

Forces are compared as they are. Two datasets need not have the same zero of energy, so energies are
compared after the median difference an atom has been subtracted from each model's errors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pretraining.results.runs_table import RMSE, SHIFTED, unique_runs
from pretraining.results.table1 import cell_of
from pretraining.runtime.tables import markdown_table
from pretraining.study.titles import SourceStyle, title_of

SERIES = ("trained_on", "test_set", "structures", "transform", "source", "npre")
AGGREGATES = ("best", "mean", "same")
COLUMN = {"force": RMSE["force"], "energy": SHIFTED}
PUBLISHED = {
    "forgetting_finetuned": "ratio_finetuned",
    "forgetting_direct": "ratio_direct",
}


def forgetting(runs: pd.DataFrame) -> pd.DataFrame:
    """Errors on general test sets in units of the pre-trained model's.

    Parameters
    ----------
    runs
        As :func:`pretraining.results.runs_table.read_runs` returns them.

    Returns
    -------
    pandas.DataFrame
        One row for each dataset that was trained on, test set, pre-training, metric (``force``,
        and ``energy`` after a median shift), aggregate and number of structures n:
        ``rmse_pretrained``, ``rmse_finetuned``, ``rmse_direct``, ``ratio_finetuned`` and
        ``ratio_direct`` (to the pre-trained model), ``seeds_finetuned``, ``seeds_direct``. The
        aggregate is the ``best`` of the seeds on the general test set, their ``mean``, or the
        ``same`` model that is the best in force on the dataset that it was trained on.
    """
    moved = unique_runs(runs[runs["kind"] == "transfer"])
    table = []
    for key, tuned in moved[moved["source"] != "none"].groupby(
        ["trained_on", "target", *SERIES[2:]]
    ):
        name = dict(zip(SERIES, key, strict=True))
        here = moved[(moved["trained_on"] == key[0]) & (moved["target"] == key[1])]
        direct = here[here["source"] == "none"]
        for metric, column in COLUMN.items():
            for aggregate in AGGREGATES:
                before = cell_of(_pretrained(runs, name), column)
                start = before.mean if aggregate == "mean" else before.best
                for n in sorted(tuned["n"].unique()):
                    sides = {
                        "finetuned": tuned[tuned["n"] == n],
                        "direct": direct[direct["n"] == n],
                    }
                    row = {**name, "metric": metric, "aggregate": aggregate, "n": n}
                    row["rmse_pretrained"] = start
                    for side, cell in sides.items():
                        error = _error(runs, cell, column, aggregate)
                        row[f"rmse_{side}"] = error
                        row[f"ratio_{side}"] = error / start if start > 0 else np.nan
                        row[f"seeds_{side}"] = cell_of(cell, column).count
                    table.append(row)
    columns = [*SERIES, "metric", "aggregate", "n", "rmse_pretrained", "rmse_finetuned"]
    columns += ["rmse_direct", "ratio_finetuned", "ratio_direct", "seeds_finetuned", "seeds_direct"]
    ratios = pd.DataFrame(table, columns=columns)
    # A test set without shifted energies, of an earlier evaluation, has nothing to compare.
    return ratios.dropna(subset=["rmse_finetuned", "rmse_direct"], how="all").reset_index(drop=True)


def _pretrained(runs: pd.DataFrame, name: Mapping) -> pd.DataFrame:
    """The pre-trained models, as they are, on the general test set."""
    rows = runs[(runs["kind"] == "pretrain") & (runs["target"] == name["test_set"])]
    for column in ("structures", "transform", "source", "npre"):
        rows = rows[rows[column] == name[column]]
    return unique_runs(rows)


def _error(runs: pd.DataFrame, cell: pd.DataFrame, column: str, aggregate: str) -> float:
    """The error of the runs of one cell on the general test set."""
    if aggregate != "same":
        return getattr(cell_of(cell, column), aggregate)
    key = ["structures", "transform", "source", "npre", "preseed", "n", "seed"]
    trained = runs[runs["kind"].isin(("direct", "finetune"))].rename(columns={"target": "own"})
    own = cell.merge(
        trained[[*key, "own", RMSE["force"]]],
        left_on=[*key, "trained_on"],
        right_on=[*key, "own"],
        suffixes=("", "_own"),
    )
    errors = own[f"{RMSE['force']}_own"]
    return float(own.loc[errors.idxmin(), column]) if errors.notna().any() else np.nan


def beside_published(headlines: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The published ratios, with the range of the computed ones over n.

    Returns
    -------
    pandas.DataFrame
        The headline's columns, ``low``, ``median`` and ``high``; those of which nothing was
        computed under the same conditions are left out.
    """
    rows = []
    for _, row in headlines[headlines["quantity"].isin(list(PUBLISHED))].iterrows():
        found = table[(table["test_set"] == row["target"]) & (table["metric"] == row["metric"])]
        found = found[found["aggregate"] == row["aggregate"]]
        ratios = found[PUBLISHED[row["quantity"]]].dropna()
        if row["source"] not in ("", "none"):
            same = (found["source"] == row["source"]) & (found["npre"].astype(str) == row["npre"])
            ratios = found.loc[same, PUBLISHED[row["quantity"]]].dropna()
        if len(ratios):
            span = {"low": ratios.min(), "median": ratios.median(), "high": ratios.max()}
            rows.append({**row, **span})
    return pd.DataFrame(rows, columns=[*headlines.columns, "low", "median", "high"])


def as_markdown(
    table: pd.DataFrame,
    styles: Mapping[str, SourceStyle] | None = None,
    beside: pd.DataFrame | None = None,
) -> str:
    """The ratios in Markdown, by number of structures, and beside the published ones."""
    text = "# Forgetting\n\n"
    for (trained, tested), group in table.groupby(["trained_on", "test_set"]):
        text += f"## Trained on {trained}, tested on {tested}\n\n"
        rows = []
        for _, row in group.iterrows():
            cells = [title_of(row["source"], styles), row["transform"], f"{row['npre']:,}"]
            cells += [row["metric"], row["aggregate"], str(row["n"])]
            cells += [_number(row[f"rmse_{side}"]) for side in ("pretrained", "finetuned")]
            cells += [_number(row["rmse_direct"]), _times(row["ratio_finetuned"])]
            rows.append([*cells, _times(row["ratio_direct"])])
        header = ["source", "transform", "pre-training", "metric", "seeds", "n", "pre-trained"]
        header += ["fine-tuned", "direct", "fine-tuned ÷ pre-trained", "direct ÷ pre-trained"]
        text += markdown_table(header, rows) + "\n"
    text += (
        "Force-component RMSE in eV/Å; energy RMSE in meV/atom after the median difference an atom "
        "has been subtracted, because two datasets need not have the same zero of energy: forces "
        "are the fair measure. Seeds: the best on this test set, the mean, or the same model that "
        "is the best in force on the dataset it was trained on.\n"
    )
    if beside is not None and len(beside):
        rows = [
            [
                row["quantity"].replace("_", " "),
                f"{row['median']:.2f} ({row['low']:.2f} to {row['high']:.2f})",
                f"{row['value']:g}",
            ]
            for _, row in beside.iterrows()
        ]
        text += "\n## Beside the published numbers\n\n"
        text += markdown_table(["quantity", "computed: median over n (range)", "published"], rows)
    return text


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3g}"


def _times(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.2f} ×"
