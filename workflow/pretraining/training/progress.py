"""How far a run has come, from the files that it keeps itself.

A finished run has ``metrics.json``, an unfinished one its ``state/`` folder, and each that was
started a log. Nothing is asked of Snakemake or of a batch system, so that this can be looked at
while they work, or after they have been killed.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

from pretraining.runtime.lease import SILENCE, worker

# In the order in which they are told.
STATES = ("finished", "diverged", "running", "failed", "stopped", "left")
DONE = ("finished", "diverged")
TAIL_BYTES = 4000
EPOCH = re.compile(r"epoch (\d+): .*?([\d.]+) s$", re.MULTILINE)
FAULT = re.compile(r"^(error: .*|(?:[\w.]+\.)?\w*(?:Error|Exception)\b.*)$", re.MULTILINE)
INTERRUPTION = re.compile(r"^stopped by \w+.*$", re.MULTILINE)


@dataclass(frozen=True)
class Progress:
    """What is known of one run.

    Attributes
    ----------
    state
        ``finished``; ``diverged`` (finished, without a model worth the name); ``running``;
        ``failed`` (ended with an error); ``stopped`` (interrupted or killed: it goes on where it
        was); ``left`` (not started).
    seconds
        Measured time, s: wall time of a finished run, training time so far of another.
    on_gpu
        Whether that was a GPU's; None where nothing says so.
    epoch
        Epochs done by an unfinished run.
    quiet
        Seconds since an unfinished run last wrote something.
    by
        The process that works on it.
    message
        The error of a failed run, or what an interrupted one said; a killed one says nothing.
    """

    state: str
    seconds: float = 0.0
    on_gpu: bool | None = None
    epoch: int | None = None
    quiet: float | None = None
    by: str = ""
    message: str = ""


def log_of(results: str | Path, path: str) -> Path:
    """Return the log of the job that carries out a run, `path` being relative to the results."""
    return Path(results) / "logs" / f"{path.removeprefix('runs/')}.log"


def run_progress(results: str | Path, path: str) -> Progress:
    """Return how far a run has come, whose folder is at `path` below the results folder."""
    folder = Path(results) / path
    try:
        return _finished(folder / "metrics.json")
    except FileNotFoundError:
        pass
    log, state = log_of(results, path), folder / "state"
    last = max(modified(file) for file in (log, state / "train.log", state / "last.ckpt"))
    if not last:
        return Progress("left")
    quiet = time.time() - last
    epochs = EPOCH.findall(_tail(state / "train.log"))
    epoch, seconds = (int(epochs[-1][0]), float(epochs[-1][1])) if epochs else (None, 0.0)
    by = worker(folder / "running.json")
    if by is not None:
        return Progress("running", seconds, None, epoch, quiet, by)
    text = _tail(log)
    faults, interruptions = FAULT.findall(text), INTERRUPTION.findall(text)
    if faults:
        message = faults[-1].removeprefix("error: ")
        return Progress("failed", seconds, None, epoch, quiet, message=message)
    if interruptions:
        return Progress("stopped", seconds, None, epoch, quiet, message=interruptions[-1])
    # Between its start and its first word a run has no lease.
    known = "running" if quiet < SILENCE and not text else "stopped"
    return Progress(known, seconds, None, epoch, quiet)


def _finished(file: Path) -> Progress:
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
        seconds = float(metrics.get("wall_time_s") or 0.0)
    except (ValueError, AttributeError):
        return Progress("failed", message=f"{file} is not whole: delete it")
    device = metrics.get("device")
    state = "diverged" if metrics.get("diverged") else "finished"
    return Progress(state, seconds, None if device is None else device != "cpu")


def modified(file: Path) -> float:
    """Return when a file was last written, s since the epoch; 0 for one that is not there."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _tail(file: Path) -> str:
    """Return the end of a text file; nothing of one that is not there."""
    try:
        with open(file, "rb") as handle:
            handle.seek(max(0, handle.seek(0, 2) - TAIL_BYTES))
            return handle.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
