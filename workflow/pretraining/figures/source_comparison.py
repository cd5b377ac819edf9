"""Parity plots of label sources: against a reference, and of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pretraining.figures.parity import GREY, energy_panel, force_panel, note
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

MOST_COLUMNS = 4


def parity(
    labels: Mapping[str, Labels], reference: str, styles: Mapping[str, SourceStyle] | None = None
) -> Figure:
    """Draw each source against the reference: energies above, forces below.

    Points beyond the axes are counted; energies are drawn at the ends.

    Parameters
    ----------
    labels
        Labels by name, the reference first.
    reference
        Name of the labels on the horizontal axes.
    """
    sources = [name for name in labels if name != reference]
    colours = _colours(sources, styles)
    blocks = -(-len(sources) // MOST_COLUMNS)
    columns = -(-len(sources) // blocks)
    side = TEXT_WIDTH / max(columns, 3)
    errors = compare(labels).set_index(["first", "second"])
    own = labels[reference]
    energies = _typical_range(
        [own.energy, *(_shifted(own, labels[source])[1] for source in sources)]
    )
    largest = max(np.abs(forces).max() for forces in own.forces if forces is not None)
    who = "labels" if reference == OWN else name_of(reference, styles)
    with house_style():
        figure, grid = plt.subplots(
            2 * blocks, columns, figsize=(side * columns, 2 * side * blocks), squeeze=False
        )
        for number in range(blocks * columns):
            block, column = divmod(number, columns)
            above, below = grid[2 * block, column], grid[2 * block + 1, column]
            if number >= len(sources):
                above.remove()
                below.remove()
                continue
            source = sources[number]
            row = errors.loc[(reference, source)]
            x, y = _shifted(own, labels[source])
            energy_panel(above, x, y, energies, colours[source])
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


def matrix(labels: Mapping[str, Labels], styles: Mapping[str, SourceStyle] | None = None) -> Figure:
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
                _name(axes, name_of(names[i], styles), colours[names[i]])
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
    """Energies per atom of the structures that both have labelled, the second's shifted."""
    rows = both(first, second)
    return first.energy[rows], second.energy[rows] - median_shift(first, second)


def _force_panel(axes: Axes, first: Labels, second: Labels, largest: float, colour: str) -> None:
    rows = both(first, second)
    x = np.concatenate([first.forces[i].ravel() for i in rows]) if len(rows) else np.array([])
    y = np.concatenate([second.forces[i].ravel() for i in rows]) if len(rows) else np.array([])
    force_panel(axes, x, y, largest, colour)


def _name(axes: Axes, name: str, colour: str) -> None:
    axes.set_axis_off()
    axes.text(
        0.5, 0.5, name.replace(" ", "\n"), ha="center", va="center", transform=axes.transAxes,
        fontsize=7.5, fontweight="bold", color=colour,
    )  # fmt: skip


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
