"""Training time against the number of structures, and test error against training time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pretraining.figures.learning_curves import panels_of
from pretraining.figures.panels import (
    LABELS,
    SIZES_LABEL,
    Options,
    add_legend,
    comparable,
    handles_of,
    looks_of,
    published_handles,
)
from pretraining.figures.style import (
    HOLLOW,
    WHITE_EDGE,
    house_style,
    no_results,
    note_below,
    size_ticks,
    value_ticks,
)
from pretraining.results.selection import Selected
from pretraining.results.training_time import speed_ups, training_times
from pretraining.study.titles import SourceStyle


def training_time_figure(
    selections: Sequence[Selected],
    options: Options,
    styles: Mapping[str, SourceStyle] | None = None,
    published: pd.DataFrame | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """Draw both, a row for each transform; return the numbers as well.

    `published` has the columns of ``resources/published/timing.csv``, of one target, and is drawn
    with open symbols.
    """
    selections = comparable(selections, options)
    metric, compare = options.metrics[-1], options.compare
    looks, titles = looks_of([selected.runs for selected in selections], options, styles)
    drawn = []
    with house_style():
        figure, panels = panels_of(len(selections), 2)
        for (left, right), selected in zip(panels, selections, strict=True):
            transform = selected.chosen.transform or "none"
            shown = [training_times(selected.runs).assign(kind="computed")]
            if published is not None:
                rows = published[published["transform"].isin((transform, "none"))]
                for column in ("source", "npre", "n"):
                    rows = rows[rows[column].isin(selected.runs[column])]
                shown.append(rows.assign(kind="published"))
            drawn += [part.assign(panel=transform) for part in shown]
            for x, y, axes in (("n", "time_s", left), ("time_s", metric, right)):
                for part, edge in zip(shown, (WHITE_EDGE, HOLLOW), strict=False):
                    for key, look in looks.items():
                        curve = part[part[compare] == key].sort_values("n")
                        _draw(axes, curve, x, y, look | edge)
                _scale(axes, pd.concat(shown), x, y)
            left.set(xlabel=SIZES_LABEL, ylabel="training time (s)")
            right.set(xlabel="training time (s)", ylabel=LABELS[metric])
            if len(selections) > 1:
                left.set_title(transform, loc="left", pad=3)
        table = pd.concat(drawn, ignore_index=True)
        handles = handles_of(looks, titles)
        handles += published_handles(published)
        add_legend(figure, handles, options, "Label source")
        note_below(figure, _note(selections, table, options, titles))
    return figure, table


def _draw(axes: Axes, curve: pd.DataFrame, x: str, y: str, look: Mapping) -> None:
    """Draw a curve; bars from the fastest to the slowest seed, not of published points."""
    if "markerfacecolor" in look:
        axes.plot(curve[x], curve[y], **look | {"linestyle": "none", "markersize": 5})
        return
    bars = [curve["time_s"] - curve["fastest_s"], curve["slowest_s"] - curve["time_s"]]
    how = {"elinewidth": 0.6, "capsize": 1.4, **look}
    axes.errorbar(curve[x], curve[y], **{"yerr" if y == "time_s" else "xerr": bars}, **how)


def _scale(axes: Axes, rows: pd.DataFrame, x: str, y: str) -> None:
    rows = rows[rows[y] > 0]
    if rows.empty:
        no_results(axes)
        axes.set(xticks=[], yticks=[])
        return
    axes.set(xscale="log", yscale="log")
    for column, axis in ((x, axes.xaxis), (y, axes.yaxis)):
        ends = ["fastest_s", "slowest_s"] if column == "time_s" else [column]
        low, high = rows[ends].min().min(), rows[ends].max().max()
        margin = max((high / low) ** 0.06, 1.04)
        (axes.set_xlim if axis is axes.xaxis else axes.set_ylim)(low / margin, high * margin)
        if column == "n":
            size_ticks(axis, rows["n"])
        else:
            value_ticks(axis, low / margin, high * margin, 6)
    axes.grid(axis="y", which="major")


def _note(
    selections: Sequence[Selected], table: pd.DataFrame, options: Options, titles: Mapping
) -> str:
    """Describe times, and state how much faster fine-tuning is at the same n."""
    computed = table[table["kind"] == "computed"]
    devices = ", ".join(sorted(set(computed["device"]) - {""})) or "no device recorded"
    text = (
        f"{selections[0].chosen.target} test set · mean of the seeds, bars from the fastest to the "
    )
    text += f"slowest · {devices} · without the pre-training, and without runs that shared a GPU"
    last, parts = list(titles)[-1], []
    for (panel, kind), part in table.groupby(["panel", "kind"], sort=False):
        ratios = speed_ups(part)
        for row in ratios[ratios[options.compare] == last].to_dict("records"):
            place = [panel] if len(selections) > 1 else []
            place += ["published"] if kind == "published" else []
            text_of = "{speed_up:.2g} × ({speed_up_min:.2g}–{speed_up_max:.2g})".format(**row)
            parts.append(" ".join([*place, text_of]))
    if parts:
        named = titles[last].replace("\n", " ")
        text += f"\nspeed-up of {named} at the same n, mean over n: {', '.join(parts)}"
    return text
