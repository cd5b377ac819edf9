"""The ``state/`` folder of an unfinished run, from which the run resumes.

``identity.json`` identifies the run, ``last.ckpt`` and ``previous.ckpt`` are its checkpoints (the
SHA-256 of the content, then the content), ``train.log`` is the log so far and ``progress.json`` how
far the run has come.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pretraining.runtime.cli import log
from pretraining.runtime.files import difference, room_for, write_atomically, write_json
from pretraining.runtime.lease import Lease
from pretraining.runtime.slurm import progress
from pretraining.training.progress import STATE, write_progress

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
SUM = hashlib.sha256().digest_size
# Least time between two routine lines on stderr, and between two writes of the progress, s.
ROUTINE_SECONDS, PROGRESS_SECONDS = 10.0, 3.0


class RunState:
    """State of one run.

    Parameters
    ----------
    run
        The run's folder.
    identity
        Everything that decides the run's result, as JSON. State of another identity is removed.
    """

    def __init__(self, run: Path, identity: dict[str, Any], lease: Lease) -> None:
        self.folder = run / STATE
        self._lease = lease
        self._progress: dict[str, Any] = {}
        self._routine = self._reported = -math.inf
        file = self.folder / "identity.json"
        known, changed = file.is_file(), difference(file, identity)
        if changed is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = open(self.folder / "train.log", "ab", buffering=0)  # noqa: SIM115
        if known and changed is not None:
            self.log(f"starting afresh: the saved state is of another run ({changed})")
        if changed is not None:
            write_json(file, identity)

    def log(self, message: str, routine: bool = False) -> None:
        """Write a line to the log and to stderr; routine lines to stderr only every 10 s."""
        if not routine or time.monotonic() - self._routine >= ROUTINE_SECONDS:
            log(f"{self._lease.name}: {message}")
            self._routine = time.monotonic()
        with room_for(self.folder / "train.log"):
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n".encode())

    def report(self, routine: bool = False, **facts: Any) -> None:
        """Update the progress, and write it; routine updates are written only every 3 s."""
        self._progress |= facts
        if routine and time.monotonic() - self._reported < PROGRESS_SECONDS:
            return
        write_progress(self.folder.parent, self._progress)
        self._reported = time.monotonic()

    def load(self, check: Callable[[dict[str, Any]], None]) -> dict[str, Any] | None:
        """Return the newest checkpoint that can be used, on the CPU, or None; set others aside.

        `check` raises an error if it is not one of this version of the program.
        """
        damaged = False
        for name in (LAST, PREVIOUS):
            path = self.folder / name
            if not path.is_file():
                continue
            try:
                stored = path.read_bytes()
                if hashlib.sha256(stored[SUM:]).digest() != stored[:SUM]:
                    raise ValueError("its SHA-256 is not that of its content")
                file = io.BytesIO(stored[SUM:])
                content = torch.load(file, map_location="cpu", weights_only=True)
                check(content)
            except Exception as error:
                aside = path.with_suffix(".corrupt")
                os.replace(path, aside)
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                self.log(f"{path} cannot be used ({reason}): set aside as {aside}")
                damaged = True
                continue
            self.log(f"resuming from {path}")
            return content
        if damaged:
            self.log("starting afresh: no saved state can be used")
        return None

    def save(self, content: dict[str, Any]) -> None:
        """Write a checkpoint and keep the one before."""
        self._lease.check()
        last = self.folder / LAST
        # Through memory: PyTorch's own writer does not report a full disk.
        buffer = io.BytesIO()
        torch.save(content, buffer)
        stored = buffer.getbuffer()

        def rotate(path: Path) -> None:
            with open(path, "wb") as handle:
                handle.write(hashlib.sha256(stored).digest())
                handle.write(stored)
            if last.is_file():
                os.replace(last, self.folder / PREVIOUS)

        write_atomically(last, rotate)
        progress()

    def hand_over_log(self, path: Path) -> None:
        """Move the log to `path`; nothing more can be logged."""
        self._log.close()
        os.replace(self.folder / "train.log", path)

    def remove(self) -> None:
        """Remove the folder of a finished run."""
        shutil.rmtree(self.folder)
