"""Trainings and dynamics that are stopped on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from pretraining.training.run import Request, train


def wait_for(
    text: str, log: Path, process: subprocess.Popen | None = None, seconds: float = 120
) -> None:
    """Wait until a log says something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if log.is_file() and text in log.read_text():
            return
        assert process is None or process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    raise TimeoutError(text)


def start(request: Request) -> subprocess.Popen:
    """Start a direct training as a program of its own, from the repository's root."""
    command = [sys.executable, "workflow/scripts/train.py", "--kind", "direct"]
    for name in ("data", "n", "seed", "settings", "out"):
        command += [f"--{name}", str(getattr(request, name))]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def interrupt(request: Request, when: str = "epoch 3:", number: int = signal.SIGUSR1) -> int:
    """Carry out a run in this process, signal it when its log says `when`; return its status."""

    def send() -> None:
        wait_for(when, request.out / "state" / "train.log")
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    status = train(request)
    thread.join()
    return status


class StopAt:
    """A stop request of dynamics that comes after so many looks."""

    signal, deferred = "SIGTERM", False

    def __init__(self, looks: int) -> None:
        self.left = looks

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left <= 0

    def listen(self) -> None:
        pass
