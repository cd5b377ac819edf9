"""Forgetting: errors on a general test set after training on a special dataset.

The measure is the ratio to the error of the pre-trained model there, of the fine-tuned model and of
one trained directly on the special dataset. Forces are compared as they are; energies after a
median shift, because two datasets can have different zeros of energy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pretraining.results.runs_table import RMSE, SHIFTED, TRAINED, unique_runs
from pretraining.results.seed_statistics import AGGREGATES, HEADS, cell_of, with_titles
from pretraining.runtime.tables import markdown
from pretraining.study.titles import SourceStyle

MODEL = ("structures", "transform", "source", "npre")
SERIES = ("trained_on", "test_set", *MODEL)
COLUMN = {"force": RMSE["force"], "energy": SHIFTED}


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
    for key, tuned in moved[moved["source"] != "none"].groupby(["trained_on", "target", *MODEL]):
        name = dict(zip(SERIES, key, strict=True))
        here = moved[(moved["trained_on"] == key[0]) & (moved["target"] == key[1])]
        direct = here[here["source"] == "none"]
        for metric, column in COLUMN.items():
            before = cell_of(_pretrained(runs, name), column)
            for aggregate in (*AGGREGATES, "same"):
                start = before.mean if aggregate == "mean" else before.best
                for n in sorted(tuned["n"].unique()):
                    row = {**name, "metric": metric, "aggregate": aggregate, "n": n}
                    row["rmse_pretrained"] = start
                    for side, models in (("finetuned", tuned), ("direct", direct)):
                        cell = models[models["n"] == n]
                        error = _error(runs, cell, column, aggregate)
                        row[f"rmse_{side}"] = error
                        row[f"ratio_{side}"] = error / start if start > 0 else np.nan
                        row[f"seeds_{side}"] = cell_of(cell, column).count
                    table.append(row)
    columns = [*SERIES, "metric", "aggregate", "n", "rmse_pretrained", "rmse_finetuned"]
    columns += ["rmse_direct", "ratio_finetuned", "ratio_direct", "seeds_finetuned", "seeds_direct"]
    ratios = pd.DataFrame(table, columns=columns)
    # Test sets without shifted energies have no energies to compare.
    return ratios.dropna(subset=["rmse_finetuned", "rmse_direct"], how="all").reset_index(drop=True)


def _pretrained(runs: pd.DataFrame, name: Mapping) -> pd.DataFrame:
    """Tests of the pre-trained models on the general test set, before fine-tuning."""
    rows = runs[(runs["kind"] == "pretrain") & (runs["target"] == name["test_set"])]
    for column in MODEL:
        rows = rows[rows[column] == name[column]]
    return unique_runs(rows)


def _error(runs: pd.DataFrame, cell: pd.DataFrame, column: str, aggregate: str) -> float:
    """The error of the runs of one cell on the general test set."""
    if aggregate != "same":
        return getattr(cell_of(cell, column), aggregate)
    key = [*MODEL, "preseed", "n", "seed"]
    trained = runs[runs["kind"].isin(TRAINED)].rename(columns={"target": "own"})
    own = cell.merge(
        trained[[*key, "own", RMSE["force"]]],
        left_on=[*key, "trained_on"],
        right_on=[*key, "own"],
        suffixes=("", "_own"),
    )
    errors = own[f"{RMSE['force']}_own"]
    return float(own.loc[errors.idxmin(), column]) if errors.notna().any() else np.nan


def as_markdown(
    table: pd.DataFrame,
    styles: Mapping[str, SourceStyle] | None = None,
    claims: pd.DataFrame | None = None,
) -> str:
    """The ratios in Markdown, by number of structures, and the published ones.

    Parameters
    ----------
    claims
        As :func:`.published.claims_of_forgetting` returns them.
    """
    heads = HEADS | {
        "rmse_pretrained": "pre-trained",
        "rmse_finetuned": "fine-tuned",
        "rmse_direct": "direct",
        "ratio_finetuned": "fine-tuned ÷ pre-trained",
        "ratio_direct": "direct ÷ pre-trained",
    }
    formats = {"pre-training": ",", "pre-trained": ".3g", "fine-tuned": ".3g", "direct": ".3g"}
    formats |= {"fine-tuned ÷ pre-trained": ".2f", "direct ÷ pre-trained": ".2f"}
    columns = ["source", "transform", "npre", "metric", "aggregate", "n", *list(heads)[-5:]]
    printed = with_titles(table, styles).rename(columns=heads)
    text = "# Forgetting\n\n"
    for (trained, tested), group in printed.groupby(["trained_on", "test_set"]):
        text += f"## Trained on {trained}, tested on {tested}\n\n"
        text += markdown(group[[heads.get(name, name) for name in columns]], formats) + "\n"
    text += (
        "Force-component RMSE in eV/Å; energy RMSE in meV/atom after subtraction of the median "
        "difference per atom, because two datasets can have different zeros of energy: forces are "
        "the fair measure. Seeds: the best on this test set, the mean, or the same model that is "
        "the best in force on the dataset it was trained on.\n"
    )
    if claims is not None and len(claims):
        rows = pd.DataFrame(
            {
                "quantity": claims["quantity"].str.replace("_", " "),
                "computed: median over n (range)": [
                    f"{row.median:.2f} ({row.low:.2f} to {row.high:.2f})"
                    for row in claims.itertuples()
                ],
                "published": claims["value"],
            }
        )
        text += "\n## Published numbers\n\n" + markdown(rows)
    return text
