"""Figures of MD stability: survival, coordination, layering and snapshots (as Fig. 4d)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from pretraining.figures.snapshots import CLASSES, draw_structure
from pretraining.figures.style import CYCLE, DIRECT_COLOUR, TEXT_WIDTH, house_style
from pretraining.runtime.errors import whole

BINS = 150  # points of a curve; each averages its stretch of time
COLOURS = {"direct": (DIRECT_COLOUR,), "finetune": CYCLE[:1] + CYCLE[3:], "pretrain": CYCLE[2:]}


def group_colours(table: pd.DataFrame) -> dict[str, str]:
    """A colour for each group of trajectories, by the kind of its models."""
    colours = {}
    for kind, part in table.groupby("kind", sort=False):
        own = COLOURS[kind]
        for i, group in enumerate(part["group"].unique()):
            colours[group] = own[i % len(own)] if kind != "direct" or i == 0 else "0.5"
    return colours


def draw_survival(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the share of surviving trajectories against time, a step curve for each group.

    Parameters
    ----------
    table
        As :func:`.survival.summarise` returns it. Small bars are trajectories that had survived
        up to their last frame.
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
        count = int((table["group"] == group).sum())
        alive = int(((table["group"] == group) & (table["status"] == "survived")).sum())
        axes.plot([], [], color=colours[group], label=f"{group} ({alive} of {count} survive)")
    axes.set(xlim=(0, end), ylim=(0, 103), xlabel="time (ps)", ylabel="alive (%)")
    legend = axes.legend(loc="best", handlelength=1.5)
    legend.set_in_layout(False)  # inside: needs no margin


def binned(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Average columns over the trajectories still running at a time, in bins of time.

    Returns
    -------
    pandas.DataFrame
        ``time_ps`` (mean of the bin) and the columns; empty bins are left out.
    """
    rows = pd.concat(parts)
    end = rows["time_ps"].max()
    edges = np.linspace(0, end, BINS + 1)
    place = np.clip(np.digitize(rows["time_ps"], edges) - 1, 0, BINS - 1)
    return rows.groupby(place)[["time_ps", *columns]].mean().reset_index(drop=True)


def draw_coordination(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the shares of atoms by number of neighbours against time for one group.

    Parameters
    ----------
    table
        Rows of :func:`.survival.summarise`. The lines are means over the trajectories still
        running at a time; a cross marks a failure.
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
    """The trajectory of a group with the median duration, the first of equals."""
    ordered = table.sort_values("time_ps", kind="stable")
    time = ordered["time_ps"].iloc[(len(ordered) - 1) // 2]
    return table[table["time_ps"] == time].iloc[0]


def snapshots(row: pd.Series, times: Sequence[float]) -> list[tuple[str, Atoms | None]]:
    """Return the structure of a trajectory at each time with what is written above it.

    The first time after a failure shows the failed structure, the others nothing.
    """
    path = Path(row["folder"]) / "trajectory.extxyz"
    with whole(path):
        frames = read(path, ":")
        moments = np.array([atoms.info["time"] for atoms in frames])
    pictures: list[tuple[str, Atoms | None]] = []
    over = False
    for time in times:
        if time <= row["time_ps"] + 1e-9:
            at = int(np.abs(moments - time).argmin())
        elif over:
            pictures.append(("", None))
            continue
        else:
            at = len(frames) - 1
        over = over or (row["status"] == "failed" and at == len(frames) - 1)
        title = f"{moments[at]:g} ps, {frames[at].info['temperature']:,.0f} K"
        pictures.append((f"failed: {title}" if over else title, frames[at]))
    return pictures


def stability_figure(
    table: pd.DataFrame, title: str, radius: float, times: Sequence[float]
) -> Figure:
    """Draw snapshots of one trajectory per group, coordination, survival and layering.

    Parameters
    ----------
    table
        As :func:`pretraining.dynamics.stability.survival.summarise` returns it.
    title
        Of the test.
    radius
        Distance within which an atom is a neighbour, Å.
    times
        Of the snapshots, ps; if empty, none are drawn.
    """
    groups = {group: part for group, part in table.groupby("group", sort=False)}
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
        middle.legend(handles=_key(), title="neighbours", loc="outside right center")
        left, right = bottom.subplots(1, 2)
        draw_survival(left, table)
        draw_layering(right, table)
        for axes in (left, right):
            axes.grid(axis="y")
    return figure


def _snapshots(
    box: Figure, groups: Mapping[str, pd.DataFrame], radius: float, times: Sequence[float]
) -> None:
    """A row of snapshots per group."""
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


def _key() -> list[Line2D]:
    """The legend of the classes of neighbours."""
    look = {"marker": "o", "markersize": 4, "linewidth": 1.1}
    return [Line2D([], [], color=colour, label=title, **look) for title, _, _, colour in CLASSES]
