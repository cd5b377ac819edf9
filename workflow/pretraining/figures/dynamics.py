"""Figures of dynamics: MD stability (as Fig. 4d) and generated structures against density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase import Atoms
from ase.io import read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.data.geometry import FOLDS, LAYERING
from pretraining.dynamics.stability.survival import read_counts, survival_curves
from pretraining.dynamics.summary import CLASSES as COORDINATIONS
from pretraining.dynamics.summary import ENERGY, within
from pretraining.figures.snapshots import CLASSES, draw_structure
from pretraining.figures.style import (
    COLUMN_WIDTH,
    CYCLE,
    MARKERS,
    TEXT_WIDTH,
    house_style,
    ink,
    shades,
)
from pretraining.runtime.errors import whole
from pretraining.runtime.records import check_output
from pretraining.study.generation import FIRST_FIVE_FOLD

BINS = 150  # points of a curve; each averages its stretch of time
NAMED = 6  # more anneal temperatures have a colour bar
COLOURS = {"finetune": CYCLE[:1] + CYCLE[3:], "pretrain": CYCLE[2:]}


def group_colours(table: pd.DataFrame) -> dict[str, str]:
    """A colour for each group of trajectories, by the kind of its models."""
    colours = {}
    for kind, part in table.groupby("kind", sort=False):
        own = COLOURS.get(kind) or (ink(),)
        for i, group in enumerate(part["group"].unique()):
            colours[group] = own[i % len(own)] if kind != "direct" or i == 0 else "0.5"
    return colours


def draw_survival(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the share of surviving trajectories against time, a step curve for each group.

    Small bars are trajectories that had survived up to their last frame.
    """
    colours = group_colours(table)
    end = max(table["planned_ps"].max(), table["time_ps"].max())
    curves = survival_curves(table)
    # Lifted: equal curves do not hide each other.
    for lift, (group, curve) in enumerate(curves.groupby("group", sort=False)):
        share = 100 * curve["survival"] + 0.8 * lift
        axes.step(curve["time_ps"], share, where="post", color=colours[group], clip_on=False)
        seen = curve["censored"] > 0
        look = {"color": colours[group], "linestyle": "none", "marker": "|", "markersize": 6}
        axes.plot(curve["time_ps"][seen], share[seen], clip_on=False, **look)
        status = table.loc[table["group"] == group, "status"]
        label = f"{group} ({(status == 'survived').sum()} of {len(status)} survive)"
        axes.plot([], [], color=colours[group], label=label)
    axes.set(xlim=(0, end), ylim=(0, 103), xlabel="time (ps)", ylabel="alive (%)")
    legend = axes.legend(loc="best", handlelength=1.5)
    legend.set_in_layout(False)  # inside: needs no margin


