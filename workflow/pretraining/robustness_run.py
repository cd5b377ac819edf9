"""One trajectory of a robustness test: a trained model, a start, and how long it lasts."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read

from pretraining.compiled import SUFFIX, compile_model
from pretraining.coordination import FOLDS, LAYERING, fold_counts, layering, neighbours
from pretraining.dynamics import CHECKPOINT_SECONDS, Ending, Frame, Settings, simulate, thermalise
from pretraining.dynamics_ase import AseEngine
from pretraining.errors import UserError
from pretraining.failure import FailureMonitor, Limits
from pretraining.inference import load_calculator
from pretraining.interruption import StopRequest, say, write_atomically, write_json
from pretraining.machine import device_name, resolve_device, versions
from pretraining.protocol import steps_of
from pretraining.recorder import LOG_COLUMNS, Recorder
from pretraining.remote import file_sha256
from pretraining.robustness import duration_ps, test_stages

TRAJECTORY = "trajectory.extxyz"
THERMODYNAMICS = "thermodynamics.csv"
COORDINATION = "coordination.csv"
OUTCOME = "outcome.json"
STATE = "state"  # the folder of what a trajectory goes on from
MEASURED = (*FOLDS, LAYERING)


@dataclass(frozen=True)
class Request:
    """One trajectory.

    Attributes
    ----------
    model
        A run's ``model.ckpt``.
    start
        Structure to start from.
    protocol
        A test of the configuration, without what :data:`pretraining.robustness.APART` names.
    replica
        Number from 1; it decides the initial velocities, together with the protocol's seed.
    out
        Folder to write.
    device, allow_cpu
        As of :class:`pretraining.settings.Training`.
    """

    model: Path
    start: Path
    protocol: Mapping[str, Any]
    replica: int
    out: Path
    device: str = "auto"
    allow_cpu: bool = False

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.model.parent.name}, replica {self.replica}"


def run(
    request: Request,
    stop: StopRequest | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Ending:
    """Run a trajectory to its end or its failure, or go on with it, and write what came of it.

    Every model of a test starts from the same positions and, in the same replica, with the same
    velocities.

    Raises
    ------
    UserError
        If the model cannot evaluate the start, or the program fails on the way. A model that fails
        is no error, but the result.
    """
    for what, path in (("model", request.model), ("structure to start from", request.start)):
        if not path.is_file():
            raise UserError(f"no {what} at {path}")
    protocol = request.protocol
    settings = Settings(protocol["timestep_fs"], protocol["thermostat"], protocol["damping_fs"])
    stages = test_stages(protocol)
    every = steps_of(protocol["log_every_ps"], protocol["timestep_fs"])
    kept = steps_of(protocol["frame_every_ps"], protocol["timestep_fs"])
    device = resolve_device(request.device, request.allow_cpu)
    atoms = read(request.start)
    recorder = Recorder(
        request.out / STATE,
        {
            "protocol": dict(protocol),
            "replica": request.replica,
            "model": file_sha256(request.model),
            "start": file_sha256(request.start),
        },
        request.name,
        describe=bare,
        measure=lambda frame: measures(frame, protocol["radius"]),
        keeps=lambda frame: frame.step % kept == 0,
    )
    atoms.calc = load_calculator(_program(request, recorder.folder, device), device=device)
    rng = np.random.default_rng([protocol["seed"], request.replica])
    thermalise(atoms, stages[0].first, rng)
    monitor = FailureMonitor(
        Limits(**protocol["limits"]),
        stages,
        protocol["radius"],
        settings,
        _start_energy(request, atoms),
    )
    begun = time.monotonic()
    first = recorder.step
    ending = simulate(
        AseEngine(atoms, settings),
        stages,
        every,
        settings,
        recorder,
        monitor,
        stop,
        checkpoint_seconds,
        watch=monitor.watch,
    )
    if ending.raised:
        raise UserError(
            f"{request.name}: the program failed at {ending.time_ps:g} ps ({ending.reason}); this "
            "says nothing about the model: run it again to go on from the last checkpoint"
        )
    last = recorder.last
    if ending.reason and last and last.step % kept and np.isfinite(last.atoms.positions).all():
        recorder.keep(last)
    steps = round(1000 * ending.time_ps / settings.timestep_fs) - first
    outcome = {
        "status": "failed" if ending.reason else "survived",
        "time_ps": round(ending.time_ps, 9),
        "planned_ps": duration_ps(protocol),
        "criterion": (monitor.criterion or "not finite") if ending.reason else None,
        "reason": ending.reason,
        "replica": request.replica,
        "n_atoms": len(atoms),
        "steps_per_second": steps / (time.monotonic() - begun),
        "device": device_name(device),
        "model_sha256": file_sha256(request.model),
        "versions": versions(),
    }
    finish(recorder, request.out, outcome)
    said = f"failed: {ending.reason}" if ending.reason else "survived"
    say(f"{request.name}: {said} ({ending.time_ps:g} ps)")
    return ending


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


def _program(request: Request, folder: Path, device: torch.device) -> Path:
    """The model as it is, or compiled; a trajectory goes on with the program that it began with."""
    if not request.protocol["compile"]:
        return request.model
    program = folder / f"model{SUFFIX}"
    if not program.exists():
        say(f"{request.name}: compiling the model")
        compile_model(request.model, program, device)
    return program


def _start_energy(request: Request, atoms: Atoms) -> float:
    """Potential energy of the start, eV; the first call of the model."""
    try:
        energy = float(atoms.get_potential_energy())
    except Exception as error:
        raise UserError(
            f"{request.model} cannot evaluate {request.start} ({type(error).__name__}: {error})"
        ) from error
    if not np.isfinite(energy):
        raise UserError(f"{request.model}: the energy of {request.start} is {energy}")
    return energy


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
