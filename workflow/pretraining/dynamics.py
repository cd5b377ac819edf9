"""Molecular dynamics by stages of temperature, with frames, a log, and a state to go on from.

The integration itself is an engine's: :mod:`pretraining.dynamics_ase` drives any ASE calculator,
:mod:`pretraining.dynamics_lammps` runs LAMMPS pair styles inside LAMMPS. Both integrate the same
equations, with a thermostat that starts anew with each stage.

This runs in the interpreters of label sources: it imports only the standard library, numpy and ASE.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units

from pretraining.errors import UserError
from pretraining.interruption import Interrupted, StopRequest
from pretraining.labels import reason_of
from pretraining.protocol import Stage
from pretraining.recorder import Recorder
from pretraining.sources import Source

THERMOSTATS = ("nose-hoover", "langevin", "none")
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Settings:
    """How the equations of motion are integrated.

    Attributes
    ----------
    timestep_fs
        Time step, fs.
    thermostat
        ``nose-hoover`` (a chain of three), ``langevin``, or ``none`` for constant energy.
    damping_fs
        Relaxation time of the thermostat, fs; for Langevin dynamics the inverse of the friction.
    seed
        Of the random forces of Langevin dynamics.
    """

    timestep_fs: float = 1.0
    thermostat: str = "nose-hoover"
    damping_fs: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.thermostat not in THERMOSTATS:
            raise UserError(f"thermostat '{self.thermostat}' is none of {', '.join(THERMOSTATS)}")

    def degrees_of_freedom(self, n_atoms: int) -> int:
        """Degrees of freedom that hold kinetic energy.

        Random forces move the centre of mass; without them its momentum stays zero.
        """
        return 3 * n_atoms if self.thermostat == "langevin" else 3 * n_atoms - 3


@dataclass(frozen=True)
class Frame:
    """The system at one instant.

    Attributes
    ----------
    step, time_ps
        Steps and time since the start of the dynamics.
    atoms
        Structure, its atoms in the cell, with momenta.
    forces
        (n_atoms, 3), eV/Å.
    potential, kinetic
        Energies, eV.
    temperature, target
        What it is and what the stage asks for, K.
    """

    step: int
    time_ps: float
    atoms: Atoms
    forces: np.ndarray
    potential: float
    kinetic: float
    temperature: float
    target: float


@dataclass(frozen=True)
class Ending:
    """How the dynamics ended: at which time, and why before its end (None if it did not).

    `raised` says that the reason is an error of the engine, not something seen in the atoms.
    """

    time_ps: float
    reason: str | None = None
    raised: bool = False


def thermalise(atoms: Atoms, kelvin: float, rng: np.random.Generator) -> None:
    """Draw momenta of the Maxwell-Boltzmann distribution, with a total momentum of zero."""
    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * kelvin)
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())


def engine_of(source: Source, wanted: str) -> str:
    """Return the engine that drives a source: ``ase``, or ``lammps`` for a LAMMPS pair style.

    Raises
    ------
    UserError
        If LAMMPS is asked for and cannot do it.
    """
    from pretraining.dynamics_lammps import obstacle

    why_not = obstacle(source)
    if wanted == "lammps" and why_not:
        raise UserError(f"source '{source.name}' cannot be driven by LAMMPS: {why_not}")
    return "ase" if wanted == "ase" or why_not else "lammps"


def make_engine(name: str, atoms: Atoms, settings: Settings):
    """Set up an engine for a structure that has momenta and the source's calculator.

    Raises
    ------
    UserError
        If the structure is one that the engine does not know how to move.
    """
    if name == "lammps":
        from pretraining.dynamics_lammps import LammpsEngine

        return LammpsEngine(atoms, settings)
    from pretraining.dynamics_ase import AseEngine

    return AseEngine(atoms, settings)


def simulate(
    engine: Any,
    stages: Sequence[Stage],
    frame_every: int,
    settings: Settings,
    recorder: Recorder,
    monitor: Callable[[Frame], str | None] = lambda frame: None,
    stop: StopRequest | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    watch: Callable[[Any], str | None] = lambda engine: None,
) -> Ending:
    """Run the stages, or go on with them.

    Parameters
    ----------
    engine
        An engine in the state of the first frame.
    frame_every
        Steps from frame to frame.
    recorder
        Takes the frames, and may have the state of an earlier process.
    monitor
        Looks at every frame and may return the reason to end the dynamics there.
    stop
        Whether the process has been asked to stop.
    checkpoint_seconds
        How often the state is saved.
    watch
        Looks at the engine when it has advanced between frames, and may return the reason to end
        the dynamics there; what it saw becomes the last frame.

    Returns
    -------
    Ending
        With a reason if the monitor had one, the energy is not finite or the engine failed.

    Raises
    ------
    Interrupted
        When the process was asked to stop; the state has been saved.
    """
    step = recorder.restore(engine)
    saved = time.monotonic()
    if stop is not None:
        # Libraries may have put their own handlers before; here a signal waits for a chunk's end.
        stop.listen()
        stop.deferred = True

    def look(target: float) -> Frame:
        frame = _frame(engine, step, target, settings)
        recorder.add(frame)
        return frame

    def ended(reason: str | None, raised: bool = False) -> Ending:
        return Ending(step * settings.timestep_fs / 1000, reason, raised)

    if step == 0:
        reason = _fault(look(stages[0].first), monitor)
        if reason:
            return ended(reason)
    offset = 0
    for number, stage in enumerate(stages):
        begin, offset = offset, offset + stage.steps
        if step >= offset:
            continue
        engine.start(number, stage, step - begin)
        while step < offset:
            ahead = min(engine.chunk, offset - step, frame_every - step % frame_every)
            try:
                engine.advance(ahead)
                step += ahead
                target = stage.temperature(step - begin)
                if step % frame_every == 0:
                    reason = _fault(look(target), monitor)
                else:
                    reason = _unfit(engine.energy())
                    if reason is None and (reason := watch(engine)):
                        look(target)
            except (UserError, OSError):
                raise
            except Exception as error:
                return ended(reason_of(error), raised=True)
            if reason:
                return ended(reason)
            if stop or time.monotonic() - saved >= checkpoint_seconds:
                recorder.save(engine, step)
                saved = time.monotonic()
            if stop:
                raise Interrupted(
                    f"stopped by {stop.signal} after {step * settings.timestep_fs / 1000:g} ps; "
                    "run the same command again to go on"
                )
    return ended(None)


def _frame(engine: Any, step: int, target: float, settings: Settings) -> Frame:
    atoms, forces = engine.read()
    kinetic = float(atoms.get_kinetic_energy())
    freedom = settings.degrees_of_freedom(len(atoms))
    return Frame(
        step=step,
        time_ps=round(step * settings.timestep_fs / 1000, 9),
        atoms=atoms,
        forces=forces,
        potential=engine.energy(),
        kinetic=kinetic,
        temperature=2 * kinetic / (freedom * units.kB),
        target=target,
    )


def _unfit(energy: float) -> str | None:
    return None if np.isfinite(energy) else f"the potential energy is {energy}"


def _fault(frame: Frame, monitor: Callable[[Frame], str | None]) -> str | None:
    """What is wrong with a frame, by its numbers or in the monitor's eyes."""
    reason = _unfit(frame.potential)
    if reason is None and not (
        np.isfinite(frame.forces).all() and np.isfinite(frame.atoms.positions).all()
    ):
        reason = "positions or forces are not finite"
    return reason or monitor(frame)
