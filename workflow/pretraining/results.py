"""The runs table: one tidy row a training run, from which every table and figure is made.

Energies are RMSEs per atom in meV/atom, forces RMSEs per component in eV/Å, both on the whole test
set of the row's target. A row of kind ``transfer`` is a model that was trained on another dataset,
which its column `trained_on` names; one without pre-training has the source ``none``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from pretraining.errors import UserError
from pretraining.interruption import write_atomically

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
_NO_VALUE = ("", "none", "-", "na", "n/a", "nan", "null")


def read_table(path: str | Path, required: Sequence[str], what: str) -> pd.DataFrame:
    """Read a CSV or TSV file as text, every cell stripped.

    Parameters
    ----------
    path
        Tab-separated if its name ends in ``.tsv``, comma-separated otherwise.
    required
        Columns that must be there.
    what
        The table's name in messages.

    Raises
    ------
    UserError
        If the file is absent, empty, not a table, or lacks a column.
    """
    path = Path(path)
    try:
        table = pd.read_csv(
            path,
            sep="\t" if path.suffix == ".tsv" else ",",
            dtype=str,
            keep_default_na=False,
            encoding="utf-8-sig",
            skipinitialspace=True,
        )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (wanted: {what})") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty (wanted: {what})") from None
    except (pd.errors.ParserError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    table.columns = [str(column).strip() for column in table.columns]
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; {what} has the columns {', '.join(required)}"
        )
    repeated = table.columns[table.columns.duplicated()]
    if len(repeated):
        raise UserError(f"{path}: the column {repeated[0]} appears twice")
    # A short row is filled with NaN in spite of keep_default_na.
    return table.fillna("").apply(lambda column: column.str.strip())


def read_csv(path: str | Path, required: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file that the workflow wrote, its numbers as numbers.

    Raises
    ------
    UserError
        If it is no such table.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise UserError(f"{path}: no column {', '.join(missing)}; remake it")
    return table


def numbers(column: pd.Series, path: str | Path, *, whole: bool = False) -> pd.Series:
    """Turn a text column into floats (empty and ``nan`` become NaN) or, if `whole`, integers.

    Raises
    ------
    UserError
        Naming file, column and line of the first cell that is not such a number.
    """
    text = column.astype(str).str.strip()
    empty = text.str.lower().isin(_NO_VALUE)
    values = pd.to_numeric(text.mask(empty), errors="coerce")
    wrong = values.isna() & ~empty
    if whole:
        # 25.0 is what other programs make of a column that once held an empty cell.
        wrong = wrong | empty | (values < 0) | values.isin([math.inf]) | (values % 1 != 0)
    if wrong.any():
        line = int(wrong.to_numpy().argmax())
        kind = "a whole number" if whole else "a number"
        raise UserError(
            f"{path}: column {column.name}, line {line + 2}: {text.iloc[line]!r} is not {kind}"
        )
    return values.astype("int64") if whole else values.astype("float64")


def truths(column: pd.Series, path: str | Path) -> pd.Series:
    """Turn a text column into booleans; an empty cell is false."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    text = column.astype(str).str.strip().str.lower()
    values = text.mask(text.isin(_NO_VALUE), "false").map(known)
    if values.isna().any():
        line = int(values.isna().to_numpy().argmax())
        raise UserError(
            f"{path}: column {column.name}, line {line + 2}: {text.iloc[line]!r} "
            "is neither true nor false"
        )
    return values.astype(bool)


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


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file or nothing, creating its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))


def write_csv(path: str | Path, table: pd.DataFrame, floats: str = "%.10g") -> None:
    """Write a table as CSV, atomically; booleans in lower case, numbers free of binary noise."""
    table = table.copy()
    for column in table.columns:
        if table[column].dtype == bool:
            table[column] = table[column].map({True: "true", False: "false"})
    write_text(path, table.to_csv(index=False, float_format=floats, lineterminator="\n"))


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table with every column right-aligned."""
    header = list(header)
    lines = [header, ["---:"] * len(header), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
