"""The numbers behind the panels of a figure, as one table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pretraining.figures.composed import comparable, letters_of
from pretraining.figures.panels import Options, reference_values
from pretraining.results.published import TARGET
from pretraining.results.seed_statistics import curve_points
from pretraining.results.selection import Selected, nearest_size

COLUMNS = ("panel", "test_set", "transform", "kind", "source", "npre", "n", "metric", "aggregate")
COLUMNS = (*COLUMNS, "value", "std", "count", "flagged")


def panel_table(
    selections: Sequence[Selected],
    options: Options,
    figure: str = "curves",
    bars_at: int = 400,
    published: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Every point, line and bar that a figure shows.

    Parameters
    ----------
    selections
        As the figure has them.
    figure
        ``curves``, ``specialised`` or ``alchemical``; the latter two draw the first metric only,
        and the last one has bars at the number of structures nearest `bars_at`.
    published
        Points in the columns of :data:`pretraining.results.published.POINT_COLUMNS`.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS`. `kind` is that of the runs table, ``bar`` for the mean of a bar,
        or ``published``; `panel` is empty where panels have no letters.
    """
    selections = comparable(selections, options)
    metrics = list(options.metrics) if figure == "curves" else list(options.metrics[:1])
    letters = [""] * len(selections)
    if figure != "curves":
        letters = letters_of(selections, specialised=figure == "specialised")
    parts = [
        _panel(letter, selected, options, metric)
        for letter, selected in zip(letters, selections, strict=True)
        for metric in metrics
    ]
    if figure == "alchemical":
        n = nearest_size(selections, bars_at)
        letter = chr(ord(letters[-1]) + 2)
        for selected in selections:
            bars = curve_points(selected.runs[selected.runs["n"] == n], metrics[0], "mean")
            parts.append(_labelled(bars, letter, selected, "mean").assign(kind="bar"))
    if published is not None:
        where = {"panel": "", "transform": "none", "kind": "published", "test_set": TARGET}
        how = {True: "mean", False: "best"}
        parts.append(published.assign(**where, aggregate=published["std"].notna().map(how)))
    # Direct training is one bar, whatever the transforms.
    table = pd.concat([part for part in parts if len(part)], ignore_index=True)
    direct = (table["kind"] == "bar") & (table["source"] == "none")
    table.loc[direct, "transform"] = "none"
    return table.drop_duplicates()[list(COLUMNS)]


def _panel(letter: str, selected: Selected, options: Options, metric: str) -> pd.DataFrame:
    """The points and the lines of one panel."""
    points = curve_points(selected.runs, metric, options.aggregate)
    points["kind"] = ["direct" if source == "none" else "finetune" for source in points["source"]]
    lines = reference_values(selected, options, metric).assign(
        n=0, metric=metric, std=float("nan"), count=1, flagged=False
    )
    parts = [part for part in (points, lines) if len(part)]
    return _labelled(pd.concat(parts, ignore_index=True), letter, selected, options.aggregate)


def _labelled(rows: pd.DataFrame, letter: str, selected: Selected, how: str) -> pd.DataFrame:
    chosen = selected.chosen
    where = {"panel": letter, "test_set": chosen.target, "transform": chosen.transform or "none"}
    return rows.assign(**where, aggregate=how)
