"""Angles between predicted and DFT forces, before and after fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pretraining.figures.style import GREY, TEXT_WIDTH, house_style, note_below, ramp, source_looks
from pretraining.study.titles import SourceStyle, title_of
from pretraining.training.predictions import Predictions

SMALLEST = 0.01  # eV/Å; a smaller DFT force has no direction to speak of
BINS = np.arange(0, 181, 5)


def angles_of(predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the angles (degrees) of the atoms' forces to the labels, and the labels' norms."""
    labels, predicted = predictions.forces, predictions.predicted_forces
    norms = np.linalg.norm(labels, axis=1)
    kept = norms >= SMALLEST
    both = norms[kept] * np.linalg.norm(predicted[kept], axis=1)
    # A force of zero is at right angles to all, as random ones are on average.
    cosines = np.einsum("ij,ij->i", labels[kept], predicted[kept]) / np.maximum(both, 1e-12)
    return np.degrees(np.arccos(np.clip(cosines, -1, 1))), norms[kept]


def angles_figure(
    files: Mapping[tuple[str, int], Path],
    styles: Mapping[str, SourceStyle] | None = None,
    first: str = "",
    published: Mapping[tuple[str, int], float] | None = None,
) -> tuple[Figure, pd.DataFrame]:
    """Draw the distributions, a panel for each label source; return their means as well.

    Parameters
    ----------
    files
        Predictions by source and number of DFT structures, 0 before fine-tuning.
    first
        Begins the note.
    published
        Published means, likewise.
    """
    sources = list(dict.fromkeys(source for source, _ in files))
    looks, rows = source_looks(sources, styles), []
    with house_style():
        figure, panels = plt.subplots(
            1, len(sources), figsize=(TEXT_WIDTH, 2.4), sharey=True, squeeze=False
        )
        middles = (BINS[1:] + BINS[:-1]) / 2
        for axes, source in zip(panels[0], sources, strict=True):
            sizes = sorted(n for of, n in files if of == source)
            shades = ramp(looks[source]["color"], [n for n in sizes if n])
            axes.plot(middles, np.sin(np.radians(middles)) / 2 * np.pi / 180, color=GREY, lw=0.7)
            for n in sizes:
                angles, weights = angles_of(Predictions.load(files[source, n]))
                density, _ = np.histogram(angles, BINS, density=True)
                row = {"source": source, "n": n, "atoms": len(angles), "mean": angles.mean()}
                row |= {"median": np.median(angles)}
                rows.append(row | {"weighted_mean": np.average(angles, weights=weights)})
                label = f"{f'n = {n:,}' if n else 'not tuned'}: {angles.mean():.0f}°"
                if (source, n) in (published or {}):
                    label += f" (published {published[source, n]:.0f}°)"
                look = {"color": shades[n]} if n else {"color": GREY, "linestyle": (0, (4, 1.6))}
                axes.step(middles, density, where="mid", label=label, **look)
            axes.set(title=title_of(source, styles), xlabel="angle to the DFT force (°)")
            axes.set(xlim=(0, 180), xticks=[0, 45, 90, 135, 180], ylim=(0, None))
            axes.legend(title="mean", loc="upper right", fontsize=6.2)
        panels[0, 0].set_ylabel("share of atoms per degree")
        note_below(
            figure,
            f"{first}every atom counts once, whatever its force; atoms with a DFT force below "
            f"{SMALLEST:g} eV/Å left out · thin: random directions (sin θ), mean 90°",
        )
    return figure, pd.DataFrame(rows)
