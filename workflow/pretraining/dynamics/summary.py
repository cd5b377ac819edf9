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

CLASSES = ("0", "1", "2", "3", "4", "5+")
ENERGY = "energy_ev_per_atom"


def coordination(atoms: Atoms, radius: float) -> np.ndarray:
    """Fractions of atoms with 0, … 4, and 5 or more neighbours within `radius` (Å), shape (6,)."""
    return fold_counts(neighbours(atoms, radius), top=5) / len(atoms)


def summarise(paths: Sequence[Path], source: str, radius: float) -> pd.DataFrame:
    """Return a row for each trajectory with its final state.

    Each has energies of the label source `source`, and its log (CSV) beside it. Atoms within
    `radius` (Å) are neighbours.
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
                "radius": radius,
                **dict(zip(CLASSES, coordination(last, radius), strict=True)),
            }
        )
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    """Return a page with the means by density."""
    percent = table.assign(**{name: 100 * table[name] for name in CLASSES}).groupby("density")
    means = percent[[ENERGY, *CLASSES]].mean().assign(trajectories=percent.size()).reset_index()
    columns = {
        "density": ("density (g/cm³)", "g"),
        "trajectories": ("trajectories", "d"),
        ENERGY: ("energy (eV/atom)", ".3f"),
        **{name: (f"{name} neighbours (%)", ".1f") for name in CLASSES},
    }
    about = (
        f"The last frames of {len(table):,} trajectories ({table['structures'].sum():,} "
        f"structures): means by density, neighbours within {table['radius'].iloc[0]:g} Å. "
        "Energies are relative to isolated atoms.\n\n"
    )
    return about + markdown(means, columns=columns)
