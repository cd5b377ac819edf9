"""Trajectories of a robustness test: a trained model, a start, and how long each replica lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io import read
from ase.neighborlist import neighbor_list
from nequip.nn import GraphModel

from pretraining.dynamics.ase_engine import AseEngine
from pretraining.dynamics.recorder import Recorder
from pretraining.dynamics.settings import Settings, thermalise
from pretraining.dynamics.stability.criteria import FailureMonitor, Limits
from pretraining.dynamics.stability.files import bare, finish, measures
from pretraining.dynamics.trajectory import CHECKPOINT_SECONDS, Course, simulate
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256
from pretraining.runtime.stop import StopRequest, say
from pretraining.study.generation import duration_ps, stages_of, steps_of
from pretraining.study.settings import COMPILE_ABOVE_S
from pretraining.study.stability import TORCH_SIM
from pretraining.training.compiled.calculator import compiled_network
from pretraining.training.compiled.compile_cost import PREDICTION, plain_seconds
from pretraining.training.device import device_name, resolve_device, versions
from pretraining.training.network.checkpoint import cutoff_of
from pretraining.training.predict import load_calculator

STATE = "state"  # the folder of what a trajectory goes on from


@dataclass(frozen=True)
class Request:
    """Trajectories of one model, which differ in their initial velocities.

    Attributes
    ----------
    model
        A run's ``model.ckpt``.
    start
        Structure to start from.
    protocol
        A test of the configuration, without :data:`pretraining.study.views.TEST_KEYS`.
    replicas
        Numbers from 1; each decides the initial velocities, together with the protocol's seed.
        With ``engine: torch-sim`` all of them move in one batch.
    out
        Folder to write; each replica has a folder of its own in it, ``replica~1``.
    device, allow_cpu, compile
        As of :class:`pretraining.study.settings.Training`.
    """

    model: Path
    start: Path
    protocol: Mapping[str, Any]
    replicas: Sequence[int]
    out: Path
    device: str = "auto"
    allow_cpu: bool = False
    compile: str = "auto"

    def folder(self, replica: int) -> Path:
        """Where the files of a replica belong."""
        return self.out / f"replica~{replica}"

    def name(self, replica: int) -> str:
        """What a replica is called in messages."""
        return f"{self.model.parent.name}, replica {replica}"

    @property
    def settings(self) -> Settings:
        """How the equations of motion are integrated."""
        protocol = self.protocol
        return Settings(protocol["timestep_fs"], protocol["thermostat"], protocol["damping_fs"])

    def steps_of(self, key: str) -> int:
        """Return a time of the protocol in steps."""
        return steps_of(self.protocol[key], self.protocol["timestep_fs"])


def run(
    request: Request,
    stop: StopRequest | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> dict[int, dict[str, Any]]:
    """Run trajectories to their ends or failures, or go on with them, and write what came of them.

    Every model of a test starts from the same positions and, in the same replica, with the same
    velocities. Files are moved to where they belong when the last replica has ended: of a job that
    is stopped before, Snakemake would remove those that are in place.

    Returns
    -------
    dict
        What came of each replica.

    Raises
    ------
    UserError
        If the model cannot evaluate the start, or the program fails on the way. A model that fails
        is no error, but the result.
    """
    for what, path in (("model", request.model), ("structure to start from", request.start)):
        if not path.is_file():
            raise UserError(f"no {what} at {path}")
    device = resolve_device(request.device, request.allow_cpu)
    recorders = {replica: _recorder(request, replica) for replica in request.replicas}
    left = [replica for replica, recorder in recorders.items() if recorder.outcome is None]
    together = [left] if request.protocol["engine"] == TORCH_SIM else [[one] for one in left]
    for replicas in filter(None, together):
        batch = {replica: recorders[replica] for replica in replicas}
        _move(request, batch, device, stop, checkpoint_seconds)
    outcomes = {replica: recorder.outcome for replica, recorder in recorders.items()}
    for replica, recorder in recorders.items():
        finish(recorder, request.folder(replica), outcomes[replica])
    return outcomes


def _recorder(request: Request, replica: int) -> Recorder:
    radius, kept = request.protocol["radius"], request.steps_of("frame_every_ps")
    return Recorder(
        request.folder(replica) / STATE,
        {
            "protocol": dict(request.protocol),
            "replica": replica,
            "model": file_sha256(request.model),
            "start": file_sha256(request.start),
        },
        request.name(replica),
        describe=bare,
        measure=lambda frame: measures(frame, radius),
        keeps=lambda frame: frame.step % kept == 0,
    )


def _move(
    request: Request,
    recorders: Mapping[int, Recorder],
    device: torch.device,
    stop: StopRequest | None,
    checkpoint_seconds: float,
) -> None:
    """Move replicas together until each has ended, and leave with its recorder what came of it."""
    protocol, settings = request.protocol, request.settings
    stages = stages_of(protocol)
    start = read(request.start)
    structures = []
    for replica in recorders:
        structures.append(start.copy())
        rng = np.random.default_rng([protocol["seed"], replica])
        thermalise(structures[-1], stages[0].first, rng)
    folder = next(iter(recorders.values())).folder
    engines, advance, drop = _engines(request, structures, folder, device)
    energy = engines[0].energy()
    if not np.isfinite(energy):
        raise UserError(f"{request.model}: the energy of {request.start} is {energy}")
    courses = {}
    for engine, replica in zip(engines, recorders, strict=True):
        limits = Limits(**protocol["limits"])
        monitor = FailureMonitor(limits, stages, protocol["radius"], settings, energy)
        every = request.steps_of("log_every_ps")
        recorder = recorders[replica]
        course = Course(engine, stages, every, settings, recorder, monitor, monitor.watch)
        courses[course] = replica, course.step
    facts = {
        "planned_ps": duration_ps(protocol),
        "n_atoms": len(start),
        "engine": protocol["engine"],
        "batch": len(engines),
        "device": device_name(device),
        "model_sha256": file_sha256(request.model),
        "versions": _versions(protocol["engine"]),
    }
    kept = request.steps_of("frame_every_ps")
    begun = time.monotonic()

    def ended(course: Course) -> None:
        ending, recorder, last = course.ending, course.recorder, course.recorder.last
        if ending.raised:
            raise UserError(
                f"{recorder.name}: the program failed at {ending.time_ps:g} ps ({ending.reason}); "
                "this says nothing about the model: run it again to go on from the last checkpoint"
                + ("; if it ran out of memory, lower batch" if len(engines) > 1 else "")
            )
        if ending.reason and last and last.step % kept and np.isfinite(last.atoms.positions).all():
            recorder.keep(last)
        replica, first = courses[course]
        outcome = {
            "status": "failed" if ending.reason else "survived",
            "time_ps": round(ending.time_ps, 9),
            "criterion": (course.monitor.criterion or "not finite") if ending.reason else None,
            "reason": ending.reason,
            "replica": replica,
            "steps_per_second": (course.step - first) / (time.monotonic() - begun),
        }
        recorder.save(course.engine, course.step, outcome | facts)
        drop(course.engine)
        said = f"failed: {ending.reason}" if ending.reason else "survived"
        say(f"{recorder.name}: {said} ({ending.time_ps:g} ps)")

    simulate(list(courses), advance, stop, checkpoint_seconds, ended)


def _engines(
    request: Request, structures: Sequence[Atoms], folder: Path, device: torch.device
) -> tuple[Sequence[Any], Callable[[int], None], Callable[[Any], None]]:
    """Engines of structures, what advances them, and what takes one out."""
    batched = request.protocol["engine"] == TORCH_SIM
    if batched:
        # Optional: it cannot be imported where torch-sim is not installed.
        from pretraining.dynamics.torchsim_engine import Batch, load_batch_model
    try:
        if batched:
            model = load_batch_model(request.model, device)
            model.model = _network(model.model, request, structures[0])
            batch = Batch(model, structures, request.settings)
            return batch.systems, batch.advance, batch.drop
        (atoms,) = structures
        atoms.calc = load_calculator(request.model, device=device)
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
    """Return the network that moves the atoms: a program in its place, if that pays."""
    if request.compile == "auto":
        # Of all replicas, also when it goes on with those that are left: the choice must stay.
        moved = len(request.replicas) if request.protocol["engine"] == TORCH_SIM else 1
        edges = len(neighbor_list("i", start, cutoff_of(model))) * moved
        steps = 1000 * duration_ps(request.protocol) / request.protocol["timestep_fs"]
        seconds = PREDICTION * plain_seconds(model, steps, steps * edges)
        wanted = seconds > COMPILE_ABOVE_S
    else:
        wanted = request.compile == "always"
    if not wanted:
        return model
    network = compiled_network(model, request.model, start, say)
    if network is not model:
        say(f"{request.model.parent.name}: moved by a program")
    return network


def _versions(engine: str) -> dict[str, str]:
    more = {"torch-sim-atomistic": version("torch-sim-atomistic")} if engine == TORCH_SIM else {}
    return versions() | more
