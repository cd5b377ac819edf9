"""Evaluate structures in worker processes, so that a crashing code does not kill the job.

A calculator may crash, hang or print. Each runs in a worker (:mod:`pretraining.labels.worker`), a
fresh interpreter because MPI and OpenMP do not survive a fork. A worker keeps its calculator from
structure to structure; a lost worker is replaced.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import Any

import numpy as np
from ase import Atoms

from pretraining.runtime.cli import log
from pretraining.runtime.errors import UserError
from pretraining.study.sources import Source, suspects

# Longest time to make a calculator, s: imports from a slow file system, a large potential.
START_LIMIT = 1800.0
# The worker imports from the parent's path.
BOOT = """\
import sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = connection.recv()
from pretraining.labels.worker import serve
serve(connection)
"""
ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Time for an idle worker to end by itself, s.
STOP_LIMIT = 5.0
# Several workers share the cores: one thread each.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Variables of MPI launchers: a worker is not one of the launcher's processes.
LAUNCHER = ("PMI_", "PMI2_", "PMIX_", "OMPI_")


@dataclass
class Outcome:
    """Result of one structure."""

    energy: float = np.nan  # eV, as the code gives it
    forces: np.ndarray | None = None  # (n_atoms, 3), eV/Å
    error: str | None = None  # one line: why there are no labels
    seconds: float = 0.0
    timed_out: bool = False
    # Versions of the code and its libraries; only with the first structure of each process.
    made_with: dict[str, Any] | None = None


class Worker:
    """The parent's side of a worker process."""

    def __init__(self, source: Source, environment: dict[str, str]) -> None:
        self.source = source
        self.task: int | None = None
        self.alive = True
        self._has_started = False
        self._is_making = True
        self.deadline = time.monotonic() + START_LIMIT
        self.connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", BOOT, str(theirs.fileno())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # `end` kills the whole group
            )
        self._send(sys.path)
        self._send(source)

    @property
    def idle(self) -> bool:
        """Whether the worker waits for a structure."""
        return self.alive and not self._is_making and self.task is None

    def take(self, waiting: deque[int], frames: Sequence[Atoms]) -> None:
        """Send the next waiting structure, known by its index, to an idle worker."""
        if self.idle and waiting:
            self.task = waiting.popleft()
            self.deadline = time.monotonic() + self.source.time_limit
            atoms = frames[self.task]
            self._send((atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc))

    def receive(self) -> Outcome | None:
        """Receive a message or notice the worker's end; return an outcome if there is one.

        Raises a `UserError` if the calculator cannot be made.
        """
        if not self.connection.poll():
            return self._overdue()
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            return self._lost()
        if kind == "refused":
            raise UserError(content)
        if kind == "outcome":
            self.task = None
        if kind == "made":
            for warning in content:
                warn(f"sources.{self.source.name}.kwargs: {warning}")
            content = None
        self._is_making = kind == "making"
        self._has_started = self._has_started or not self._is_making
        limit = START_LIMIT if self._is_making else self.source.time_limit
        self.deadline = np.inf if self.idle else time.monotonic() + limit
        return content

    def _overdue(self) -> Outcome | None:
        self.end()
        if not self._has_started:
            raise UserError(
                f"source '{self.source.name}': {self.source.calculator} was not made within "
                f"{START_LIMIT:g} s"
            )
        if self._is_making:
            return Outcome(error=f"making its calculator took longer than {START_LIMIT:g} s")
        limit = self.source.time_limit
        reason = f"took longer than the time_limit of {limit:g} s"
        return Outcome(error=reason, seconds=limit, timed_out=True)

    def _lost(self) -> Outcome | None:
        self.end()
        how = exit_text(self._process.returncode)
        if not self._has_started:
            raise UserError(
                f"source '{self.source.name}': its process ended before {self.source.calculator} "
                f"was made ({how}); {suspects(self.source)}, or make it by hand with "
                f"{sys.executable}"
            )
        if -self._process.returncode in ASKED_TO_END:
            raise UserError(f"source '{self.source.name}': a worker was terminated ({how})")
        return None if self.task is None else Outcome(error=f"killed its process ({how})")

    def _send(self, content: Any) -> None:
        # `receive` notices if the worker has ended.
        with contextlib.suppress(OSError):
            self.connection.send(content)

    def shutdown(self) -> None:
        """Ask an idle worker to end."""
        if self.idle:
            self._send(None)

    def end(self, patience: float = 0.0) -> None:
        """Kill the worker and its processes, after waiting `patience` s for it to end."""
        if not self.alive:
            return
        self.alive = False
        with contextlib.suppress(subprocess.TimeoutExpired):
            if patience:
                self._process.wait(patience)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.connection.close()


@functools.cache
def warn(message: str) -> None:
    """Log a warning once: every worker sends it."""
    log(f"warning: {message}")


def exit_text(code: int) -> str:
    """Exit status of a process in words; negative ones are signals."""
    if code >= 0:
        return f"exit status {code}"
    name = signal.strsignal(-code) or "unknown"
    reason = ", perhaps out of memory" if code == -signal.SIGKILL else ""
    return f"signal {-code}, {name.lower()}{reason}"


def evaluate_all(
    source: Source, frames: Sequence[Atoms], processes: int = 1
) -> Iterator[tuple[int, Outcome]]:
    """Evaluate structures in worker processes.

    A structure that ends its worker is tried once more in another one: an earlier structure or the
    machine may have caused the crash. The workers end with the iterator. Raises a `UserError` if
    the calculator cannot be made, or a worker ends before its calculator is made.

    Yields
    ------
    tuple
        Index of a structure and its outcome, in the order in which they finish.
    """
    waiting = deque(range(len(frames)))
    tried: set[int] = set()
    workers: list[Worker] = []
    environment = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER)}
    if processes > 1:
        environment.update(dict.fromkeys(THREADS, "1"))
    try:
        while waiting or any(worker.task is not None for worker in workers):
            workers = [worker for worker in workers if worker.alive]
            busy = sum(worker.task is not None for worker in workers)
            missing = min(processes, busy + len(waiting)) - len(workers)
            workers += [Worker(source, environment) for _ in range(missing)]
            for worker in workers:
                worker.take(waiting, frames)
            for worker in ready(workers):
                task, outcome = worker.task, worker.receive()
                if outcome is not None and not worker.alive:
                    worker.task = None
                    if not outcome.timed_out and task not in tried:
                        tried.add(task)
                        waiting.appendleft(task)
                        outcome = None
                # The worker continues while the caller handles the outcome.
                worker.take(waiting, frames)
                if outcome is not None:
                    yield task, outcome
    finally:
        for worker in workers:
            worker.shutdown()
        for worker in workers:
            worker.end(STOP_LIMIT if worker.idle else 0.0)


def ready(workers: Sequence[Worker]) -> list[Worker]:
    """Wait for workers that have sent a message, ended or passed their deadline."""
    with selectors.PollSelector() as selector:
        for worker in workers:
            selector.register(worker.connection, selectors.EVENT_READ, worker)
        first = min(worker.deadline for worker in workers)
        timeout = None if first == np.inf else max(0.0, first - time.monotonic())
        heard = [key.data for key, _ in selector.select(timeout)]
    now = time.monotonic()
    return heard + [w for w in workers if w.deadline <= now and w not in heard]
