"""The numbers that the paper states in its text, beside the computed ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import numbers, read_table

COLUMNS = ("quantity", "target", "source", "npre", "n", "metric", "aggregate", "relation")
COLUMNS = (*COLUMNS, "value", "unit", "origin")
RELATIONS = ("=", "~", ">", ">=", "<", "<=")
# Quantity of a headline -> column of the efficiency table (at the published N) or gains table.
_EFFICIENCY = {
    "data_efficiency": "ratio",
    "wall_time_ratio_min": "wall_time_ratio_min",
    "wall_time_ratio_max": "wall_time_ratio_max",
}
_GAINS = {"gain": "gain", "gain_percent": "gain_percent"}


def read_headlines(path: str | Path) -> pd.DataFrame:
    """Read the published single numbers.

    Raises
    ------
    UserError
        Naming the file and the column.
    """
    table = read_table(path, COLUMNS, "published numbers")
    table["value"] = numbers(table["value"], path)
    wrong = table[~table["relation"].isin(RELATIONS)]
    if len(wrong):
        raise UserError(
            f"{path}: column relation, line {wrong.index[0] + 2}: {wrong['relation'].iloc[0]!r} "
            f"is none of {' '.join(RELATIONS)}"
        )
    return table[list(COLUMNS)]


def _pick(table: pd.DataFrame, row: pd.Series, column: str, n: str) -> float:
    """The computed value under the headline's conditions; NaN unless there is exactly one."""
    found = table
    conditions = ("target", "source", "npre", "metric", "aggregate")
    for name, value in [*((name, row[name]) for name in conditions), (n, row["n"])]:
        if value != "" and name in found:
            found = found[found[name].astype(str) == value]
    values = found[column].dropna()
    return float(values.iloc[0]) if len(values) == 1 else np.nan


def beside_published(
    headlines: pd.DataFrame, efficiency: pd.DataFrame, gains: pd.DataFrame
) -> pd.DataFrame:
    """The headlines that the two tables speak of, with what was computed.

    In a headline of efficiency n is the number of structures of direct training.

    Returns
    -------
    pandas.DataFrame
        The headline's columns, ``computed`` and ``difference`` (computed - published), NaN where
        nothing was computed under the same conditions.
    """
    rows = []
    for _, row in headlines.iterrows():
        if row["quantity"] in _EFFICIENCY:
            value = _pick(efficiency, row, _EFFICIENCY[row["quantity"]], "n_direct")
        elif row["quantity"] in _GAINS:
            value = _pick(gains, row, _GAINS[row["quantity"]], "n")
        else:
            continue
        rows.append({**row, "computed": value, "difference": value - row["value"]})
    return pd.DataFrame(rows, columns=[*COLUMNS, "computed", "difference"])
