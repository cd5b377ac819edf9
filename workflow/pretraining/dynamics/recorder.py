"""Files of an unfinished trajectory, and the checkpoint that resumes it.

Frames and log grow in a folder beside the output, with ``checkpoint.npz``: the state of the engine,
the step, and the lengths and checksums of both files at that step. A resumed trajectory truncates
the files to these lengths: no frame is doubled, none is missing.

Imported in interpreters of label sources: only the standard library, numpy and ASE.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from pretraining.dynamics.engines import Frame
from pretraining.runtime.cli import log
from pretraining.runtime.files import difference, room_for, write_atomically, write_json
from pretraining.runtime.slurm import progress

LOG_COLUMNS = ("time_ps", "target_k", "temperature_k", "potential_ev", "kinetic_ev", "total_ev")


@dataclass(eq=False)
class Recorder:
    """Writer of a trajectory's frames, log and checkpoints.

    Attributes
    ----------
    folder
        Folder of the unfinished files; removed with :meth:`finish`.
    identity
        Everything that decides the trajectory, as JSON. A checkpoint of another one is not used.
    describe
        Returns the structure to write for a frame.
    measure
        Returns further columns of the log and their values; without a frame, any values.
    keep_every
        Steps between frames whose structure is written; every frame has a line in the log.
    """

    folder: Path
    identity: dict[str, Any]
    name: str
    describe: Callable[[Frame], Atoms] = lambda frame: frame.atoms
    measure: Callable[[Frame | None], dict[str, float]] = lambda frame: {}
    keep_every: int = 1

    def __post_init__(self) -> None:
        folder = self.folder
        self.last: Frame | None = None  # added by this process
        self.log = folder / "log.csv"
        self.frames = folder / "frames.extxyz"
        self._checkpoint = folder / "checkpoint.npz"
        file = folder / "identity.json"
        changed = difference(file, self.identity) if folder.is_dir() else None
        if changed is not None:
            shutil.rmtree(folder)
            log(
                f"{self.name}: starting afresh: the checkpoint is of another trajectory ({changed})"
            )
        folder.mkdir(parents=True, exist_ok=True)
        if not file.is_file():
            write_json(file, self.identity)
        # CRC-32 of both files so far.
        self._sums = {self.frames: 0, self.log: 0}
        self._state = self._read()
        self.outcome: dict[str, Any] | None = None  # set by the save at the end
        if self._state is None:
            for path in self._sums:
                path.write_bytes(b"")
            self._append(self.log, ",".join([*LOG_COLUMNS, *self.measure(None)]) + "\n")
        elif "outcome" in self._state:
            self.outcome = json.loads(str(self._state["outcome"]))

    @property
    def resumed(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self._state is not None

    def _read(self) -> dict[str, np.ndarray] | None:
        """Read the checkpoint and truncate the files; None without a usable one."""
        if not self._checkpoint.is_file():
            return None
        try:
            with np.load(self._checkpoint, allow_pickle=False) as stored:
                state = {key: stored[key] for key in stored.files}
            sizes = {path: int(state[path.name]) for path in self._sums}
            if any(path.stat().st_size < size for path, size in sizes.items()):
                raise ValueError("frames are missing")
            for path, size in sizes.items():
                os.truncate(path, size)
            sums = {path: _crc32(path) for path in self._sums}
            if any(sums[path] != int(state[f"crc32 {path.name}"]) for path in sums):
                raise ValueError("the frames before it were changed")
        except Exception as error:
            log(f"{self.name}: starting afresh: {self._checkpoint} cannot be used ({error})")
            return None
        self._sums = sums
        return state

    def restore(self, engine: Any) -> int:
        """Restore the engine's state; return its step, 0 for a new trajectory."""
        if self._state is None:
            return 0
        engine.restore(self._state)
        step = int(self._state["step"])
        log(f"{self.name}: resuming after {step} steps")
        return step

    def add(self, frame: Frame) -> None:
        """Write a frame and its line of the log."""
        self.last = frame
        if frame.step % self.keep_every == 0:
            self._keep(frame)
        row = (frame.target, frame.temperature, frame.potential, frame.kinetic)
        numbers = [f"{number:.10g}" for number in (frame.time_ps, *row)]
        total = f"{frame.potential + frame.kinetic:.12g}"
        more = [f"{number:.10g}" for number in self.measure(frame).values()]
        self._append(self.log, ",".join([*numbers, total, *more]) + "\n")

    def keep_last(self) -> None:
        """Write the structure of the last frame, unless it is written or not finite."""
        last = self.last
        if last and last.step % self.keep_every and np.isfinite(last.atoms.positions).all():
            self._keep(last)

    def _keep(self, frame: Frame) -> None:
        text = io.StringIO()
        write(text, self.describe(frame), format="extxyz")
        self._append(self.frames, text.getvalue())

    def _append(self, path: Path, text: str) -> None:
        content = text.encode()
        with room_for(path), open(path, "ab") as handle:
            handle.write(content)
        self._sums[path] = zlib.crc32(content, self._sums[path])

    def save(self, engine: Any, step: int, outcome: dict[str, Any] | None = None) -> None:
        """Write the checkpoint; at the end of the trajectory with its outcome."""
        state = {**engine.state(), "step": step}
        for path, known in self._sums.items():
            state |= {path.name: path.stat().st_size, f"crc32 {path.name}": known}
        if outcome is not None:
            state["outcome"] = np.array(json.dumps(outcome))
            self.outcome = outcome
        content = io.BytesIO()
        np.savez(content, **state)
        write_atomically(self._checkpoint, lambda path: path.write_bytes(content.getvalue()))
        progress()

    def finish(self, frames: Path, log: Path) -> None:
        """Move frames and log into place and remove the folder."""
        os.replace(self.log, log)
        os.replace(self.frames, frames)
        shutil.rmtree(self.folder)


def _crc32(path: Path) -> int:
    known = 0
    with open(path, "rb") as handle:
        while block := handle.read(2**20):
            known = zlib.crc32(block, known)
    return known