def binned(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Average columns and ``time_ps`` over the running trajectories, in bins of time."""
    rows = pd.concat(parts)
    end = rows["time_ps"].max()
    edges = np.linspace(0, end, BINS + 1)
    place = np.clip(np.digitize(rows["time_ps"], edges) - 1, 0, BINS - 1)
    return rows.groupby(place)[["time_ps", *columns]].mean().reset_index(drop=True)


def draw_coordination(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the shares of atoms by number of neighbours against time for one group.

    The lines are means over the trajectories still running; a cross marks a failure.
    """
    parts = []
    for folder in table["folder"]:
        counts = read_counts(folder)
        folds = counts[list(FOLDS)].to_numpy()
        percent = 100 * folds / folds.sum(axis=1, keepdims=True)
        shares = {title: percent[:, low : high + 1].sum(axis=1) for title, low, high, _ in CLASSES}
        parts.append(pd.DataFrame({"time_ps": counts["time_ps"], **shares}))
    titles = [title for title, *_ in CLASSES]
    mean = binned(parts, titles)
    last = table.loc[table["time_ps"].idxmax()]
    for title, _, _, colour in CLASSES:
        if not mean[title].any():
            continue
        axes.plot(mean["time_ps"], mean[title], color=colour, linewidth=1.1, clip_on=False)
    axes.set(ylim=(0, 100), xlabel="time (ps)", ylabel="atoms (%)")
    axes.set_xlim(0, last["time_ps"] * 1.02 if last["status"] == "failed" else last["planned_ps"])
    for time in table.loc[table["status"] == "failed", "time_ps"]:
        axes.plot([time], [100], marker="x", color="#E8000B", markersize=4.5, clip_on=False)


def draw_layering(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the layering (see :func:`.coordination.layering`) against time by group."""
    colours = group_colours(table)
    for group, part in table.groupby("group", sort=False):
        mean = binned([read_counts(folder) for folder in part["folder"]], [LAYERING])
        axes.plot(mean["time_ps"], mean[LAYERING], color=colours[group], linewidth=1.1)
    axes.set(xlabel="time (ps)", ylabel="layering", ylim=(0, None))
    axes.set_xlim(0, max(table["planned_ps"].max(), table["time_ps"].max()))


def shown(table: pd.DataFrame) -> pd.Series:
    """The trajectory with the median duration, the first of equals."""
    ordered = table.sort_values("time_ps", kind="stable")
    time = ordered["time_ps"].iloc[(len(ordered) - 1) // 2]
    return table[table["time_ps"] == time].iloc[0]


def snapshots(row: pd.Series, times: Sequence[float | str]) -> list[tuple[str, Atoms | None]]:
    """The structure of a trajectory at each time (ps, or `FIRST_FIVE_FOLD`) and its title.

    The first time after a failure shows the failed structure, the others nothing.
    """
    path = Path(row["folder"]) / "trajectory.extxyz"
    check_output(path, path.with_name("outcome.json"))
    with whole(path):
        frames = read(path, ":")
        moments = np.array([atoms.info["time"] for atoms in frames])
    pictures: list[tuple[str, Atoms | None]] = []
    over = False
    for time in times:
        note = ""
        if time == FIRST_FIVE_FOLD:
            time, note = row["first_five_fold_ps"], "five neighbours: "
            if np.isnan(time):
                pictures.append(("never five neighbours", None))
                continue
        past = time > row["time_ps"] + 1e-9
        if past and over:
            pictures.append(("", None))
            continue
        at = len(frames) - 1 if past else int(np.abs(moments - time).argmin())
        over = over or (row["status"] == "failed" and at == len(frames) - 1)
        title = f"{note}{moments[at]:g} ps, {frames[at].info['temperature']:,.0f} K"
        pictures.append((f"failed: {title}" if over else title, frames[at]))
    return pictures


def stability_figure(
    table: pd.DataFrame, title: str, radius: float, times: Sequence[float | str]
) -> Figure:
    """Draw snapshots of one trajectory per group, coordination, survival and layering.

    Parameters
    ----------
    table
        As :func:`pretraining.dynamics.stability.survival.summarise` returns it.
    radius
        Distance within which an atom is a neighbour, Å.
    times
        Times of the :func:`snapshots`; if empty, none are drawn.
    """
    groups = dict(list(table.groupby("group", sort=False)))
    n = len(groups)
    with house_style():
        side = min(1.5, TEXT_WIDTH / max(len(times), 1) - 0.1)
        heights = [n * (side + 0.12)] * bool(times) + [1.75, 1.65]
        figure = plt.figure(figsize=(TEXT_WIDTH, sum(heights) + 0.25))
        figure.suptitle(title, fontsize=8, fontweight="bold", x=0.01, ha="left")
        boxes = list(figure.subfigures(len(heights), 1, height_ratios=heights))
        if times:
            _snapshots(boxes.pop(0), groups, radius, times)
        middle, bottom = boxes
        panels = middle.subplots(1, n, squeeze=False, sharey=True)[0]
        for axes, (group, part) in zip(panels, groups.items(), strict=True):
            draw_coordination(axes, part)
            axes.set_title(group, loc="left")
            axes.grid(axis="y")
            axes.label_outer()
        look = {"marker": "o", "markersize": 4, "linewidth": 1.1}
        drawn = {x.get_color() for axes in panels for x in axes.lines if x.get_marker() != "x"}
        present = [(name, colour) for name, _, _, colour in CLASSES if colour in drawn]
        key = [Line2D([], [], color=colour, label=name, **look) for name, colour in present]
        middle.legend(handles=key, title="neighbours", loc="outside right center")
        left, right = bottom.subplots(1, 2)
        draw_survival(left, table)
        draw_layering(right, table)
        for axes in (left, right):
            axes.grid(axis="y")
    return figure


def _snapshots(
    box: Figure,
    groups: Mapping[str, pd.DataFrame],
    radius: float | None,
    times: Sequence[float | str],
) -> None:
    panels = box.subplots(len(groups), len(times), squeeze=False)
    for row, (group, part) in zip(panels, groups.items(), strict=True):
        for axes, (title, atoms) in zip(row, snapshots(shown(part), times), strict=True):
            if atoms is None:
                axes.set_axis_off()
            else:
                draw_structure(axes, atoms, radius)
            colour = "#E8000B" if title.startswith("failed") else "black"
            axes.set_title(title, fontsize=6.5, color=colour, pad=2)
        place = {"ha": "right", "va": "center", "multialignment": "center"}
        name = group.replace(", ", "\n")
        row[0].text(-0.06, 0.5, name, transform=row[0].transAxes, rotation=90, **place)


def structures_figure(table: pd.DataFrame) -> Figure:
    """Draw energy and coordination against density."""
    with house_style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(TEXT_WIDTH, 0.75 * COLUMN_WIDTH))
        _energies(figure, left, table)
        _coordination(right, table)
        for axes in (left, right):
            axes.set_xlabel("density (g/cm³)")
            axes.grid(axis="y")
    return figure


def _energies(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    axes.set_ylabel("energy (eV/atom)")
    x, y = table["density"], table[ENERGY]
    anneals = sorted(table["anneal_T"].dropna().unique())
    colours = shades(anneals)
    if not anneals:
        axes.plot(x, y, "o", color=CYCLE[0])
    elif len(anneals) <= NAMED:
        for kelvin, part in table.groupby("anneal_T"):
            look = {"color": colours[kelvin], "label": f"{kelvin:,.0f} K"}
            axes.plot(part["density"], part[ENERGY], "o", alpha=0.9, **look)
        axes.legend(title="annealed at", handletextpad=0.2)
    else:
        points = axes.scatter(x, y, c=table["anneal_T"], cmap="plasma_r", s=6, linewidths=0)
        bar = figure.colorbar(points, ax=axes, pad=0.02)
        bar.set_label("anneal temperature (K)")
        bar.outline.set_linewidth(0.7)


def _coordination(axes: Axes, table: pd.DataFrame) -> None:
    """Mean and standard deviation over the trajectories of a density."""
    groups = 100 * table.set_index("density")[list(COORDINATIONS)]
    mean, spread = (getattr(groups.groupby("density"), name)() for name in ("mean", "std"))
    handles = []
    present = [name for name in COORDINATIONS if groups[name].any()]
    for name, colour, marker in zip(present, cycle(CYCLE), cycle(MARKERS), strict=False):
        look = {"color": colour, "marker": marker}
        # Bars end at 0 and 100 %.
        bars = [np.minimum(spread[name].fillna(0), room) for room in (mean[name], 100 - mean[name])]
        axes.errorbar(mean.index, mean[name], bars, elinewidth=0.7, clip_on=False, **look)
        handles.append(Line2D([], [], label=name, **look))
    axes.set(ylabel="atoms (%)", ylim=(0, 100))
    title = f"neighbours\n{within(table['radius'].iloc[0])}"
    axes.legend(handles=handles, title=title, loc="center left", bbox_to_anchor=(1.0, 0.5))
