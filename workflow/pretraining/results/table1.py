"""Table 1: energy errors by label source and number of DFT-labelled structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pretraining.results.runs_table import RMSE
from pretraining.results.selection import Selected
from pretraining.runtime.tables import markdown_table
from pretraining.study.titles import SourceStyle, order_sources, title_of

TABLE_COLUMNS = ("n", "source", "mean", "std", "count", "flagged")
FLAG_ABOVE = 1.25


@dataclass(frozen=True)
class Cell:
    """Statistics of the runs that differ only by their seed.

    Attributes
    ----------
    mean, std, best
        Mean, sample standard deviation (n - 1; NaN for a single run) and minimum of the finite
        values.
    count
        Finite values.
    runs
        Runs that have finished, finite or not.
    missing
        Runs that are wanted and have not finished.
    diverged
        Runs without finite value, or marked as diverged by the trainer.
    flagged
        Whether a run exceeds :data:`FLAG_ABOVE` times the median, or diverged.
    """

    mean: float
    std: float
    best: float
    count: int
    runs: int
    missing: int
    diverged: int
    flagged: bool


def cell_of(rows: pd.DataFrame, column: str = RMSE["energy"]) -> Cell:
    """Statistics of one cell over its seeds.

    A run that diverged but left a finite error stays in the mean, as in the published table; one
    without a finite error is only counted.
    """
    done = rows[rows["status"] != "missing"]
    values = done[column].to_numpy(dtype=float)
    lost = ~np.isfinite(values) | done["diverged"].to_numpy(dtype=bool)
    finite = np.sort(values[np.isfinite(values)])
    high = len(finite) > 0 and finite[-1] > FLAG_ABOVE * np.median(finite)
    return Cell(
        mean=float(finite.mean()) if len(finite) else np.nan,
        std=float(finite.std(ddof=1)) if len(finite) > 1 else np.nan,
        best=float(finite[0]) if len(finite) else np.nan,
        count=len(finite),
        runs=len(done),
        missing=len(rows) - len(done),
        diverged=int(lost.sum()),
        flagged=bool(high or lost.any()),
    )


def table1(selected: Selected, column: str = RMSE["energy"]) -> pd.DataFrame:
    """Mean and sample standard deviation of each cell.

    Returns
    -------
    pandas.DataFrame
        Columns n, source, mean, std (meV/atom), count (of finite values), flagged, and runs and
        missing, ordered by n and, direct training first, by source.
    """
    rows = []
    for (n, source), runs in selected.runs.groupby(["n", "source"]):
        cell = cell_of(runs, column)
        rows.append(
            {"n": n, "source": source}
            | {name: getattr(cell, name) for name in (*TABLE_COLUMNS[2:], "runs", "missing")}
        )
    table = pd.DataFrame(rows)
    rank = {source: i for i, source in enumerate(order_sources(table["source"].unique()))}
    table["_rank"] = table["source"].map(rank)
    return table.sort_values(["n", "_rank"]).drop(columns="_rank").reset_index(drop=True)


def _text(cell: pd.Series | None, plus_minus: str) -> str:
    """One cell as printed: ``71.1 ± 19.2*`` or, one run of five lost, ``70.3 ± 2.8 (4/5)*``."""
    if cell is None:
        return ""
    mark = "*" if cell["flagged"] else ""
    wanted = cell.get("runs", cell["count"]) + cell.get("missing", 0)
    share = f" ({cell['count']}/{wanted})" if wanted > cell["count"] else ""
    if np.isnan(cell["mean"]):
        return f"–{share}{mark}" if wanted else "–"
    spread = "" if np.isnan(cell["std"]) else f" {plus_minus} {cell['std']:.1f}"
    return f"{cell['mean']:.1f}{spread}{share}{mark}"


def _grid_of_cells(table: pd.DataFrame, sources: Sequence[str], plus_minus: str):
    cells = {(row["n"], row["source"]): row for _, row in table.iterrows()}
    for n in sorted(table["n"].unique()):
        yield [str(n), *(_text(cells.get((n, source)), plus_minus) for source in sources)]


def legend(table: pd.DataFrame) -> str:
    """What the marks of a rendered table mean, in one sentence or two."""
    text = (
        "Energy RMSE on the test set in meV/atom, mean ± sample standard deviation over the seeds."
    )
    if table["flagged"].any():
        text += f" * a run diverged or is above {FLAG_ABOVE} × the median of its cell."
    if "runs" in table and (table["runs"] + table["missing"] > table["count"]).any():
        text += " (k/m): k of m runs have a finite result."
    return text


def as_markdown(
    table: pd.DataFrame, styles: Mapping[str, SourceStyle] | None = None, heading: str = ""
) -> str:
    """The table in Markdown, a column a label source."""
    sources = order_sources(table["source"].unique(), styles)
    body = markdown_table(
        ["n", *(title_of(source, styles) for source in sources)],
        _grid_of_cells(table, sources, "±"),
    )
    return (f"{heading}\n\n" if heading else "") + f"{body}\n{legend(table)}\n"


def as_latex(table: pd.DataFrame, styles: Mapping[str, SourceStyle] | None = None) -> str:
    """The table as a LaTeX ``tabular`` (rules of booktabs)."""
    sources = order_sources(table["source"].unique(), styles)
    escape = str.maketrans({c: f"\\{c}" for c in "_&%#$"})
    titles = ["$n$", *(title_of(source, styles).translate(escape) for source in sources)]
    lines = [f"\\begin{{tabular}}{{{'r' * len(titles)}}}", "\\toprule"]
    lines += [" & ".join(titles) + r" \\", "\\midrule"]
    for row in _grid_of_cells(table, sources, r"$\pm$"):
        lines.append(" & ".join(cell.replace("–", "--") for cell in row) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"
