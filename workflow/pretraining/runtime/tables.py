"""Tables as text files: read with clear errors, written atomically, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_text

NO_VALUE = ("", "none", "-", "na", "n/a", "nan", "null")


def read_table(path: str | Path, required: Sequence[str], what: str) -> pd.DataFrame:
    """Read a CSV file, or a TSV file named ``*.tsv``, as text, every cell stripped.

    Raises a `UserError`, in which `what` names the table, if the file is missing, empty, not a
    table, or lacks one of the `required` columns.
    """
    options = {"dtype": str, "keep_default_na": False, "skipinitialspace": True}
    table = _read(Path(path), required, what, encoding="utf-8-sig", **options)
    # Short rows are filled with NaN despite keep_default_na.
    return table.fillna("").apply(lambda column: column.str.strip())


def read_csv(path: str | Path, required: Sequence[str]) -> pd.DataFrame:
    """Read a CSV file of the workflow, with numbers as numbers; errors as in `read_table`."""
    return _read(Path(path), required, "this table")


def _read(path: Path, required: Sequence[str], what: str, **options: Any) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",", **options)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (wanted: {what})") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path}: the file is empty (wanted: {what})") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable table ({error})") from None
    table.columns = [str(column).strip() for column in table.columns]
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise UserError(
            f"{path}: no column {', '.join(missing)}; {what} has the columns {', '.join(required)}"
        )
    return table


def numbers(column: pd.Series, path: str | Path, *, whole: bool = False) -> pd.Series:
    """Turn a text column into floats (empty and ``nan`` become NaN) or, if `whole`, integers."""
    text = column.astype(str).str.strip()
    empty = text.str.lower().isin(NO_VALUE)
    values = pd.to_numeric(text.mask(empty), errors="coerce")
    wrong = values.isna() & ~empty
    if whole:
        # Other programs write 25.0 if the column once had an empty cell.
        wrong = wrong | empty | (values < 0) | values.isin([math.inf]) | (values % 1 != 0)
    _refuse(wrong, text, path, "a whole number" if whole else "a number")
    return values.astype("int64") if whole else values.astype("float64")


def truths(column: pd.Series, path: str | Path) -> pd.Series:
    """Turn a text column into booleans; an empty cell is false."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    text = column.astype(str).str.strip().str.lower()
    values = text.mask(text.isin(NO_VALUE), "false").map(known)
    _refuse(values.isna(), text, path, "true or false")
    return values.astype(bool)


def _refuse(wrong: pd.Series, text: pd.Series, path: str | Path, kind: str) -> None:
    if wrong.any():
        line = int(wrong.to_numpy().argmax())
        raise UserError(
            f"{path}: column {text.name}, line {line + 2}: {text.iloc[line]!r} is not {kind}"
        )


def write_csv(path: str | Path, table: pd.DataFrame, floats: str | None = "%.10g") -> None:
    """Write a table as CSV, atomically, with booleans in lower case; `floats` None: all digits."""
    table = table.copy()
    for column in table.columns:
        if table[column].dtype == bool:
            table[column] = table[column].map({True: "true", False: "false"})
    write_text(path, table.to_csv(index=False, float_format=floats, lineterminator="\n"))


def markdown(
    table: pd.DataFrame,
    formats: Mapping[str, str] | None = None,
    *,
    columns: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """A table in Markdown, text aligned left and numbers right; a dash for None and NaN.

    Parameters
    ----------
    formats
        Format of a column's cells, such as ``.1f``; ``>`` aligns ready-made text right.
    columns
        The columns to print, each with its head and format; None prints all under their names.
    """
    if columns is not None:
        formats = {head: form for head, form in columns.values() if form}
        table = table[list(columns)].set_axis([head for head, _ in columns.values()], axis=1)
    formats = formats or {}
    right = [name in formats or is_numeric_dtype(table[name]) for name in table]
    cells = {
        name: ["–" if pd.isna(cell) else format(cell, formats.get(name, "")) for cell in column]
        for name, column in table.items()
    }
    sides = ["right" if numeric else "left" for numeric in right]
    text = pd.DataFrame(cells, columns=table.columns, dtype=object).to_markdown(
        index=False, colalign=sides, disable_numparse=True
    )
    return text + "\n"
