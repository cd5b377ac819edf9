"""Forgetting: errors on a general test set after training on a special dataset.

The measure is the ratio to the error of the pre-trained model there. Energies are compared after a
median shift, because two datasets can have different zeros of energy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pretraining.results.runs_table import FREE, MODEL, RMSE, TRAINED, tested_on, unique_runs
from pretraining.results.seed_statistics import AGGREGATES, cell_of, with_titles
from pretraining.runtime.tables import markdown
from pretraining.study.titles import SourceStyle

SERIES = ("trained_on", "test_set", *MODEL)


def forgetting(runs: pd.DataFrame) -> pd.DataFrame:
    """Errors on general test sets in units of the pre-trained model's.

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
        model = {column: name[column] for column in MODEL}
        for metric in ("force", "energy"):
            column = FREE[metric]
            before = cell_of(tested_on(runs, "pretrain", key[1], model), column)
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


def _error(runs: pd.DataFrame, cell: pd.DataFrame, column: str, aggregate: str) -> float:
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

    `claims` is as :func:`.published.claims_of_forgetting` returns it.
    """
    columns = {
        "source": ("source", ""),
        "transform": ("transform", ""),
        "npre": ("pre-training", ","),
        "metric": ("metric", ""),
        "aggregate": ("seeds", ""),
        "n": ("n", ""),
        "rmse_pretrained": ("pre-trained", ".3g"),
        "rmse_finetuned": ("fine-tuned", ".3g"),
        "rmse_direct": ("direct", ".3g"),
        "ratio_finetuned": ("fine-tuned ÷ pre-trained", ".2f"),
        "ratio_direct": ("direct ÷ pre-trained", ".2f"),
    }
    text = "# Forgetting\n\n"
    for (trained, tested), group in with_titles(table, styles).groupby(["trained_on", "test_set"]):
        text += f"## Trained on {trained}, tested on {tested}\n\n"
        text += markdown(group, columns=columns) + "\n"
    text += (
        "Force-component RMSE in eV/Å; energy RMSE in meV/atom after subtraction of the median "
        "difference per atom, because two datasets can have different zeros of energy: forces are "
        "the fair measure. Seeds: the best on this test set, the mean, or the same model that is "
        "the best in force on the dataset it was trained on.\n"
    )
    if claims is not None and len(claims):
        span = "{median:.2f} ({low:.2f} to {high:.2f})"
        rows = pd.DataFrame({"quantity": claims["quantity"].str.replace("_", " ")})
        rows["computed: median over n (range)"] = claims.agg(lambda row: span.format(**row), axis=1)
        text += "\n## Published numbers\n\n" + markdown(rows.assign(published=claims["value"]))
    return text
