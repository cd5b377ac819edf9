"""The figure of the checked label sources: dimers, crystals and finite differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.figures.style import TEXT_WIDTH, house_style, source_looks
from pretraining.labels.check.summary import columns_of
from pretraining.study.titles import SourceStyle, order_sources, title_of

COLUMNS = 2
PANEL_HEIGHT = 2.35
GREY = "#777777"
# Deviations below this, eV/Å, are drawn at it: a logarithm has no zero.
SMALLEST = 1e-7


def figure_of_sources(
    results: Sequence[Mapping[str, Any]],
    tolerance: float,
    styles: Mapping[str, SourceStyle] | None = None,
) -> Figure:
    """Draw a panel for each element's dimer, each crystal and the finite differences.

    Parameters
    ----------
    results
        Results of ``check_source.py``, one for each source.
    tolerance
        Largest consistent deviation of a force, in units of the largest one.
    """
    drawn = {r["source"]: r for r in results if r.get("curves") or r.get("forces")}
    order = order_sources(drawn, styles)
    looks = source_looks(order, styles)
    shifted = _staggered(looks)
    panels: dict[tuple[str, str], dict] = {}
    for source in order:
        for curve in drawn[source]["curves"]:
            # Without an isolated atom the energies have another zero.
            if curve["element"] in drawn[source]["reference_ev"]:
                panels.setdefault((curve["element"], curve["name"]), {})[source] = curve
    # A dimer, then its element's crystals.
    elements = list(dict.fromkeys(element for element, _ in panels))
    keys = sorted(panels, key=lambda key: (elements.index(key[0]), key[1] != "dimer"))
    rows = -(-(len(keys) + 1) // COLUMNS)
    with house_style():
        figure, grid = plt.subplots(
            rows, COLUMNS, figsize=(TEXT_WIDTH, PANEL_HEIGHT * rows + 0.35), squeeze=False
        )
        places = list(grid.flat)
        for letter, axes in zip("abcdefghijklmnopqrstuvwxyz", places, strict=False):
            axes.set_title(letter, loc="left", fontweight="bold", pad=3)
        for axes, (element, name) in zip(places, keys, strict=False):
            title = f"{element}$_2$" if name == "dimer" else f"{element} {name}"
            axes.set_title(title if len(elements) > 1 or name == "dimer" else name, pad=3)
            (_dimers if name == "dimer" else _crystals)(axes, panels[element, name], shifted)
        _forces(places[len(keys)], {source: drawn[source] for source in order}, looks, tolerance)
        for axes in places[len(keys) + 1 :]:
            axes.remove()
        _legend(figure, order, looks, styles)
    return figure


def _staggered(looks: Mapping[str, dict]) -> dict[str, dict]:
    """Looks with shifted dashes: equal curves stay visible."""
    shifted = {}
    for number, (source, look) in enumerate(looks.items()):
        line = look["linestyle"]
        if not isinstance(line, str):
            line = (2.14 * number, line[1])
        shifted[source] = {**look, "linestyle": line}
    return shifted


def _plot(axes: Axes, x: np.ndarray, y: np.ndarray, look: Mapping[str, Any]) -> None:
    """A line, with markers if it has few points (DFT)."""
    few = len(x) < 15
    marker = look["marker"] if few else "none"
    axes.plot(x, y, **{**look, "marker": marker}, markeredgecolor="white", markeredgewidth=0.4)


def _dimers(axes: Axes, curves: Mapping[str, Mapping], looks: Mapping) -> None:
    lowest, ends = 0.0, []
    axes.axhline(0, color="0.85", linewidth=0.7, zorder=0)
    for source, curve in curves.items():
        x, energy = columns_of(curve, "x", "energy")
        _plot(axes, x, energy, looks[source])
        lowest = min(lowest, energy.min())
        ends.append(x)
    # High energies are cut off: they do not show binding.
    depth = max(-lowest, 1.0)
    axes.set_ylim(-1.12 * depth, 0.5 * depth)
    axes.set_xlim(min(x[0] for x in ends), max(x[-1] for x in ends))
    axes.set(xlabel="distance (Å)", ylabel="energy (eV)")


def _crystals(axes: Axes, curves: Mapping[str, Mapping], looks: Mapping) -> None:
    minima = []
    for source, curve in curves.items():
        volume, energy = (
            values / curve["atoms"] for values in columns_of(curve, "volume", "energy")
        )
        _plot(axes, volume, energy, looks[source])
        minima.append(energy.min())
    span = max(minima) - min(minima)
    axes.set_ylim(min(minima) - 0.06 * (span + 1), max(minima) + 0.35 * span + 0.6)
    axes.set(xlabel="volume (Å$^3$/atom)", ylabel="energy (eV/atom)")


def _forces(axes: Axes, results: Mapping[str, Mapping], looks: Mapping, tolerance: float) -> None:
    """Deviation of each force component from −dE/dx against the force, both as magnitudes."""
    scales, names = [], {}
    for source, result in results.items():
        for cell in result["forces"]:
            components = np.array(cell["components"], dtype=float).reshape(-1, 2)
            deviation = np.abs(components[:, 0] - components[:, 1])
            names[cell["name"]] = fill = "none" if cell["name"] == "stretched" else None
            axes.plot(
                np.maximum(np.abs(components[:, 0]), SMALLEST),
                np.maximum(deviation, SMALLEST),
                linestyle="none",
                color=looks[source]["color"],
                marker=looks[source]["marker"],
                markersize=3,
                markerfacecolor=fill or looks[source]["color"],
                markeredgewidth=0.6,
                alpha=0.8,
            )
            scales.append(cell["largest_force"])
    axes.set(xscale="log", yscale="log")
    axes.set_title("forces and finite differences", pad=3)
    axes.set(xlabel=r"$|F|$ (eV/Å)", ylabel=r"$|F + \mathrm{d}E/\mathrm{d}x|$ (eV/Å)")
    if scales:
        low, high = axes.get_ylim()
        # Room for the legend above what is consistent.
        high = max(high, 10 * tolerance * max(scales)) * 20
        axes.axhspan(tolerance * max(scales), high, color="0.93", linewidth=0, zorder=0)
        axes.set_ylim(low, high)
    if not names:
        return
    symbol = {"linestyle": "none", "marker": "o", "markersize": 3, "color": GREY}
    handles = [
        Line2D([], [], label=name, markerfacecolor=fill or GREY, markeredgewidth=0.6, **symbol)
        for name, fill in names.items()
    ]
    axes.legend(handles=handles, loc="upper left", ncols=2, handletextpad=0.1, columnspacing=1)


def _legend(figure: Figure, order: Sequence[str], looks: Mapping, styles) -> None:
    if not order:
        figure.suptitle("no label source could be evaluated", color=GREY)
        return
    edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
    handles = [
        Line2D([], [], label=title_of(source, styles), **looks[source], **edge) for source in order
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=min(len(handles), 6),
        handlelength=2.6,
        columnspacing=1.6,
    )
