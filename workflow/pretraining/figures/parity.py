"""Parity plots: panels of predictions against labels, and the figure of one model."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pretraining.figures.style import TEXT_WIDTH, house_style
from pretraining.training.predictions import Predictions

GREY = "#555555"


def parity_figure(
    predictions: Predictions, title: str, colour: str = "#0072B2", *, shifted: bool = False
) -> Figure:
    """Draw the predicted energies and force components of a model against the labels.

    Parameters
    ----------
    predictions
        Of one test set.
    title
        Names the model and the test set; lines are separated by ``; ``.
    colour
        Of the model.
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
        note(left, _energy_note(predictions, shift))
        count = f"{predictions.forces.size:,} components"
        note(right, f"RMSE {predictions.force_rmse():.3f} eV/Å\n{count}")
        left.set(xlabel="label (eV/atom)", ylabel="prediction (eV/atom)")
        if shifted:
            left.set_ylabel("prediction, shifted (eV/atom)")
        right.set(xlabel="label (eV/Å)", ylabel="prediction (eV/Å)")
        figure.suptitle(title.replace("; ", "\n"), fontsize=8, x=0.02, ha="left")
    return figure


def _energy_note(predictions: Predictions, shift: float) -> str:
    lines = [f"RMSE {1000 * predictions.energy_rmse(shift):.1f} meV/atom"]
    if shift:
        lines.append(f"after a shift of {-1000 * shift:+.0f} meV/atom".replace("-", "−"))
    return "\n".join([*lines, f"{len(predictions.index):,} structures"])


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
    gridsize
        Hexagons along an axis.
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
        step = max(
            n * 10.0**k for k in range(-4, 5) for n in (1, 2, 5) if n * 10**k < limits[1] / 1.25
        )
        axes.set(xticks=[-step, 0, step], yticks=[-step, 0, step])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    if outside:
        text = f"{outside:,} beyond"
        axes.text(0.97, 0.03, text, transform=axes.transAxes, ha="right", fontsize=5.5, color=GREY)


def note(axes: Axes, text: str) -> None:
    """Write into the upper left corner of a panel."""
    axes.text(
        0.04, 0.96, text, transform=axes.transAxes, va="top", fontsize=6.7, zorder=5,
        bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.8},
    )  # fmt: skip
