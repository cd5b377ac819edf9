"""Table 1: energy errors by label source and number of DFT-labelled structures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pretraining.results.runs_table import RMSE
from pretraining.results.seed_statistics import (
    FLAG_NOTE,
    cell_of,
    marks_of,
    sort_by_source,
    unconverged_note,
    with_titles,
)
from pretraining.results.selection import Selected
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown, numbers, read_table, truths
from pretraining.study.titles import SourceStyle, order_sources, title_of

COUNTS = ("unconverged", "runs", "missing")
TABLE_COLUMNS = ("n", "source", "mean", "std", "count", "flagged")


def table1(selected: Selected, column: str = RMSE["energy"]) -> pd.DataFrame:
    """Mean and sample standard deviation of each cell.

    Returns
    -------
    pandas.DataFrame
        Columns n, source, mean, std (meV/atom), count (of finite values), flagged, unconverged,
        runs and missing, ordered by n and, direct training first, by source.
    """
    rows = []
    for (n, source), runs in selected.runs.groupby(["n", "source"]):
        cell = cell_of(runs, column)
        values = {name: getattr(cell, name) for name in (*TABLE_COLUMNS[2:], *COUNTS)}
        rows.append({"n": n, "source": source, **values})
    return sort_by_source(pd.DataFrame(rows), ["n", "source"])


def read_table1(path: str | Path) -> pd.DataFrame:
    """Read a Table 1 with the columns :data:`TABLE_COLUMNS`."""
    table = read_table(path, TABLE_COLUMNS, "a Table 1")
    if table.empty:
        raise UserError(f"{path}: the table has no rows")
    for column in ("n", "count"):
        table[column] = numbers(table[column], path, whole=True)
    for column in ("mean", "std"):
        table[column] = numbers(table[column], path)
    table["flagged"] = truths(table["flagged"], path)
    if table.duplicated(["n", "source"]).any():
        row = table[table.duplicated(["n", "source"])].iloc[0]
        raise UserError(f"{path}: the cell n={row['n']} source={row['source']} appears twice")
    counts = numbers(table.get("unconverged", pd.Series("0", table.index)), path, whole=True)
    return table[list(TABLE_COLUMNS)].assign(unconverged=counts)


def _text(cell: pd.Series, plus_minus: str) -> str:
    """A cell as printed: ``71.1 ± 19.2*``; with one run of five lost, ``70.3 ± 2.8 (4/5)*``."""
    mark = marks_of(cell)
    wanted = cell.get("runs", cell["count"]) + cell.get("missing", 0)
    share = f" ({cell['count']}/{wanted})" if wanted > cell["count"] else ""
    if np.isnan(cell["mean"]):
        return f"–{share}{mark}" if wanted else "–"
    spread = "" if np.isnan(cell["std"]) else f" {plus_minus} {cell['std']:.1f}"
    return f"{cell['mean']:.1f}{spread}{share}{mark}"


def _as_printed(
    table: pd.DataFrame, styles: Mapping[str, SourceStyle] | None, plus_minus: str = "±"
) -> pd.DataFrame:
    cells = table.assign(text=table.apply(_text, axis=1, plus_minus=plus_minus))
    cells = cells.pivot(index="n", columns="source", values="text").fillna("")
    cells = cells[order_sources(cells.columns, styles)]
    return cells.rename(columns=lambda source: title_of(source, styles)).reset_index()


def as_markdown(
    table: pd.DataFrame,
    styles: Mapping[str, SourceStyle] | None = None,
    heading: str = "",
    published: pd.DataFrame | None = None,
) -> str:
    """The table in Markdown, and the meaning of its marks.

    Below each row are the same cells of a `published` Table 1, if one is given.
    """
    cells = _as_printed(table, styles)
    if published is not None:
        published = published.merge(table[["n", "source"]])
        beside = _as_printed(published, styles)
        rows = [cells.assign(row=cells["n"].astype(str)), beside.assign(row="published")]
        cells = pd.concat(rows).sort_values("n", kind="stable").fillna("")
        cells["n"] = cells.pop("row")
        table = pd.concat([table, published])
    note = (
        "Energy RMSE on the test set in meV/atom, mean ± sample standard deviation over the seeds."
    )
    if table["flagged"].any():
        note += f" {FLAG_NOTE}."
    if sign := unconverged_note(
        table["unconverged"].sum(), table.get("runs", table["count"]).sum()
    ):
        note += f" {sign}."
    if "runs" in table and (table["runs"] + table["missing"] > table["count"]).any():
        note += " (k/m): k of m runs have a finite result."
    body = markdown(cells, dict.fromkeys(cells, ">"))
    return (f"{heading}\n\n" if heading else "") + f"{body}\n{note}\n"


def as_latex(table: pd.DataFrame, styles: Mapping[str, SourceStyle] | None = None) -> str:
    """The table as a LaTeX ``tabular`` (rules of booktabs)."""
    cells = _as_printed(table, styles, r"$\pm$").replace(
        {"–": "--", "†": r"$^\\dagger$"}, regex=True
    )
    style = cells.rename(columns={"n": "$n$"}).style.hide(axis="index")
    style = style.format_index(escape="latex", axis="columns")
    text = style.to_latex(hrules=True, column_format="r" * cells.shape[1])
    # A title between dollar signs is no formula.
    return text.replace(r"\$n\$", "$n$", 1)


def compare(computed: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Every cell of either table, and the difference of the means.

    Returns
    -------
    pandas.DataFrame
        n, source; mean, std, count and flagged of each table with the prefixes ``computed_`` and
        ``published_``, empty where a table lacks the cell; ``difference`` (computed - published,
        meV/atom), ``ratio`` (computed / published) and ``z``, the difference in units of its
        standard error, from both sample standard deviations.
    """
    sides = ("computed", "published")
    key, names = list(TABLE_COLUMNS[:2]), TABLE_COLUMNS[2:]
    tables = (
        table.set_index(key)[list(names)].add_prefix(f"{side}_")
        for side, table in zip(sides, (computed, published), strict=True)
    )
    both = pd.concat(tables, axis="columns").reset_index()
    both["difference"] = (both["computed_mean"] - both["published_mean"]).round(9)
    both["ratio"] = both["computed_mean"] / both["published_mean"]
    variance = sum(both[f"{side}_std"] ** 2 / both[f"{side}_count"] for side in sides)
    both["z"] = both["difference"] / np.sqrt(variance.where(variance > 0))
    for side in sides:
        both[f"{side}_count"] = both[f"{side}_count"].astype("Int64")
        flags = both[f"{side}_flagged"].map({True: "true", False: "false"})
        both[f"{side}_flagged"] = flags.fillna("")
    order = [*key, "computed_mean", "published_mean", "difference", "ratio", "z"]
    order += [f"{side}_{name}" for name in names[1:] for side in sides]
    return sort_by_source(both, key)[order]


def compare_markdown(
    differences: pd.DataFrame, styles: Mapping[str, SourceStyle] | None = None
) -> str:
    """The differences in Markdown; cells of one table alone are only counted."""
    common = with_titles(differences.dropna(subset="difference"), styles)
    common.columns = common.columns.str.removesuffix("_mean")
    means = {"computed": ".1f", "published": ".1f", "difference": "+.1f"}
    formats = {"n": "", **means, "ratio": ".2f", "z": "+.1f"}
    text = markdown(common[["n", "source", *list(formats)[1:]]], formats)
    text += "\nMean energy RMSE in meV/atom; z is the difference in units of its standard error.\n"
    alone = differences[differences["difference"].isna()]
    here, there = (int(alone[f"{side}_mean"].notna().sum()) for side in ("computed", "published"))
    if here or there:
        text += f"{len(common)} cells in common, {here} only computed, {there} only published.\n"
    return text
