"""Parity plots: a model against labels, label sources against a reference and each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from pretraining.figures.style import TEXT_WIDTH, house_style, source_looks
from pretraining.labels.compare import (
    ENERGY,
    FORCE,
    OWN,
    Labels,
    both,
    compare,
    median_shift,
    name_of,
)
from pretraining.study.titles import SourceStyle
from pretraining.training.predictions import Predictions

GREY = "#555555"
MOST_COLUMNS = 4


def parity_figure(
    predictions: Predictions, title: str, colour: str = "#0072B2", *, shifted: bool = False
) -> Figure:
    """Draw the predicted energies and force components of a model against the labels.

    Parameters
    ----------
    title
        Names the model and the test set; lines are separated by ``; ``.
    shifted
        Subtract the median difference of the energy per atom: model and labels may have different
        zeros of energy.
    """
    labels, energies = predictions.per_atom
    shift = predictions.median_shift if shifted else 0.0
    energies = energies - shift
    low, high = np.nanmin(labels), np.nanmax(labels)
    margin = 0.05 * (high - low) + 1e-3
    largest = 1.02 * np.abs(predictions.forces).max()
    with house_style():
        size = (TEXT_WIDTH, 0.5 * TEXT_WIDTH + 0.35)
        figure, (left, right) = plt.subplots(1, 2, figsize=size)
        energy_panel(left, labels, energies, (low - margin, high + margin), colour)
        forces = (predictions.forces.ravel(), predictions.predicted_forces.ravel())
        force_panel(right, *forces, largest, colour, gridsize=80)
        lines = [f"RMSE {1000 * predictions.energy_rmse(shift):.1f} meV/atom"]
        if shift:
            lines.append(f"after a shift of {-1000 * shift:+.0f} meV/atom".replace("-", "−"))
        note(left, "\n".join([*lines, f"{len(predictions.index):,} structures"]))
        count = f"{predictions.forces.size:,} components"
        note(right, f"RMSE {predictions.force_rmse():.3f} eV/Å\n{count}")
        left.set(xlabel="label (eV/atom)", ylabel="prediction (eV/atom)")
        if shifted:
            left.set_ylabel("prediction, shifted (eV/atom)")
        right.set(xlabel="label (eV/Å)", ylabel="prediction (eV/Å)")
        figure.suptitle(title.replace("; ", "\n"), fontsize=8, x=0.02, ha="left")
    return figure


def energy_panel(
    axes: Axes, x: np.ndarray, y: np.ndarray, limits: tuple[float, float], colour: str
) -> None:
    """Draw a point per structure; those outside the limits are drawn at the edge and counted.

    Parameters
    ----------
    x, y
        Energies per atom, eV, of shape (n,).
    limits
        Of both axes, eV.
    """
    inside = (np.clip(x, *limits) == x) & (np.clip(y, *limits) == y)
    dots = {"s": 5, "color": colour, "linewidths": 0, "alpha": 0.45, "rasterized": True}
    axes.plot(limits, limits, color="0.6", linewidth=0.6, zorder=0)
    axes.scatter(x[inside], y[inside], **dots)
    edge = {**dots, "s": 9, "marker": "^", "clip_on": False}
    axes.scatter(np.clip(x[~inside], *limits), np.clip(y[~inside], *limits), **edge)
    _finish(axes, limits, int((~inside).sum()))


def force_panel(
    axes: Axes, x: np.ndarray, y: np.ndarray, largest: float, colour: str, gridsize: int = 45
) -> None:
    """Draw the density of force components on a logarithmic scale, and count those outside.

    Parameters
    ----------
    x, y
        Components, eV/Å, of shape (m,).
    largest
        End of both axes, eV/Å.
    """
    inside = (np.abs(x) <= largest) & (np.abs(y) <= largest)
    ramp = LinearSegmentedColormap.from_list("density", ["#EDEDED", colour, "#101010"])
    axes.plot([-largest, largest], [-largest, largest], color="0.6", linewidth=0.6, zorder=3)
    axes.hexbin(
        x[inside],
        y[inside],
        gridsize=gridsize,
        extent=(-largest, largest, -largest, largest),
        bins="log",
        mincnt=1,
        cmap=ramp,
        linewidths=0.1,
        rasterized=True,
    )
    _finish(axes, (-largest, largest), int((~inside).sum()))


def _finish(axes: Axes, limits: tuple[float, float], outside: int) -> None:
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    if limits[0] == -limits[1]:
        round_numbers = (n * 10.0**k for k in range(-4, 5) for n in (1, 2, 5))
        step = max(number for number in round_numbers if number < limits[1] / 1.25)
        axes.set(xticks=[-step, 0, step], yticks=[-step, 0, step])
    else:
        axes.locator_params(nbins=4, steps=[1, 2, 5, 10])
    if outside:
        text = f"{outside:,} beyond"
        axes.text(0.97, 0.03, text, transform=axes.transAxes, ha="right", fontsize=5.5, color=GREY)


def note(axes: Axes, text: str) -> None:
    """Write into the upper left corner of a panel."""
    axes.text(
        0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=6.7, zorder=5,
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8},
    )  # fmt: skip


def source_parity(
    labels: Mapping[str, Labels], reference: str, styles: Mapping[str, SourceStyle] | None = None
) -> Figure:
    """Draw each source against the reference: energies above, forces below.

    `labels` are by name, the reference first.
    """
    sources = [name for name in labels if name != reference]
    colours = _colours(sources, styles)
    blocks = -(-len(sources) // MOST_COLUMNS)
    columns = -(-len(sources) // blocks)
    side = TEXT_WIDTH / max(columns, 3)
    errors = compare(labels).set_index(["first", "second"])
    own = labels[reference]
    shifted = [_shifted(own, labels[source]) for source in sources]
    energies = _typical_range([own.energy, *(energy for _, energy in shifted)])
    largest = max(np.abs(forces).max() for forces in own.forces if forces is not None)
    who = "labels" if reference == OWN else name_of(reference, styles)
    with house_style():
        figure, grid = plt.subplots(
            2 * blocks, columns, figsize=(side * columns, 2 * side * blocks), squeeze=False
        )
        # Pairs of panels, one above the other, row by row.
        pairs = [pair for block in range(blocks) for pair in grid[2 * block : 2 * block + 2].T]
        for axes in np.ravel(pairs[len(sources) :]):
            axes.remove()
        for number, (source, (above, below)) in enumerate(zip(sources, pairs, strict=False)):
            column = number % columns
            row = errors.loc[(reference, source)]
            energy_panel(above, *shifted[number], energies, colours[source])
            _force_panel(below, own, labels[source], 1.02 * largest, colours[source])
            above.set_title(name_of(source, styles), pad=3, color=colours[source])
            note(above, f"{row[ENERGY]:.0f} meV/atom")
            note(below, f"{row[FORCE]:.2f} eV/Å")
            above.set_xlabel(f"{who} (eV/atom)")
            below.set_xlabel(f"{who} (eV/Å)")
            for axes, label in ((above, "energy, shifted (eV/atom)"), (below, "force (eV/Å)")):
                axes.tick_params(labelleft=column == 0)
                axes.set_ylabel(label if column == 0 else "")
    return figure


def source_matrix(
    labels: Mapping[str, Labels], styles: Mapping[str, SourceStyle] | None = None
) -> Figure:
    """Draw each pair: energies above the diagonal, forces below.

    Energies are relative to the median of the source on the horizontal axis.
    """
    names = list(labels)
    colours = _colours(names, styles)
    errors = compare(labels).set_index(["first", "second"])
    energies = _typical_range([part.energy - np.nanmedian(part.energy) for part in labels.values()])
    largest = _typical_force(labels)
    k = len(names)
    with house_style():
        figure, grid = plt.subplots(k, k, figsize=(TEXT_WIDTH, TEXT_WIDTH), squeeze=False)
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
        for i, j in np.ndindex(k, k):
            axes, x, y = grid[i, j], labels[names[j]], labels[names[i]]
            if i == j:
                axes.set_axis_off()
                axes.text(
                    0.5, 0.5, name_of(names[i], styles).replace(" ", "\n"), ha="center",
                    va="center", transform=axes.transAxes, fontsize=7.5, fontweight="bold",
                    color=colours[names[i]],
                )  # fmt: skip
                continue
            row = errors.loc[(names[min(i, j)], names[max(i, j)])]
            if j > i:
                horizontal, vertical = _shifted(x, y)
                middle = np.nanmedian(x.energy)
                energy_panel(axes, horizontal - middle, vertical - middle, energies, GREY)
                note(axes, f"{row[ENERGY]:.0f}")
            else:
                _force_panel(axes, x, y, largest, GREY)
                note(axes, f"{row[FORCE]:.2f}")
            _outer_axes(axes, above=j > i, first=i == 0, last=(i == k - 1, j == k - 1), left=j == 0)
        figure.supxlabel("force component (eV/Å)", fontsize=8)
        figure.supylabel("force component (eV/Å)", fontsize=8)
        figure.suptitle("energy from the median (eV/atom)", fontsize=8)
    return figure


def _colours(names, styles) -> dict[str, str]:
    looks = source_looks([name for name in names if name != OWN], styles)
    return {name: "#000000" if name == OWN else looks[name]["color"] for name in names}


def _typical_range(parts: Sequence[np.ndarray]) -> tuple[float, float]:
    """Limits of an axis for several sources, robust against outlying ones."""
    low, high = np.median([[np.nanmin(values), np.nanmax(values)] for values in parts], axis=0)
    margin = 0.15 * (high - low) + 1e-3
    return float(low - margin), float(high + margin)


def _typical_force(labels: Mapping[str, Labels]) -> float:
    """Limit for force components, eV/Å: all but one in 2,000 of a typical source."""
    parts = [
        np.concatenate([f.ravel() for f in p.forces if f is not None]) for p in labels.values()
    ]
    return 1.3 * float(np.median([np.quantile(np.abs(part), 0.9995) for part in parts])) + 1e-3


def _shifted(first: Labels, second: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Energies per atom of the structures with both labels, the second's shifted."""
    rows = both(first, second)
    return first.energy[rows], second.energy[rows] - median_shift(first, second)


def _force_panel(axes: Axes, first: Labels, second: Labels, largest: float, colour: str) -> None:
    rows = both(first, second)
    x, y = (
        np.concatenate([np.empty(0), *(part.forces[i].ravel() for i in rows)])
        for part in (first, second)
    )
    force_panel(axes, x, y, largest, colour)


def _outer_axes(axes: Axes, above: bool, first: bool, last: tuple[bool, bool], left: bool) -> None:
    """Energies have their axes at the top and on the right, forces at the bottom and the left."""
    axes.tick_params(labelsize=5.5, length=2)
    if above:
        axes.xaxis.tick_top()
        axes.yaxis.tick_right()
        axes.spines[["top", "right"]].set_visible(True)
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(labeltop=first, labelright=last[1])
    else:
        axes.tick_params(labelbottom=last[0], labelleft=left)
