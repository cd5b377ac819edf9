"""Final states of generated trajectories: energies and coordination numbers by density."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from ase.io import read

from pretraining.data.geometry import fold_counts, neighbours
from pretraining.runtime.errors import UserError, whole
from pretraining.runtime.records import check_output
from pretraining.runtime.tables import markdown

# Classes of coordination, narrow where covalent structures differ, and the first number of each.
CLASSES = {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4, "5-6": 5, "7-9": 7, "10-12": 10, "13+": 13}
ENERGY = "energy_ev_per_atom"


def coordination(atoms: Atoms, radius: float | None = None) -> np.ndarray:
    """Fractions of atoms in the :data:`CLASSES`; `radius` as of :func:`.geometry.neighbours`."""
    counts = fold_counts(neighbours(atoms, radius))
    return np.add.reduceat(counts, list(CLASSES.values())) / len(atoms)


def summarise(paths: Sequence[Path], source: str, radius: float | None = None) -> pd.DataFrame:
    """Return a row for each trajectory with its final state.

    Each has energies of the label source `source`, and its log (CSV) beside it; `radius` is as of
    :func:`coordination`.
    """
    rows = []
    for path in paths:
        for part in (path, path.with_suffix(".csv")):
            check_output(part)
        with whole(path):
            last = read(path, index=-1)
        with whole(path.with_suffix(".csv")):
            log = pd.read_csv(path.with_suffix(".csv"))
        energy = last.info.get(f"{source}_energy")
        if energy is None:
            raise UserError(f"{path}: no {source}_energy; delete the file to generate it again")
        rows.append(
            {
                "run_id": last.info["run_id"],
                "density": float(last.info["density"]),
                "anneal_T": float(last.info.get("anneal_T", np.nan)),
                "structures": len(log),
                "time_ps": float(last.info["time"]),
                "temperature_k": float(log["temperature_k"].iloc[-1]),
                ENERGY: float(energy) / len(last),
                "radius": np.nan if radius is None else radius,
                **dict(zip(CLASSES, coordination(last, radius), strict=True)),
            }
        )
    return pd.DataFrame(rows)


def within(radius: float) -> str:
    """Say how near neighbours are."""
    return "by covalent radii" if np.isnan(radius) else f"within {radius:g} Å"


def as_markdown(table: pd.DataFrame) -> str:
    """Return a page with the means by density."""
    percent = table.assign(**{name: 100 * table[name] for name in CLASSES}).groupby("density")
    present = [name for name in CLASSES if table[name].any()]
    means = percent[[ENERGY, *present]].mean().assign(trajectories=percent.size()).reset_index()
    columns = {
        "density": ("density (g/cm³)", "g"),
        "trajectories": ("trajectories", "d"),
        ENERGY: ("energy (eV/atom)", ".3f"),
        **{name: (f"{name} neighbours (%)", ".1f") for name in present},
    }
    about = (
        f"The last frames of {len(table):,} trajectories ({table['structures'].sum():,} "
        f"structures): means by density, neighbours {within(table['radius'].iloc[0])}. "
        "Energies are relative to isolated atoms.\n\n"
    )
    return about + markdown(means, columns=columns)
