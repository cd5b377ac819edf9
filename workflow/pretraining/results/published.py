"""The published numbers, and what separates the computed ones from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from pretraining.results.table1 import TABLE_COLUMNS
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown_table, numbers, read_table, truths
from pretraining.study.titles import order_sources, title_of

# Size of the pre-training set behind every fine-tuned value of the published Table 1.
TABLE1_NPRE = 10_000
# Test set of the published learning curves.
TARGET = "C-GAP-17"
POINT_COLUMNS = ("source", "npre", "n", "metric", "value", "std", "count", "flagged")


def read_table1(path: str | Path) -> pd.DataFrame:
    """Read a table of cells in the columns of Table 1 (n, source, mean, std, count, flagged).

    Raises
    ------
    UserError
        Naming the file and the column.
    """
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
    return table[list(TABLE_COLUMNS)]


def table1_points(table: pd.DataFrame, npre: int = TABLE1_NPRE) -> pd.DataFrame:
    """The cells of a Table 1 as points of learning curves: mean energy errors with their spread."""
    points = table.rename(columns={"mean": "value"}).assign(metric="energy")
    points["npre"] = np.where(points["source"] == "none", 0, npre)
    return points[list(POINT_COLUMNS)]


def read_points(path: str | Path) -> pd.DataFrame:
    """Read single published values of learning curves.

    Parameters
    ----------
    path
        Columns source, npre, n, energy_rmse (meV/atom), force_rmse (eV/Å); an empty cell is a value
        that is not published.
    """
    table = read_table(
        path, ("source", "npre", "n", "energy_rmse", "force_rmse"), "published learning curves"
    )
    for column in ("npre", "n"):
        table[column] = numbers(table[column], path, whole=True)
    parts = []
    for metric in ("energy", "force"):
        values = numbers(table[f"{metric}_rmse"], path)
        part = table[["source", "npre", "n"]].assign(metric=metric, value=values, std=np.nan)
        parts.append(part.assign(count=1, flagged=False).dropna(subset="value"))
    return pd.concat(parts, ignore_index=True)[list(POINT_COLUMNS)]


def published_points(
    table1: str | Path | None, curves: str | Path | None = None
) -> pd.DataFrame | None:
    """All published points of learning curves, or None if no file is given."""
    parts = [table1_points(read_table1(table1))] if table1 else []
    parts += [read_points(curves)] if curves else []
    return pd.concat(parts, ignore_index=True) if parts else None


def compare(computed: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Every cell of either table, and by how much the computed mean differs.

    Returns
    -------
    pandas.DataFrame
        Columns n, source, computed_mean, published_mean, difference (computed - published,
        meV/atom), ratio (computed / published), z (the difference in units of its standard error,
        from both sample standard deviations; empty without them), computed_std, published_std,
        computed_count, published_count, computed_flagged, published_flagged. A cell that one table
        lacks is empty there.
    """
    names = ["mean", "std", "count", "flagged"]
    both = computed[list(TABLE_COLUMNS)].merge(
        published[list(TABLE_COLUMNS)],
        on=["n", "source"],
        how="outer",
        suffixes=("_computed", "_published"),
    )
    both = both.rename(
        columns={f"{n}_{side}": f"{side}_{n}" for n in names for side in ("computed", "published")}
    )
    both["difference"] = (both["computed_mean"] - both["published_mean"]).round(9)
    both["ratio"] = both["computed_mean"] / both["published_mean"]
    variance = sum(
        both[f"{side}_std"] ** 2 / both[f"{side}_count"] for side in ("computed", "published")
    )
    both["z"] = both["difference"] / np.sqrt(variance.where(variance > 0))
    rank = {source: i for i, source in enumerate(order_sources(both["source"].unique()))}
    both = both.assign(_rank=both["source"].map(rank)).sort_values(["n", "_rank"])
    for side in ("computed", "published"):
        both[f"{side}_count"] = both[f"{side}_count"].astype("Int64")
        flags = both[f"{side}_flagged"].map({True: "true", False: "false"})
        both[f"{side}_flagged"] = flags.fillna("")
    order = ["n", "source", "computed_mean", "published_mean", "difference", "ratio", "z"]
    order += [f"{s}_{n}" for n in ("std", "count", "flagged") for s in ("computed", "published")]
    return both[order].reset_index(drop=True)


def compare_markdown(differences: pd.DataFrame, styles=None) -> str:
    """The differences in Markdown; cells that only one side has are counted below the table."""
    common = differences.dropna(subset="difference")
    rows = [
        [
            str(row["n"]),
            title_of(row["source"], styles),
            f"{row['computed_mean']:.1f}",
            f"{row['published_mean']:.1f}",
            f"{row['difference']:+.1f}",
            f"{row['ratio']:.2f}",
            "" if np.isnan(row["z"]) else f"{row['z']:+.1f}",
        ]
        for _, row in common.iterrows()
    ]
    header = ["n", "source", "computed", "published", "difference", "ratio", "z"]
    text = markdown_table(header, rows)
    text += "\nMean energy RMSE in meV/atom; z is the difference in units of its standard error.\n"
    here = int((differences["computed_mean"].notna() & differences["difference"].isna()).sum())
    there = int((differences["published_mean"].notna() & differences["difference"].isna()).sum())
    if here or there:
        text += f"{len(common)} cells in common, {here} only computed, {there} only published.\n"
    return text
