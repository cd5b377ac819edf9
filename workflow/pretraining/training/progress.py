"""How far a run has come: ``metrics.json`` of a finished run, else its ``state/progress.json``.

A run writes ``progress.json`` every few seconds while it trains, and once more when it stops or
fails. Reading it needs neither Snakemake nor a batch system, also after both have been killed.
"""

from __future__ import annotations

import json
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretraining.runtime.cli import INTERRUPTED
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_json
from pretraining.runtime.lease import SILENCE, worker

# In the order of the summary.
STATES = ("finished", "diverged", "running", "failed", "stopped", "left")
DONE = ("finished", "diverged")
LEASE, STATE, FILE = "running.json", "state", "progress.json"


@dataclass(frozen=True)
class Progress:
    """State of one run.

    Attributes
    ----------
    state
        Of :data:`STATES`. A ``diverged`` run has finished without a useful model, a ``stopped`` one
        resumes, one that is ``left`` has not started.
    seconds
        Measured time, s: wall time of a finished run, training time so far of another.
    on_gpu
        None if unknown.
    epoch, quiet
        Of an unfinished run: epochs done, and seconds since it last wrote something.
    by, phase
        The process that works on it, and what it does: ``starting``, ``compiling``, ``training`` or
        ``evaluating``.
    message
        Error of a failed run, or why a run was interrupted; empty for a killed one.
    """

    state: str
    seconds: float = 0.0
    on_gpu: bool | None = None
    epoch: int | None = None
    quiet: float | None = None
    by: str = ""
    phase: str = ""
    message: str = ""


def write_progress(folder: Path, facts: dict[str, Any]) -> None:
    """Write the ``progress.json`` of the run in `folder`, with the time and the host."""
    here = {"time": round(time.time(), 1), "host": platform.node()}
    write_json(folder / STATE / FILE, facts | here)


def record_end(folder: Path, phase: str, message: str) -> None:
    """Record why a run ends early (``stopped``, ``failed``), unless another process works on it."""
    if not folder.is_dir() or worker(folder / LEASE) is not None:
        return
    facts = read_progress(folder) | {"phase": phase, "message": " ".join(message.split())}
    try:
        (folder / STATE).mkdir(exist_ok=True)
        write_progress(folder, facts)
    except (OSError, UserError):
        pass  # The reason itself may be a full disk.


def read_progress(folder: Path) -> dict[str, Any]:
    """Return the content of a run's ``progress.json``; empty if it cannot be read."""
    try:
        return json.loads((folder / STATE / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def log_of(results: str | Path, path: str) -> Path:
    """Return the log of the job that carries out a run; `path` is relative to the results."""
    return Path(results) / "logs" / f"{path.removeprefix('runs/')}.log"


def run_progress(results: str | Path, path: str) -> Progress:
    """Return how far a run has come; `path` is its folder, relative to the results."""
    folder = Path(results) / path
    try:
        return _finished(folder / "metrics.json")
    except FileNotFoundError:
        pass
    log = log_of(results, path)
    facts = read_progress(folder)
    last = max(modified(log), facts.get("time", 0.0))
    if not last:
        return Progress("left")
    quiet = time.time() - last
    device = facts.get("device")
    on_gpu = None if device is None else device != "cpu"
    measured = facts.get("train_time_s", 0.0), on_gpu, facts.get("epoch"), quiet
    by = worker(folder / LEASE)
    if by is not None:
        return Progress("running", *measured, by, facts.get("phase", ""))
    try:
        text = log.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        text = ""
    if not text and quiet < SILENCE:
        # It starts: a run has no lease before its first message.
        return Progress("running", *measured)
    if not facts and text and not text.endswith(INTERRUPTED):
        return Progress("failed", *measured, message=text.splitlines()[-1])
    phase = "failed" if facts.get("phase") == "failed" else "stopped"
    return Progress(phase, *measured, message=facts.get("message", ""))


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
    """Return when a file was last written, s since the epoch; 0 if there is none."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
