"""The course of molecular dynamics: stages of temperature, frames, and a state to go on from.

What moves the atoms is an engine of :mod:`.engines`. Several courses can be advanced
in step, so that an engine may move their systems together; each has its own end.

This runs in the interpreters of label sources: it imports only the standard library, numpy and ASE.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import units

from pretraining.dynamics.recorder import Recorder
from pretraining.dynamics.settings import Ending, Frame, Settings
from pretraining.labels.evaluate import reason_of
from pretraining.runtime.errors import UserError
from pretraining.runtime.stop import Interrupted, StopRequest
from pretraining.study.generation import Stage

CHECKPOINT_SECONDS = 60.0


class Course:
    """One trajectory on its way through the stages.

    Parameters
    ----------
    engine
        An engine in the state of the first frame; it goes on from what the recorder has.
    stages
        The temperature in the course of the trajectory.
    frame_every
        Steps from frame to frame.
    settings
        Of the dynamics.
    recorder
        Takes the frames, and may have the state of an earlier process.
    monitor
        Looks at every frame and may return the reason to end the dynamics there.
    watch
        Looks at the engine when it has advanced between frames, and may return the reason to end
        the dynamics there; what it saw becomes the last frame.

    Attributes
    ----------
    step
        Steps since the start.
    ending
        How it ended; None as long as it has not.
    """

    def __init__(
        self,
        engine: Any,
        stages: Sequence[Stage],
        frame_every: int,
        settings: Settings,
        recorder: Recorder,
        monitor: Callable[[Frame], str | None] = lambda frame: None,
        watch: Callable[[Any], str | None] = lambda engine: None,
    ) -> None:
        self.engine = engine
        self.stages = stages
        self.frame_every = frame_every
        self.settings = settings
        self.recorder = recorder
        self.monitor = monitor
        self.watch = watch
        self.ending: Ending | None = None
        self._ends = np.cumsum([stage.steps for stage in stages])
        self._number = -1
        self.step = recorder.restore(engine)

    @property
    def time_ps(self) -> float:
        """Time since the start, ps."""
        return self.step * self.settings.timestep_fs / 1000

    def begin(self) -> None:
        """Look at the start, if it is one."""
        if self.step == 0:
            self._judge(self._fault(self._look(self.stages[0].first)))
        else:
            self._judge(None)

    def ahead(self) -> int:
        """Begin a stage where it begins; return how many steps may be taken together."""
        number = int(np.searchsorted(self._ends, self.step, side="right"))
        if number != self._number:
            self._number = number
            self.engine.start(number, self.stages[number], self._done)
        left = int(self._ends[number]) - self.step
        return min(self.engine.chunk, left, self.frame_every - self.step % self.frame_every)

    def arrive(self, steps: int) -> None:
        """Look at what the engine has come to after so many more steps."""
        self.step += steps
        target = self.stages[self._number].temperature(self._done)
        if self.step % self.frame_every == 0:
            self._judge(self._fault(self._look(target)))
            return
        reason = _unfit(self.engine.energy())
        if reason is None and (reason := self.watch(self.engine)):
            self._look(target)
        self._judge(reason)

    def fail(self, error: Exception) -> None:
        """End with an error of the engine."""
        self.ending = Ending(self.time_ps, reason_of(error), raised=True)

    def save(self) -> None:
        """Save what the trajectory goes on from."""
        self.recorder.save(self.engine, self.step)

    @property
    def _done(self) -> int:
        """Steps of the present stage that have been taken."""
        return self.step - int(self._ends[self._number]) + self.stages[self._number].steps

    def _judge(self, reason: str | None) -> None:
        if reason or self.step >= self._ends[-1]:
            self.ending = Ending(self.time_ps, reason)

    def _look(self, target: float) -> Frame:
        atoms, forces = self.engine.read()
        kinetic = float(atoms.get_kinetic_energy())
        freedom = self.settings.degrees_of_freedom(len(atoms))
        frame = Frame(
            step=self.step,
            time_ps=round(self.time_ps, 9),
            atoms=atoms,
            forces=forces,
            potential=self.engine.energy(),
            kinetic=kinetic,
            temperature=2 * kinetic / (freedom * units.kB),
            target=target,
        )
        self.recorder.add(frame)
        return frame

    def _fault(self, frame: Frame) -> str | None:
        """What is wrong with a frame, by its numbers or in the monitor's eyes."""
        reason = _unfit(frame.potential)
        if reason is None and not (
            np.isfinite(frame.forces).all() and np.isfinite(frame.atoms.positions).all()
        ):
            reason = "positions or forces are not finite"
        return reason or self.monitor(frame)


def simulate(
    courses: Sequence[Course],
    advance: Callable[[int], None],
    stop: StopRequest | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ended: Callable[[Course], None] = lambda course: None,
) -> None:
    """Run courses to their ends, or go on with them.

    Parameters
    ----------
    courses
        Trajectories that advance in step.
    advance
        Moves the engines of all that have not ended by a number of steps.
    stop
        Whether the process has been asked to stop.
    checkpoint_seconds
        How often the states are saved.
    ended
        Told of each course that has ended, before the others move on.

    Raises
    ------
    Interrupted
        When the process was asked to stop; the states have been saved.
    """
    saved = time.monotonic()
    if stop is not None:
        # Libraries may have put their own handlers before; here a signal waits for a chunk's end.
        stop.listen()
        stop.deferred = True

    def going(these: Sequence[Course]) -> list[Course]:
        for course in these:
            if course.ending is not None:
                ended(course)
        return [course for course in these if course.ending is None]

    for course in courses:
        course.begin()
    live = going(courses)
    while live:
        steps = min(course.ahead() for course in live)
        try:
            advance(steps)
            for course in live:
                course.arrive(steps)
        except (UserError, OSError):
            raise
        except Exception as error:
            for course in live:
                course.fail(error)
        live = going(live)
        if live and (stop or time.monotonic() - saved >= checkpoint_seconds):
            for course in live:
                course.save()
            saved = time.monotonic()
        if live and stop:
            behind = min(course.time_ps for course in live)
            raise Interrupted(
                f"stopped by {stop.signal} after {behind:g} ps; run the same command again to go on"
            )


def _unfit(energy: float) -> str | None:
    return None if np.isfinite(energy) else f"the potential energy is {energy}"
