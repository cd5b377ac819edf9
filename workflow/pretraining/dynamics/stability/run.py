"""Trajectories of an MD stability test, each until its end or the failure of the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from ase.io import read
from ase.neighborlist import neighbor_list
from nequip.nn import GraphModel

from pretraining.data.geometry import FOLDS, LAYERING, fold_counts, layering, neighbours
from pretraining.data.sanity.soundness import refuse_broken
from pretraining.dynamics.engines import AseEngine, Frame, Settings, thermalise
from pretraining.dynamics.recorder import LOG_COLUMNS, Recorder
from pretraining.dynamics.stability.criteria import Limits, StabilityMonitor
from pretraining.dynamics.trajectory import CHECKPOINT_SECONDS, Trajectory, simulate
from pretraining.runtime.cli import log
from pretraining.runtime.errors import UserError, whole
from pretraining.runtime.files import file_sha256
from pretraining.runtime.records import check_output, write_record
from pretraining.runtime.stop import StopRequest
from pretraining.runtime.tables import write_csv
from pretraining.study.generation import duration_ps, stages_of, steps_of
from pretraining.study.queries import TORCH_SIM
from pretraining.study.settings import COMPILE_ABOVE_S
from pretraining.training.compiled.fused_convolution import PREDICTION_SHARE, uncompiled_seconds
from pretraining.training.device import device_name, resolve_device, versions
from pretraining.training.network.checkpoint import cutoff_of
from pretraining.training.predict import compiled_network, load_calculator

# Files of a replica, and the folder of its checkpoint.
TRAJECTORY = "trajectory.extxyz"
THERMODYNAMICS = "thermodynamics.csv"
COORDINATION = "coordination.csv"
OUTCOME = "outcome.json"
STATE = "state"


@dataclass(frozen=True)
class Request:
    """Trajectories of one model with different initial velocities.

    Attributes
    ----------
    protocol
        A test of the configuration without :data:`pretraining.study.views.TEST_KEYS`.
    replicas
        Numbers from 1; number and seed of the protocol decide the initial velocities. With
        ``engine: torch-sim`` all replicas move in one batch.
    out
        Output folder; the files of replica 1 are in its folder ``replica~1``.
    device, allow_cpu, compile
        As in :class:`pretraining.study.settings.Training`.
    trust
        As in :func:`pretraining.training.network.checkpoint.load_model`.
    """

    model: Path
    start: Path
    protocol: Mapping[str, Any]
    replicas: Sequence[int]
    out: Path
    device: str = "auto"
    allow_cpu: bool = False
    compile: str = "auto"
    trust: bool | Sequence[str] = False

    def folder(self, replica: int) -> Path:
        return self.out / f"replica~{replica}"

    def name(self, replica: int) -> str:
        return f"{self.model.parent.name}, replica {replica}"

    @property
    def settings(self) -> Settings:
        protocol = self.protocol
        return Settings(protocol["timestep_fs"], protocol["thermostat"], protocol["damping_fs"])

    @property
    def batched(self) -> bool:
        return self.protocol["engine"] == TORCH_SIM

    def steps_of(self, key: str) -> int:
        """Return a time of the protocol in steps."""
        return steps_of(self.protocol[key], self.protocol["timestep_fs"])


def run(
    request: Request,
    stop: StopRequest | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> dict[int, dict[str, Any]]:
    """Run or resume trajectories, write their files and return the outcome of each replica.

    All models of a test start from the same positions and, in the same replica, with the same
    velocities. Files move into place when the last replica has ended, since Snakemake removes the
    outputs of a job that was stopped. Raises a `UserError` if the model cannot evaluate the start,
    or the program fails. A failure of the model is a result, no error.
    """
    for what, path in (("model", request.model), ("start structure", request.start)):
        if not path.is_file():
            raise UserError(f"no {what} at {path}")
    check_output(request.start)
    device = resolve_device(request.device, request.allow_cpu)
    recorders = {replica: _recorder(request, replica) for replica in request.replicas}
    left = [replica for replica, recorder in recorders.items() if recorder.outcome is None]
    together = [left] if request.batched else [[replica] for replica in left]
    for replicas in filter(None, together):
        batch = {replica: recorders[replica] for replica in replicas}
        _move(request, batch, device, stop, checkpoint_seconds)
    for replica, recorder in recorders.items():
        _finish(recorder, request.folder(replica))
    return {replica: recorder.outcome for replica, recorder in recorders.items()}


def _recorder(request: Request, replica: int) -> Recorder:
    radius = request.protocol.get("radius")
    return Recorder(
        request.folder(replica) / STATE,
        {
            "protocol": dict(request.protocol),
            "replica": replica,
            "model": file_sha256(request.model),
            "start": file_sha256(request.start),
        },
        request.name(replica),
        describe=_structure,
        measure=lambda frame: _measures(frame, radius),
        keep_every=request.steps_of("frame_every_ps"),
    )


def _structure(frame: Frame) -> Atoms:
    """Return the structure of a frame without momenta, with its time, temperature and energy."""
    atoms = frame.atoms
    structure = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    structure.info = {
        "time": frame.time_ps,
        "temperature": frame.temperature,
        "potential_energy": frame.potential,
    }
    return structure


def _measures(frame: Frame | None, radius: float | None) -> dict[str, float]:
    """Return the atoms of a frame by number of neighbours, and its layering."""
    if frame is None or not np.isfinite(frame.atoms.positions).all():
        return dict.fromkeys((*FOLDS, LAYERING), np.nan)
    counts = fold_counts(neighbours(frame.atoms, radius))
    return dict(zip(FOLDS, counts, strict=True)) | {LAYERING: layering(frame.atoms)}


def _finish(recorder: Recorder, out: Path) -> None:
    """Write the tables and the outcome, and move the trajectory into place."""
    table = pd.read_csv(recorder.log, dtype=str, keep_default_na=False)
    write_csv(out / THERMODYNAMICS, table[[*LOG_COLUMNS]])
    write_csv(out / COORDINATION, table[["time_ps", *FOLDS, LAYERING]])
    tables = out / THERMODYNAMICS, out / COORDINATION
    moving = {TRAJECTORY: recorder.frames}
    write_record(out / OUTCOME, recorder.outcome, *tables, moving=moving)
    recorder.finish(out / TRAJECTORY, recorder.folder / "both.csv")


def _move(
    request: Request,
    recorders: Mapping[int, Recorder],
    device: torch.device,
    stop: StopRequest | None,
    checkpoint_seconds: float,
) -> None:
    """Move replicas together until each has ended; save the outcomes in their recorders."""
    protocol, stages = request.protocol, stages_of(request.protocol)
    with whole(request.start):
        start = read(request.start)
    refuse_broken([start], where=f"{request.start}: ")
    structures = [start.copy() for _ in recorders]
    for replica, atoms in zip(recorders, structures, strict=True):
        thermalise(atoms, stages[0].first, np.random.default_rng([protocol["seed"], replica]))
    radius, limits = protocol.get("radius"), Limits(**protocol["limits"])
    alone = float(np.mean(neighbours(start, radius) == 0))
    monitor = StabilityMonitor(limits, stages, radius, request.settings, 0.0, alone)
    if fault := monitor.structure_fault(start):
        raise UserError(
            f"{request.start}: the start already breaks a limit of the test: {fault}: change the "
            "start, or radius and limits of this test in the section 'dynamics'"
        )
    engines, advance, drop = _engines(request, structures, device)
    energy = engines[0].energy()
    if not np.isfinite(energy):
        raise UserError(f"{request.model}: the energy of {request.start} is {energy}")
    trajectories = []
    for engine, recorder in zip(engines, recorders.values(), strict=True):
        monitor = StabilityMonitor(limits, stages, radius, request.settings, energy, alone)
        every = request.steps_of("log_every_ps")
        trajectories.append(
            Trajectory(engine, stages, every, request.settings, recorder, monitor, monitor.watch)
        )
    facts = {
        "planned_ps": duration_ps(protocol),
        "n_atoms": len(start),
        "engine": protocol["engine"],
        "batch": len(engines),
        "device": device_name(device),
        "model_sha256": file_sha256(request.model),
        "start_sha256": file_sha256(request.start),
        "protocol": dict(protocol),
        "versions": versions(),
    }
    if request.batched:
        facts["versions"]["torch-sim-atomistic"] = version("torch-sim-atomistic")
    first = {trajectory: trajectory.step for trajectory in trajectories}
    replicas = dict(zip(trajectories, recorders, strict=True))
    begun = time.monotonic()

    def ended(trajectory: Trajectory) -> None:
        outcome, recorder = trajectory.outcome, trajectory.recorder
        if outcome.raised:
            raise UserError(
                f"{recorder.name}: the program failed at {outcome.time_ps:g} ps "
                f"({outcome.reason}); this is no failure of the model: run it again to resume "
                "from the last checkpoint"
                + ("; if it ran out of memory, lower batch" if len(engines) > 1 else "")
            )
        if outcome.reason:
            recorder.keep_last()
        result = {
            "status": "failed" if outcome.reason else "survived",
            "time_ps": round(outcome.time_ps, 9),
            "criterion": outcome.reason and (trajectory.monitor.criterion or "not finite"),
            "reason": outcome.reason,
            "replica": replicas[trajectory],
            "steps_per_second": (trajectory.step - first[trajectory]) / (time.monotonic() - begun),
        }
        recorder.save(trajectory.engine, trajectory.step, result | facts)
        drop(trajectory.engine)
        end = f"failed: {outcome.reason}" if outcome.reason else "survived"
        log(f"{recorder.name}: {end} ({outcome.time_ps:g} ps)")

    simulate(trajectories, advance, stop, checkpoint_seconds, ended)


def _engines(
    request: Request, structures: Sequence[Atoms], device: torch.device
) -> tuple[Sequence[Any], Callable[[int], None], Callable[[Any], None]]:
    """Return the engines of structures, and the functions to advance all and to remove one."""
    if request.batched:
        # torch-sim is optional.
        from pretraining.dynamics.torchsim_engine import Batch, load_batch_model
    try:
        if request.batched:
            model = load_batch_model(request.model, device, trust=request.trust)
            model.model = _network(model.model, request, structures[0])
            batch = Batch(model, structures, request.settings)
            return batch.systems, batch.advance, batch.drop
        (atoms,) = structures
        atoms.calc = load_calculator(request.model, device=device, trust=request.trust)
        atoms.calc.model = _network(atoms.calc.model, request, atoms)
        engine = AseEngine(atoms, request.settings)
        engine.energy()
        return [engine], engine.advance, lambda engine: None
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{request.model} cannot evaluate {request.start} ({type(error).__name__}: {error})"
        ) from error


def _network(model: GraphModel, request: Request, start: Atoms) -> torch.nn.Module:
    """Return the network, compiled if that is set, saves time or has been done before."""
    if request.compile == "never":
        return model
    wanted = request.compile == "always"
    if request.compile == "auto":
        # By all replicas, also when only some are left: a resumed job must choose alike.
        moved = len(request.replicas) if request.batched else 1
        edges = len(neighbor_list("i", start, cutoff_of(model))) * moved
        steps = 1000 * duration_ps(request.protocol) / request.protocol["timestep_fs"]
        seconds = PREDICTION_SHARE * uncompiled_seconds(model, steps, steps * edges)
        wanted = seconds > COMPILE_ABOVE_S
    network = compiled_network(model, request.model, start, log, wanted)
    if network is not model:
        log(f"{request.model.parent.name}: forces by a compiled function")
    return network
