"""Label sources against models: errors of each source and of the models trained on its labels."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.figures.panels import LABELS
from pretraining.figures.style import (
    GREY,
    HOLLOW,
    TEXT_WIDTH,
    house_style,
    no_results,
    note_below,
    source_looks,
    value_ticks,
)
from pretraining.results.runs_table import FREE, RMSE
from pretraining.results.seed_statistics import cell_of
from pretraining.results.selection import Selection, nearest_size, select
from pretraining.runtime.errors import UserError
from pretraining.study.titles import SourceStyle, Titles, printed, title_of

COLUMNS = ("target", "structures", "source", "npre", "n", "metric", "aggregate")
COLUMNS = (*COLUMNS, "source_error", "pretrained", "finetuned")


def source_vs_model(runs: pd.DataFrame, aggregate: str = "best", at: int = 400) -> pd.DataFrame:
    """The errors of each label source, of its pre-trained model, and of the fine-tuned one.

    A source has its own zero of energy, and so has a model trained only on its labels: their energy
    errors are those after a median shift. A fine-tuned model has the target's zero.

    `at` is the number of structures of the fine-tuning; the nearest with runs is taken. Raises a
    `UserError` if no label source was tested.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS`, for every target that a source was tested on, at the pre-training
        size that most sources share.
    """
    tested = runs[runs["kind"] == "source"]
    tuned = runs[(runs["kind"] == "finetune") & (runs["transform"] == "none")]
    rows = []
    for target in sorted(set(tested["target"]) & set(tuned["target"])):
        selected = select(runs, Selection(target=target, transform="none"))
        n = nearest_size([selected], at)
        fine = selected.runs[(selected.runs["kind"] == "finetune") & (selected.runs["n"] == n)]
        chosen = {"structures": selected.chosen.structures, "npre": selected.chosen.npre}
        for source in dict.fromkeys(fine["source"]):
            for metric in RMSE:
                row = {"target": target, **chosen, "source": source, "n": n, "metric": metric}
                for name, frame, column in (
                    ("source_error", selected.sources, FREE[metric]),
                    ("pretrained", selected.untuned, FREE[metric]),
                    ("finetuned", fine, RMSE[metric]),
                ):
                    cell = cell_of(frame[frame["source"] == source], column)
                    row[name] = getattr(cell, aggregate)
                rows.append({**row, "aggregate": aggregate})
    table = pd.DataFrame(rows, columns=list(COLUMNS)).dropna(subset="source_error")
    if table.empty:
        raise UserError("no label source was tested on a target: nothing to compare models with")
    return table.reset_index(drop=True)


def source_vs_model_figure(
    table: pd.DataFrame,
    styles: Mapping[str, SourceStyle] | None = None,
    titles: Titles | None = None,
) -> Figure:
    """Draw the table of :func:`source_vs_model`, a row of panels per target."""
    looks = source_looks(table["source"].unique(), styles)
    targets = list(dict.fromkeys(table["target"]))
    with house_style():
        size = (TEXT_WIDTH, 2.7 * len(targets) + 0.35)
        figure, grid = plt.subplots(len(targets), 2, figsize=size, squeeze=False)
        for row, target in zip(grid, targets, strict=True):
            for axes, metric in zip(row, RMSE, strict=True):
                part = table[(table["target"] == target) & (table["metric"] == metric)]
                _panel(axes, part, looks)
                axes.set(xlabel=f"label source's {LABELS[metric]}", ylabel=LABELS[metric])
            row[0].set_title(f"tested on {printed(titles, 'datasets', target)}", loc="left", pad=3)
            first = part.iloc[0]
            sizes = f"{first['npre']:,} synthetic, {first['n']:,} DFT structures"
            row[1].set_title(sizes, loc="left", pad=3)
        handles = [
            Line2D([], [], label=title_of(source, styles), **look | {"linestyle": "none"})
            for source, look in looks.items()
            if source != "none"
        ]
        symbol = {"marker": "o", "color": GREY, "markersize": 5, "linestyle": "none"}
        handles.append(Line2D([], [], label="pre-trained,\nnot tuned", **symbol, **HOLLOW))
        handles.append(Line2D([], [], label="fine-tuned", **symbol))
        figure.legend(handles=handles, loc="outside right center", labelspacing=0.55)
        note_below(
            figure,
            f"{table['aggregate'].iloc[0]} of the seeds · below the line the model is better than "
            "its label source · energies of sources and of untuned models after a median shift",
        )
    return figure


def _panel(axes: Axes, part: pd.DataFrame, looks: Mapping[str, Mapping]) -> None:
    """One target and metric; a line joins the errors before and after fine-tuning."""
    values = part[["source_error", "pretrained", "finetuned"]].to_numpy(dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        no_results(axes)
        return
    low, high = values.min(), values.max()
    margin = max((high / low) ** 0.1, 1.15)
    low, high = low / margin, high * margin
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        value_ticks(axis, low, high)
    axes.plot([low, high], [low, high], color="0.6", linewidth=0.6, zorder=1)
    for row in part.to_dict("records"):
        look = {key: looks[row["source"]][key] for key in ("color", "marker")}
        x = row["source_error"]
        axes.plot([x, x], [row["pretrained"], row["finetuned"]], color=look["color"], linewidth=0.7)
        symbol = {**look, "linestyle": "none", "markersize": 5, "zorder": 3}
        axes.plot(x, row["pretrained"], **symbol, **HOLLOW | {"markerfacecolor": "white"})
        axes.plot(x, row["finetuned"], **symbol)
