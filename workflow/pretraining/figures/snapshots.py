"""Snapshots of structures, atoms coloured by their number of neighbours.

Rendered by OVITO's Python package if installed, otherwise by matplotlib.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_rgb

from pretraining.data.geometry import TOP, covalent, neighbours, pairs

# Title, smallest and largest number of neighbours, colour.
CLASSES = (
    ("0", 0, 0, "#E8000B"),
    ("1", 1, 1, "#E69F00"),
    ("2 (sp)", 2, 2, "#56B4E9"),
    ("3 (sp²)", 3, 3, "#4D4D4D"),
    ("4 (sp³)", 4, 4, "#0072B2"),
    ("5–7", 5, 7, "#CC79A7"),
    ("8–11", 8, 11, "#8B00A8"),
    ("12 or more", 12, TOP, "#009E73"),
)
ATOM = 0.38  # radius of an atom, Å
FOG = 0.65  # share of white in the colour of the atoms at the back
PIXELS = 600


def class_colours(numbers: np.ndarray) -> np.ndarray:
    """Colours by number of neighbours, shape (n_atoms, 3)."""
    colours = np.empty((len(numbers), 3))
    numbers = np.minimum(numbers, TOP)
    for _, low, high, colour in CLASSES:
        colours[(numbers >= low) & (numbers <= high)] = to_rgb(colour)
    return colours


def draw_structure(axes: Axes, atoms: Atoms, radius: float | None) -> None:
    """Draw a structure, seen along its second lattice vector.

    Parameters
    ----------
    radius
        As of :func:`.geometry.neighbours`.
    """
    axes.set_axis_off()
    axes.set_aspect("equal")
    if importlib.util.find_spec("ovito") is not None:
        axes.imshow(_by_ovito(atoms, radius), interpolation="antialiased")
    else:
        _by_matplotlib(axes, atoms, radius)


def _by_matplotlib(axes: Axes, atoms: Atoms, radius: float | None) -> None:
    """Discs and sticks from back to front, paler at the back."""
    places = atoms.positions[:, [0, 2]]
    depth = atoms.positions[:, 1]
    span = max(np.ptp(depth), 1e-9)
    share = FOG * (depth - depth.min())[:, None] / span  # 0 in front
    colours = class_colours(neighbours(atoms, radius)) * (1 - share) + share
    i, j, images = pairs(atoms, covalent(atoms) if radius is None else radius, "ijS")
    inside = (i < j) & ~images.any(axis=1)
    i, j = i[inside], j[inside]
    ends = np.stack([places[i], places[j]], axis=1)
    back = np.maximum(share[i], share[j])
    greys = 0.45 * (1 - back) + back * np.ones((1, 3))
    axes.add_collection(LineCollection(ends, colors=greys, linewidths=1.2, zorder=1))
    order = np.argsort(-depth)
    size = np.full(len(atoms), 2 * ATOM)
    edges = 0.55 * colours[order] + 0.45 * share[order]
    axes.add_collection(
        EllipseCollection(
            size, size, np.zeros(len(atoms)), units="xy", offsets=places[order],
            offset_transform=axes.transData, facecolors=colours[order],
            edgecolors=np.clip(edges, 0, 1), linewidths=0.3, zorder=2,
        )
    )  # fmt: skip
    # The outline of the cell.
    a, c = atoms.cell.array[0, [0, 2]], atoms.cell.array[2, [0, 2]]
    corners = np.array([0 * a, a, a + c, c, 0 * a])
    axes.plot(*corners.T, color="0.55", linewidth=0.6, zorder=0)
    points = np.concatenate([corners, places])
    low, high = points.min(axis=0) - 2 * ATOM, points.max(axis=0) + 2 * ATOM
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _by_ovito(atoms: Atoms, radius: float | None) -> np.ndarray:
    """An image rendered by OVITO's Tachyon, shape (PIXELS, PIXELS, 3)."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # there may be no display
    from ovito.io.ase import ase_to_ovito
    from ovito.modifiers import CreateBondsModifier
    from ovito.pipeline import Pipeline, StaticSource
    from ovito.vis import TachyonRenderer, Viewport

    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    data = ase_to_ovito(bare)
    data.particles_.create_property("Color", data=class_colours(neighbours(atoms, radius)))
    data.particles_.create_property("Radius", data=np.full(len(bare), ATOM))
    data.cell.vis.line_width = 0.06
    data.cell.vis.rendering_color = (0.55, 0.55, 0.55)
    pipeline = Pipeline(source=StaticSource(data=data))
    bonds = CreateBondsModifier(cutoff=radius or 2 * covalent(atoms).max())
    bonds.vis.width = 0.3
    pipeline.modifiers.append(bonds)
    pipeline.add_to_scene()
    try:
        view = Viewport(type=Viewport.Type.Ortho, camera_dir=(0.12, 1, -0.1))
        view.zoom_all((PIXELS, PIXELS))
        renderer = TachyonRenderer(ambient_occlusion_samples=8, shadows=False)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "structure.png"
            view.render_image(filename=str(file), size=(PIXELS, PIXELS), renderer=renderer)
            return plt.imread(file)[..., :3]
    finally:
        pipeline.remove_from_scene()
