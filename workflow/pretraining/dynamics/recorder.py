"""Files of a trajectory under way, and the state that it goes on from.

The frames and the log grow in a folder beside the output, with ``checkpoint.npz``: the state of
the engine, the step, and how long the files were then. What was written after it is cut off when
the trajectory goes on, so that no frame is doubled and none is missing.

Like :mod:`pretraining.dynamics.engines`, this imports only the standard library, numpy and ASE.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.io import write

from pretraining.runtime.files import difference, room_for, write_atomically, write_json
from pretraining.runtime.slurm import progress
from pretraining.runtime.stop import say

if TYPE_CHECKING:
    from pretraining.dynamics.settings import Frame

LOG_COLUMNS = ("time_ps", "target_k", "temperature_k", "potential_ev", "kinetic_ev", "total_ev")


class Recorder:
    """What a trajectory has produced so far.

    Parameters
    ----------
    folder
        For the files under way; it is removed when they are moved to where they belong.
    identity
        All that decides the trajectory, as JSON. The state of another one is not used.
    name
        What the trajectory is called in messages.
    describe
        Makes the structure that is written of a frame.
    measure
        Further numbers of the log by the name of their column; without a frame, any values.
    keeps
        Whether the structure of a frame is written; every frame has a line in the log.

    Attributes
    ----------
    last
        The last frame that this process has added.
    outcome
        What came of the trajectory, if it has been saved; it is then at its end.
    """

    def __init__(
        self,
        folder: Path,
        identity: dict[str, Any],
        name: str,
        describe: Callable[[Frame], Atoms] = lambda frame: frame.atoms,
        measure: Callable[[Frame | None], dict[str, float]] = lambda frame: {},
        keeps: Callable[[Frame], bool] = lambda frame: True,
    ) -> None:
        self.folder = folder
        self.name = name
        self.describe = describe
        self.measure = measure
        self.keeps = keeps
        self.last: Frame | None = None
        self._frames, self._log = folder / "frames.extxyz", folder / "log.csv"
        self._checkpoint = folder / "checkpoint.npz"
        file = folder / "identity.json"
        changed = difference(file, identity) if folder.is_dir() else None
        if changed is not None:
            shutil.rmtree(folder)
            say(f"{name}: starting afresh: the saved state is of another trajectory ({changed})")
        folder.mkdir(parents=True, exist_ok=True)
        if not file.is_file():
            write_json(file, identity)
        self._state = self._read()
        self.outcome: dict[str, Any] | None = None
        if self._state is not None and "outcome" in self._state:
            self.outcome = json.loads(str(self._state["outcome"]))
        if self._state is None:
            self._frames.write_bytes(b"")
            header = ",".join([*LOG_COLUMNS, *measure(None)])
            with room_for(self._log):
                self._log.write_text(header + "\n", encoding="utf-8")

    @property
    def resumed(self) -> bool:
        """Whether there is a state to go on from."""
        return self._state is not None

    @property
    def step(self) -> int:
        """The step of that state; 0 for a new trajectory."""
        return 0 if self._state is None else int(self._state["step"])

    @property
    def log(self) -> Path:
        """The log under way."""
        return self._log

    def _read(self) -> dict[str, np.ndarray] | None:
        """Read the checkpoint and cut the files to what they were; None if there is none."""
        if not self._checkpoint.is_file():
            return None
        try:
            with np.load(self._checkpoint, allow_pickle=False) as stored:
                state = {key: stored[key] for key in stored.files}
            files = [(self._frames, int(state["frames"])), (self._log, int(state["log"]))]
            if any(path.stat().st_size < size for path, size in files):
                raise ValueError("frames are missing")
        except Exception as error:
            say(f"{self.name}: starting afresh: {self._checkpoint} cannot be used ({error})")
            return None
        for path, size in files:
            os.truncate(path, size)
        return state

    def restore(self, engine: Any) -> int:
        """Put the engine into the saved state; return its step, 0 for a new trajectory."""
        if self._state is None:
            return 0
        engine.restore(self._state)
        say(f"{self.name}: going on after {self.step} steps")
        return self.step

    def add(self, frame: Frame) -> None:
        """Write a frame and its line of the log."""
        self.last = frame
        if self.keeps(frame):
            self.keep(frame)
        row = (frame.target, frame.temperature, frame.potential, frame.kinetic)
        numbers = [f"{number:.10g}" for number in (frame.time_ps, *row)]
        total = f"{frame.potential + frame.kinetic:.12g}"
        more = [f"{number:.10g}" for number in self.measure(frame).values()]
        with room_for(self._log), open(self._log, "a", encoding="utf-8") as handle:
            handle.write(",".join([*numbers, total, *more]) + "\n")

    def keep(self, frame: Frame) -> None:
        """Write the structure of a frame."""
        text = io.StringIO()
        write(text, self.describe(frame), format="extxyz")
        with room_for(self._frames), open(self._frames, "a", encoding="utf-8") as handle:
            handle.write(text.getvalue())

    def save(self, engine: Any, step: int, outcome: dict[str, Any] | None = None) -> None:
        """Save what the trajectory goes on from, and at its end what came of it."""
        sizes = {"frames": self._frames.stat().st_size, "log": self._log.stat().st_size}
        state = {**engine.state(), "step": step, **sizes}
        if outcome is not None:
            state["outcome"] = np.array(json.dumps(outcome))
            self.outcome = outcome
        content = io.BytesIO()
        np.savez(content, **state)
        write_atomically(self._checkpoint, lambda path: path.write_bytes(content.getvalue()))
        progress()

    def finish(self, frames: Path, log: Path) -> None:
        """Move the files to where they belong, and forget the state."""
        os.replace(self._log, log)
        os.replace(self._frames, frames)
        shutil.rmtree(self.folder)
