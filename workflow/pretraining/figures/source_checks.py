"""The figure of the checked label sources: dimers, crystals and finite differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.figures.style import GREY, TEXT_WIDTH, WHITE_EDGE, house_style, source_looks
from pretraining.labels.check.summary import columns_of
from pretraining.study.titles import SourceStyle, order_sources, title_of

COLUMNS = 2
PANEL_HEIGHT = 2.35
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
        What ``check_source.py`` writes, one for each source.
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
        for letter, axes in zip(ascii_lowercase, places, strict=False):
            axes.set_title(letter, loc="left", fontweight="bold", pad=3)
        for axes, (element, name) in zip(places, keys, strict=False):
            title = f"{element}$_2$" if name == "dimer" else f"{element} {name}"
            axes.set_title(title if len(elements) > 1 or name == "dimer" else name, pad=3)
            (_dimers if name == "dimer" else _crystals)(axes, panels[element, name], shifted)
        _forces(places[len(keys)], {source: drawn[source] for source in order}, looks, tolerance)
        for axes in places[len(keys) + 1 :]:
            axes.remove()
        if order:
            lines = [
                Line2D([], [], label=title_of(source, styles), **looks[source], **WHITE_EDGE)
                for source in order
            ]
            place = {"loc": "outside upper center", "ncols": min(len(lines), 6)}
            figure.legend(handles=lines, handlelength=2.6, columnspacing=1.6, **place)
        else:
            figure.suptitle("no label source could be evaluated", color=GREY)
    return figure


def _staggered(looks: Mapping[str, dict]) -> dict[str, dict]:
    """Looks with shifted dashes: equal curves stay visible."""
    shifted = {}
    for number, (source, look) in enumerate(looks.items()):
        line = look["linestyle"]
        dashes = line if line == "-" else (2.14 * number, line[1])
        shifted[source] = {**look, "linestyle": dashes}
    return shifted


def _plot(axes: Axes, x: np.ndarray, y: np.ndarray, look: Mapping[str, Any]) -> None:
    """A line, with markers if it has few points (DFT)."""
    marker = look["marker"] if len(x) < 15 else "none"
    axes.plot(x, y, **look | {"marker": marker} | WHITE_EDGE)


def _dimers(axes: Axes, curves: Mapping[str, Mapping], looks: Mapping) -> None:
    drawn = {source: columns_of(curve, "x", "energy") for source, curve in curves.items()}
    axes.axhline(0, color="0.85", linewidth=0.7, zorder=0)
    for source, (x, energy) in drawn.items():
        _plot(axes, x, energy, looks[source])
    # High energies are cut off: they do not show binding.
    depth = max(1.0, *(-energy.min() for _, energy in drawn.values()))
    axes.set_ylim(-1.12 * depth, 0.5 * depth)
    axes.set_xlim(min(x[0] for x, _ in drawn.values()), max(x[-1] for x, _ in drawn.values()))
    axes.set(xlabel="distance (Å)", ylabel="energy (eV)")


def _crystals(axes: Axes, curves: Mapping[str, Mapping], looks: Mapping) -> None:
    minima = []
    for source, curve in curves.items():
        volume, energy = np.array(columns_of(curve, "volume", "energy")) / curve["atoms"]
        _plot(axes, volume, energy, looks[source])
        minima.append(energy.min())
    span = max(minima) - min(minima)
    axes.set_ylim(min(minima) - 0.06 * (span + 1), max(minima) + 0.35 * span + 0.6)
    axes.set(xlabel="volume (Å$^3$/atom)", ylabel="energy (eV/atom)")


def _forces(axes: Axes, results: Mapping[str, Mapping], looks: Mapping, tolerance: float) -> None:
    """Deviation of each force component from −dE/dx against the force, both as magnitudes."""
    scales, names = [], {}
    symbol = {"linestyle": "none", "markersize": 3, "markeredgewidth": 0.6}
    for source, result in results.items():
        for cell in result["forces"]:
            components = np.array(cell["components"], dtype=float).reshape(-1, 2)
            deviation = np.abs(components[:, 0] - components[:, 1])
            look = looks[source] | symbol
            names[cell["name"]] = hollow = cell["name"] == "stretched"
            look["markerfacecolor"] = "none" if hollow else look["color"]
            x, y = (np.maximum(v, SMALLEST) for v in (np.abs(components[:, 0]), deviation))
            axes.plot(x, y, alpha=0.8, **look)
            scales.append(cell["largest_force"])
    axes.set(xscale="log", yscale="log")
    axes.set_title("forces and finite differences", pad=3)
    axes.set(xlabel=r"$|F|$ (eV/Å)", ylabel=r"$|F + \mathrm{d}E/\mathrm{d}x|$ (eV/Å)")
    if not scales:
        return
    low, high = axes.get_ylim()
    # Room for the legend above what is consistent.
    high = max(high, 10 * tolerance * max(scales)) * 20
    axes.axhspan(tolerance * max(scales), high, color="0.93", linewidth=0, zorder=0)
    axes.set_ylim(low, high)
    symbol |= {"marker": "o", "color": GREY}
    handles = [
        Line2D([], [], label=name, markerfacecolor="none" if hollow else GREY, **symbol)
        for name, hollow in names.items()
    ]
    axes.legend(handles=handles, loc="upper left", ncols=2, handletextpad=0.1, columnspacing=1)
