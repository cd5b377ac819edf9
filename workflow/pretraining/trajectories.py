"""What generated trajectories ended in: energies and coordination numbers by density."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from ase import Atoms
from ase.io import read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pretraining.coordination import neighbours
from pretraining.errors import UserError, whole
from pretraining.results import markdown_table
from pretraining.style import COLUMN_WIDTH, CYCLE, MARKERS, TEXT_WIDTH, house_style, shades

CLASSES = ("0", "1", "2", "3", "4", "5+")
ENERGY = "energy_ev_per_atom"
# More anneal temperatures than this are told by a colour bar.
NAMED = 6


def coordination(atoms: Atoms, radius: float) -> np.ndarray:
    """Return the fractions of atoms with 0, 1, 2, 3, 4, and 5 or more neighbours.

    Parameters
    ----------
    radius
        Distance within which an atom is a neighbour, Å.

    Returns
    -------
    numpy.ndarray
        Shape (6,), its sum is 1.
    """
    counts = neighbours(atoms, radius)
    top = len(CLASSES) - 1
    return np.bincount(np.minimum(counts, top), minlength=top + 1) / len(atoms)


def summarise(paths: Sequence[Path], source: str, radius: float) -> pd.DataFrame:
    """Return a row for each trajectory, with the state at its end.

    Parameters
    ----------
    paths
        Trajectories, each with its log beside it.
    source
        Name of the label source whose energies they carry.
    radius
        Distance within which an atom is a neighbour, Å.

    Raises
    ------
    UserError
        If a trajectory lacks those energies.
    """
    rows = []
    for path in paths:
        with whole(path):
            last = read(path, index=-1)
        with whole(path.with_suffix(".csv")):
            log = pd.read_csv(path.with_suffix(".csv"))
        energy = last.info.get(f"{source}_energy")
        if energy is None:
            raise UserError(f"{path}: no {source}_energy; delete it, and it is made again")
        rows.append(
            {
                "run_id": last.info["run_id"],
                "density": float(last.info["density"]),
                "anneal_T": float(last.info.get("anneal_T", np.nan)),
                "structures": len(log),
                "time_ps": float(last.info["time"]),
                "temperature_k": float(log["temperature_k"].iloc[-1]),
                ENERGY: float(energy) / len(last),
                "radius": radius,
                **dict(zip(CLASSES, coordination(last, radius), strict=True)),
            }
        )
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    """Return the means by density as a page."""
    mean = table.groupby("density").mean(numeric_only=True)
    count = table.groupby("density").size()
    header = ["density (g/cm³)", "trajectories", "energy (eV/atom)"]
    header += [f"{name} neighbours (%)" for name in CLASSES]
    rows = [
        [f"{density:g}", f"{count[density]}", f"{row[ENERGY]:.3f}"]
        + [f"{100 * row[name]:.1f}" for name in CLASSES]
        for density, row in mean.iterrows()
    ]
    about = (
        f"The last frames of {len(table):,} trajectories ({table['structures'].sum():,} "
        f"structures): means by density, neighbours within {table['radius'].iloc[0]:g} Å. "
        "Energies are relative to isolated atoms.\n\n"
    )
    return about + markdown_table(header, rows)


def structures_figure(table: pd.DataFrame) -> Figure:
    """Draw energy and coordination against density."""
    with house_style():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(TEXT_WIDTH, 0.75 * COLUMN_WIDTH), layout="constrained"
        )
        _energies(figure, left, table)
        _coordination(right, table)
        for axes in (left, right):
            axes.set_xlabel("density (g/cm³)")
            axes.grid(axis="y", color="0.92", linewidth=0.6)
        figure.draw_without_rendering()
    return figure


def _energies(figure: Figure, axes: Axes, table: pd.DataFrame) -> None:
    """Each trajectory a point, coloured by its anneal temperature."""
    axes.set_ylabel("energy (eV/atom)")
    anneals = sorted(table["anneal_T"].dropna().unique())
    colours = shades(anneals)
    if not anneals:
        axes.plot(table["density"], table[ENERGY], "o", color=CYCLE[0])
    elif len(anneals) <= NAMED:
        for kelvin, part in table.groupby("anneal_T"):
            look = {"color": colours[kelvin], "label": f"{kelvin:,.0f} K"}
            axes.plot(part["density"], part[ENERGY], "o", alpha=0.9, **look)
        axes.legend(title="annealed at", handletextpad=0.2)
    else:
        points = axes.scatter(
            table["density"], table[ENERGY], c=table["anneal_T"], cmap="plasma_r", s=6, linewidths=0
        )
        bar = figure.colorbar(points, ax=axes, pad=0.02)
        bar.set_label("anneal temperature (K)")
        bar.outline.set_linewidth(0.7)


def _coordination(axes: Axes, table: pd.DataFrame) -> None:
    """Mean over the trajectories of a density; bars are their standard deviation."""
    groups = 100 * table.set_index("density")[list(CLASSES)]
    mean, spread = (getattr(groups.groupby("density"), name)() for name in ("mean", "std"))
    handles = []
    for name, colour, marker in zip(CLASSES, CYCLE, MARKERS, strict=False):
        look = {"color": colour, "marker": marker}
        # A share cannot leave the panel, nor may its bar.
        bars = [np.minimum(spread[name].fillna(0), room) for room in (mean[name], 100 - mean[name])]
        axes.errorbar(mean.index, mean[name], bars, elinewidth=0.7, clip_on=False, **look)
        handles.append(Line2D([], [], label=name, **look))
    axes.set(ylabel="atoms (%)", ylim=(0, 100))
    title = f"neighbours\nwithin {table['radius'].iloc[0]:g} Å"
    axes.legend(handles=handles, title=title, loc="center left", bbox_to_anchor=(1.0, 0.5))
