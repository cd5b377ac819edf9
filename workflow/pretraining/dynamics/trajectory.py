"""Trajectories of molecular dynamics: stages, frames and checkpoints, alone or in a batch.

Imported in interpreters of label sources: only the standard library, numpy and ASE.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pretraining.dynamics.engines import Frame, Settings
from pretraining.dynamics.recorder import Recorder
from pretraining.labels.evaluate import reason_of
from pretraining.runtime.errors import UserError
from pretraining.runtime.stop import Interrupted, StopRequest
from pretraining.study.generation import Stage

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """End of a trajectory: its time, and the reason if it ended early."""

    time_ps: float
    reason: str | None = None
    raised: bool = False  # an error of the engine, as opposed to a reason seen in the atoms


@dataclass(eq=False)
class Trajectory:
    """One trajectory and its engine.

    Attributes
    ----------
    engine
        Engine at the first frame; it resumes from the recorder's checkpoint.
    frame_every
        Steps between frames.
    monitor
        Takes every frame and may return a reason to end the trajectory.
    watch
        Takes the engine between frames and may return a reason to end the trajectory; the state
        at that step becomes the last frame.
    """

    engine: Any
    stages: Sequence[Stage]
    frame_every: int
    settings: Settings
    recorder: Recorder
    monitor: Callable[[Frame], str | None] = lambda frame: None
    watch: Callable[[Any], str | None] = lambda engine: None

    def __post_init__(self) -> None:
        self.outcome: Outcome | None = None  # set at the end
        self._ends = np.cumsum([stage.steps for stage in self.stages])
        self._number = -1
        self.step = self.recorder.restore(self.engine)

    @property
    def time_ps(self) -> float:
        return self.step * self.settings.timestep_fs / 1000

    def begin(self) -> None:
        """Record and judge the first frame of a new trajectory."""
        self._judge(self._fault(self._record(self.stages[0].first)) if self.step == 0 else None)

    def ahead(self) -> int:
        """Begin a stage where one begins; return how many steps the engine may take at once."""
        number = int(np.searchsorted(self._ends, self.step, side="right"))
        if number != self._number:
            self._number = number
            self.engine.start(number, self.stages[number], self._done)
        left = int(self._ends[number]) - self.step
        return min(self.engine.chunk, left, self.frame_every - self.step % self.frame_every)

    def arrive(self, steps: int) -> None:
        """Judge the state after these further steps."""
        self.step += steps
        target = self.stages[self._number].temperature(self._done)
        if self.step % self.frame_every == 0:
            self._judge(self._fault(self._record(target)))
            return
        reason = _energy_fault(self.engine.energy())
        if reason is None and (reason := self.watch(self.engine)):
            self._record(target)
        self._judge(reason)

    @property
    def _done(self) -> int:
        """Steps taken in the present stage."""
        return self.step - int(self._ends[self._number]) + self.stages[self._number].steps

    def _judge(self, reason: str | None) -> None:
        if reason or self.step >= self._ends[-1]:
            self.outcome = Outcome(self.time_ps, reason)

    def _record(self, target: float) -> Frame:
        atoms, forces = self.engine.read()
        kinetic = float(atoms.get_kinetic_energy())
        frame = Frame(
            step=self.step,
            time_ps=round(self.time_ps, 9),
            atoms=atoms,
            forces=forces,
            potential=self.engine.energy(),
            kinetic=kinetic,
            temperature=self.settings.temperature(kinetic, len(atoms)),
            target=target,
        )
        self.recorder.add(frame)
        return frame

    def _fault(self, frame: Frame) -> str | None:
        reason = _energy_fault(frame.potential)
        if reason is None and not (
            np.isfinite(frame.forces).all() and np.isfinite(frame.atoms.positions).all()
        ):
            reason = "positions or forces are not finite"
        return reason or self.monitor(frame)


def simulate(
    trajectories: Sequence[Trajectory],
    advance: Callable[[int], None],
    stop: StopRequest | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ended: Callable[[Trajectory], None] = lambda trajectory: None,
) -> None:
    """Run or resume trajectories to their ends.

    Raises an `Interrupted` if the process was asked to stop, after the checkpoints are written.

    Parameters
    ----------
    advance
        Moves the engines of all unfinished trajectories by a number of steps.
    checkpoint_seconds
        Time between checkpoints.
    ended
        Called with each trajectory at its end, before the others advance.
    """
    saved = time.monotonic()
    if stop is not None:
        # Libraries may have replaced the signal handlers; a signal waits for the end of a chunk.
        stop.listen()
        stop.deferred = True

    def unfinished(among: Sequence[Trajectory]) -> list[Trajectory]:
        for trajectory in among:
            if trajectory.outcome is not None:
                ended(trajectory)
        return [trajectory for trajectory in among if trajectory.outcome is None]

    for trajectory in trajectories:
        trajectory.begin()
    live = unfinished(trajectories)
    while live:
        steps = min(trajectory.ahead() for trajectory in live)
        try:
            advance(steps)
            for trajectory in live:
                trajectory.arrive(steps)
        except (UserError, OSError):
            raise
        except Exception as error:
            for trajectory in live:
                reason = reason_of(error)
                trajectory.outcome = Outcome(trajectory.time_ps, reason, raised=True)
        live = unfinished(live)
        if live and (stop or time.monotonic() - saved >= checkpoint_seconds):
            for trajectory in live:
                trajectory.recorder.save(trajectory.engine, trajectory.step)
            saved = time.monotonic()
        if live and stop:
            behind = min(trajectory.time_ps for trajectory in live)
            raise Interrupted(
                f"stopped by {stop.signal} after {behind:g} ps; run the same command to resume"
            )


def _energy_fault(energy: float) -> str | None:
    return None if np.isfinite(energy) else f"the potential energy is {energy}"
