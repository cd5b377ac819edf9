"""Learning curves: test errors against the number of DFT-labelled structures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pretraining.figures.panels import (
    Extent,
    Options,
    add_legend,
    add_note,
    comparable,
    draw_panel,
    handles_of,
    letters_of,
    looks_of,
    published_handles,
    reference_handles,
    reference_values,
)
from pretraining.figures.style import (
    COLUMN_WIDTH,
    TEXT_WIDTH,
    house_style,
    note_below,
)
from pretraining.results.seed_statistics import FLAG_NOTE, curve_points
from pretraining.results.selection import Selected, nearest_size
from pretraining.runtime.errors import UserError
from pretraining.study.queries import PUBLISHED_TARGET
from pretraining.study.titles import SourceStyle

PANEL_HEIGHT = 2.4
COLUMNS = ("panel", "test_set", "transform", "kind", "source", "npre", "n", "metric", "aggregate")
COLUMNS = (*COLUMNS, "value", "std", "count", "flagged", "unconverged")


def learning_curves(
    selections: Sequence[Selected],
    options: Options,
    styles: Mapping[str, SourceStyle] | None = None,
    published: pd.DataFrame | None = None,
) -> Figure:
    """Draw learning curves on logarithmic axes.

    Raises a `UserError` if there is nothing to draw.

    Parameters
    ----------
    selections
        One comparison per transform; without any, only the published points are drawn.
    published
        Points of :func:`.published.published_points`, drawn with open symbols.
    """
    if not selections and published is None:
        raise UserError("nothing to draw: give runs, published values or both")
    selections = comparable(selections, options)
    metrics = [m for m in options.metrics if selections or (published["metric"] == m).any()]
    frames = [selected.runs for selected in selections]
    frames += [] if published is None else [published]
    looks, titles = looks_of(frames, options, styles)
    with house_style():
        figure, panels = panels_of(max(len(selections), 1), len(metrics))
        for column, metric in enumerate(metrics):
            extent = Extent()
            for axes, selected in zip(panels[:, column], selections or [None], strict=True):
                draw_panel(axes, selected, options, metric, looks, extent, published)
                if len(selections) > 1:
                    axes.set_title(selected.chosen.transform, loc="left", pad=3)
            for axes in panels[:, column]:
                extent.apply(axes)
        handles = handles_of(looks, titles, hollow=not selections)
        handles += reference_handles(options, selections)
        if selections:
            handles += published_handles(published)
        add_legend(figure, handles, options, "Label source")
        if selections:
            add_note(figure, selections, options)
        else:
            flags = f"\n{FLAG_NOTE}" if published["flagged"].any() else ""
            direct = published["source"] == "none"
            kinds = {"direct": published[direct], "fine-tuned": published[~direct]}
            shown = [f"{kind}: {', '.join(set(p['aggregate']))}" for kind, p in kinds.items()]
            note_below(figure, " · ".join(["published values only", *shown]) + flags)
    return figure


def panels_of(transforms: int, metrics: int) -> tuple[Figure, np.ndarray]:
    """Axes, a row per transform and a column per metric; a single metric's lie in a row."""
    flat = metrics == 1
    shape = (1, transforms) if flat else (transforms, metrics)
    width = TEXT_WIDTH if max(shape) > 1 else 1.35 * COLUMN_WIDTH
    figure, panels = plt.subplots(
        *shape, figsize=(width, PANEL_HEIGHT * shape[0] + 0.35), squeeze=False
    )
    return figure, panels.T if flat else panels


def panel_table(
    selections: Sequence[Selected],
    options: Options,
    figure: str = "curves",
    bars_at: int = 400,
    published: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The numbers of all points, lines and bars of a figure.

    Parameters
    ----------
    figure
        ``curves``, ``specialised`` or ``alchemical``, which has bars at the number of structures
        nearest `bars_at`.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS`. `kind` is that of the runs table, ``bar`` for the mean of a bar,
        or ``published``; `panel` is empty for panels without letters.
    """
    selections = comparable(selections, options)
    letters = letters_of(selections, figure)
    parts, bars = [], []
    for letter, selected in zip(letters, selections, strict=True):
        where = {"panel": letter, "test_set": selected.chosen.target}
        where["transform"] = selected.chosen.transform or "none"
        for metric in options.metrics:
            points = curve_points(selected.runs, metric, options.aggregate)
            kind = np.where(points["source"] == "none", "direct", "finetune")
            lines = reference_values(selected, options, metric)
            lines = lines.assign(n=0, metric=metric, std=np.nan, count=1, flagged=False)
            lines["kind"] = lines["kind"].where(~lines["published"], "published")
            lines["unconverged"] = 0
            for part in (points.assign(kind=kind), lines):
                parts.append(part.assign(**where, aggregate=options.aggregate))
        if figure == "alchemical":
            where["panel"] = chr(ord(letters[-1]) + 2)
            at = selected.runs["n"] == nearest_size(selections, bars_at)
            points = curve_points(selected.runs[at], options.metrics[0], "mean")
            bars.append(points.assign(**where, kind="bar", aggregate="mean"))
    if published is not None:
        target = selections[0].chosen.target if selections else PUBLISHED_TARGET
        where = {"panel": "", "kind": "published", "test_set": target}
        parts.append(published[published["metric"].isin(options.metrics)].assign(**where))
    table = pd.concat([part for part in (*parts, *bars) if len(part)], ignore_index=True)
    # Direct training is one bar, whatever the transforms.
    table.loc[(table["kind"] == "bar") & (table["source"] == "none"), "transform"] = "none"
    return table.drop_duplicates()[list(COLUMNS)]
