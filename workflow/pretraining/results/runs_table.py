"""The runs table: one tidy row a training run, from which every table and figure is made.

Energies are RMSEs per atom in meV/atom, forces RMSEs per component in eV/Å, both on the whole test
set of the row's target. A row of kind ``transfer`` is a model that was trained on another dataset,
which its column `trained_on` names; one without pre-training has the source ``none``.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import _NO_VALUE, numbers, read_table, truths

KINDS = ("source", "pretrain", "direct", "finetune", "transfer")
TRAINED = ("direct", "finetune")
COLUMNS = (
    "kind",
    "target",
    "source",
    "npre",
    "n",
    "seed",
    "test_energy_rmse",
    "test_force_rmse",
)
WHOLE = ("npre", "n", "seed")
RMSE = {"energy": "test_energy_rmse", "force": "test_force_rmse"}
# Energies after a median shift, where two methods need not have the same zero.
SHIFTED = "test_energy_shifted_rmse"
KEY = ("kind", "target", "structures", "transform", "source", "npre", "preseed", "n", "seed")
# A model that is tested elsewhere is told apart by what it was trained on, too.
IDENTITY = (*KEY, "trained_on")
OPTIONAL = {"structures": "", "transform": "none", "preseed": "", "trained_on": ""}


def read_runs(path: str | Path) -> pd.DataFrame:
    """Read a runs table; the eight columns of :data:`COLUMNS` are enough.

    Returns
    -------
    pandas.DataFrame
        As :func:`normalise` leaves it, in the file's order.

    Raises
    ------
    UserError
        Naming the file and the column, for anything that is not such a table.
    """
    return normalise(read_table(path, COLUMNS, "a runs table"), path)


def normalise(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Turn a runs table of text into the typed one that the rest of the package relies on.

    The optional columns structures, transform, preseed, trained_on, status, diverged,
    test_energy_shifted_rmse, wall_time_s and power_w_mean are filled in (empty, ``none``, empty,
    empty, ``ok``, false, NaN, NaN, NaN) where they are absent. Rows of direct training carry source
    ``none`` and npre 0.

    Raises
    ------
    UserError
        Naming `path` and the column.
    """
    if table.empty:
        raise UserError(f"{path}: the runs table has no rows")
    # Text keeps NaN as it is.
    table = table.astype(str).fillna("")
    table["kind"] = table["kind"].str.lower()
    unknown = table.loc[~table["kind"].isin(KINDS), "kind"]
    if len(unknown):
        raise UserError(
            f"{path}: column kind, line {unknown.index[0] + 2}: {unknown.iloc[0]!r} is none of "
            + ", ".join(KINDS)
        )
    direct = table["kind"] == "direct"
    table.loc[direct & table["source"].str.lower().isin(_NO_VALUE), "source"] = "none"
    table.loc[direct & table["npre"].str.lower().isin(_NO_VALUE), "npre"] = "0"
    for column in WHOLE:
        table[column] = numbers(table[column], path, whole=True)
    mixed = direct & ((table["source"] != "none") | (table["npre"] != 0))
    if mixed.any():
        raise UserError(
            f"{path}: line {int(mixed.to_numpy().argmax()) + 2}: direct training has the source "
            "'none' and npre 0"
        )
    measured = (SHIFTED, *(c for c in table.columns if c.endswith("_rmse")))
    for column in dict.fromkeys(("wall_time_s", "power_w_mean", *measured)):
        table[column] = numbers(table[column], path) if column in table else math.nan
        if (table[column] < 0).any():
            raise UserError(f"{path}: column {column} has a negative value")
    for column, default in OPTIONAL.items():
        table[column] = table.get(column, default)
        table.loc[table[column].str.lower().isin(_NO_VALUE), column] = default
    table["diverged"] = truths(table["diverged"], path) if "diverged" in table else False
    table["status"] = table["status"].str.lower() if "status" in table else "ok"
    return table


def unique_runs(runs: pd.DataFrame, path: str | Path = "runs table") -> pd.DataFrame:
    """Count a run that is listed twice once.

    A row without result (status ``missing``) gives way to a row of the same run that has one.

    Raises
    ------
    UserError
        If two rows of the same run disagree on an RMSE.
    """
    key = [column for column in IDENTITY if column in runs]
    found = runs["status"] != "missing"
    values = list(RMSE.values())
    results = runs[found].drop_duplicates([*key, *values])
    clash = results.duplicated(key)
    if clash.any():
        row = results[clash].iloc[0]
        raise UserError(
            f"{path}: the run {describe(row)} is listed twice with different results; "
            "keep one of the rows (or add the column structures, transform or preseed that tells "
            "them apart)"
        )
    absent = runs[~found].drop_duplicates(key)
    return pd.concat([results, absent]).drop_duplicates(key)


def describe(row: pd.Series | dict) -> str:
    """Name a run in a message, e.g. ``finetune target=C-GAP-17 source=ace n=25 seed=1``."""
    parts = [str(row["kind"])]
    for column in IDENTITY[1:]:
        value = str(row.get(column, ""))
        if value not in ("", "nan") and not (column == "transform" and value == "none"):
            parts.append(f"{column}={value}")
    return " ".join(parts)


def in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """Sort by kind (in the order of :data:`KINDS`) and then by the rest of the key."""
    key = [column for column in IDENTITY if column in runs]
    rank = runs["kind"].map({kind: i for i, kind in enumerate(KINDS)})
    ordered = runs.assign(_rank=rank).sort_values(["_rank", *key[1:]], kind="stable")
    return ordered.drop(columns="_rank").reset_index(drop=True)
