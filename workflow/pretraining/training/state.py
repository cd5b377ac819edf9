"""The folder in which an unfinished run keeps what it needs to go on.

``identity.json`` says which run it is, ``last.ckpt`` and ``previous.ckpt`` hold what it goes on
with, ``train.log`` is the log so far. The folder is removed when the run has finished.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pretraining.runtime.files import difference, room_for, write_atomically, write_json
from pretraining.runtime.lease import Lease
from pretraining.runtime.slurm import progress
from pretraining.runtime.stop import say
from pretraining.training.network.checkpoint import check_sums

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
ROUTINE_SECONDS = 10.0


class RunState:
    """State of one run, in ``state/`` of its folder.

    Parameters
    ----------
    folder
        The run's folder.
    identity
        All that decides what the run computes, as JSON. State of another identity is removed.
    lease
        The right to change it.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], lease: Lease) -> None:
        self.folder = folder / "state"
        self._lease = lease
        self._routine = -ROUTINE_SECONDS
        file = self.folder / "identity.json"
        stale = difference(file, identity) if self.folder.is_dir() else None
        if stale is not None:
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log = open(self.folder / "train.log", "ab", buffering=0)  # noqa: SIM115
        if stale is not None:
            self.log(f"starting afresh: the saved state is of another run ({stale})")
        if not file.is_file():
            write_json(file, identity)

    def log(self, message: str, routine: bool = False) -> None:
        """Write a line to the log and to stderr; there, routine lines only every so often."""
        if not routine or time.monotonic() - self._routine >= ROUTINE_SECONDS:
            # Several runs may print at once.
            say(f"{self._lease.name}: {message}")
            self._routine = time.monotonic()
        with room_for(self.folder / "train.log"):
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n".encode())

    def load(self) -> dict[str, Any] | None:
        """Return the newest checkpoint that can be read, on the CPU, or None.

        One that cannot be read is set aside, and said so.
        """
        lost = False
        for name in (LAST, PREVIOUS):
            path = self.folder / name
            if not path.is_file():
                continue
            try:
                check_sums(path)
                # The run's own file, holding more than tensors.
                content = torch.load(path, map_location="cpu", weights_only=False)
                content["module"], content["optimizer"], content["rows"]
            except Exception as error:
                aside = path.with_suffix(".corrupt")
                os.replace(path, aside)
                self.log(f"{path} cannot be read ({type(error).__name__}): set aside as {aside}")
                lost = True
                continue
            self.log(f"going on from {path}")
            return content
        if lost:
            self.log("starting afresh: no saved state can be read")
        return None

    def save(self, write: Callable[[Path], Any]) -> None:
        """Write a checkpoint by `write`, keeping the one before."""
        self._lease.check()
        last = self.folder / LAST

        def rotate(path: Path) -> None:
            write(path)
            if last.is_file():
                os.replace(last, self.folder / PREVIOUS)

        write_atomically(last, rotate)
        progress()

    def hand_over_log(self, path: Path) -> None:
        """Move the log to `path`; nothing more can be logged."""
        self._log.close()
        os.replace(self.folder / "train.log", path)

    def remove(self) -> None:
        """Remove the folder: the run has finished."""
        shutil.rmtree(self.folder)
