"""Files of a robustness test's trajectory: its frames, its two tables and what came of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from pretraining.data.geometry import FOLDS, LAYERING, fold_counts, layering, neighbours
from pretraining.dynamics.recorder import LOG_COLUMNS, Recorder
from pretraining.dynamics.settings import Frame
from pretraining.runtime.files import write_atomically, write_json

TRAJECTORY = "trajectory.extxyz"
THERMODYNAMICS = "thermodynamics.csv"
COORDINATION = "coordination.csv"
OUTCOME = "outcome.json"
MEASURED = (*FOLDS, LAYERING)


def bare(frame: Frame) -> Atoms:
    """The structure of a frame, without momenta, with its time, temperature and energy."""
    atoms = frame.atoms
    structure = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    structure.info = {
        "time": frame.time_ps,
        "temperature": frame.temperature,
        "potential_energy": frame.potential,
    }
    return structure


def measures(frame: Frame | None, radius: float) -> dict[str, float]:
    """Count the atoms of a frame by number of neighbours, and measure its layering."""
    if frame is None or not np.isfinite(frame.atoms.positions).all():
        return dict.fromkeys(MEASURED, np.nan)
    counts = fold_counts(neighbours(frame.atoms, radius))
    return dict(zip(FOLDS, counts, strict=True)) | {LAYERING: layering(frame.atoms)}


def finish(recorder: Recorder, out: Path, outcome: dict[str, Any]) -> None:
    """Write the two tables and the outcome, then move the trajectory to where it belongs."""
    with open(recorder.log, encoding="utf-8", newline="") as handle:
        rows = list(csv.reader(handle))
    n = len(LOG_COLUMNS)
    for file, pick in (
        (THERMODYNAMICS, lambda row: row[:n]),
        (COORDINATION, lambda row: [row[0], *row[n:]]),
    ):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(map(pick, rows))
        write_atomically(out / file, lambda path, text=text: path.write_text(text.getvalue()))
    write_json(out / OUTCOME, outcome)
    recorder.finish(out / TRAJECTORY, recorder.folder / "both.csv")
