"""Evaluate structures in processes of their own, so that a code cannot take the program with it.

A calculator may end its process, hang or print whatever it likes: each lives in a worker
(:mod:`pretraining.worker`), started as a fresh interpreter, since MPI and OpenMP do not survive a
fork. The worker keeps its calculator from structure to structure and is replaced when it is lost.
"""

from __future__ import annotations

import contextlib
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

from pretraining.errors import UserError
from pretraining.sources import Source

# Longest time for making a calculator, s: imports from a slow file system, a large potential.
START_LIMIT = 1800.0
# How long a worker that is no longer needed may take to end, s.
STOP_LIMIT = 5.0
# Several workers share the cores: one thread each.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# A structure that takes less than this, s, is followed at once by the next.
QUICK = 0.1
# Structures of up to so many atoms fit into the buffer of a connection on every system.
BUFFERED_ATOMS = 200
# The parent's path, so that the worker finds what the parent finds.
BOOT = """\
import sys
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:] = connection.recv()
from pretraining.worker import serve
serve(connection)
"""
# What a launcher tells the processes of one MPI program; each worker is a program of its own.
LAUNCHER = ("PMI_", "PMI2_", "PMIX_", "OMPI_")
ASKED_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass
class Outcome:
    """What became of one structure.

    Attributes
    ----------
    energy
        eV, as the code gives it.
    forces
        (n_atoms, 3), eV/Å.
    error
        In one line, why there are no labels.
    seconds
        Time that the evaluation took.
    timed_out
        Whether it was given up because of the source's `time_limit`.
    made_with
        Versions of the code and of what it runs on, with the first structure of each process.
    """

    energy: float = np.nan
    forces: np.ndarray | None = None
    error: str | None = None
    seconds: float = 0.0
    timed_out: bool = False
    made_with: dict[str, Any] | None = None


def evaluate_all(
    source: Source, frames: Sequence[Atoms], processes: int = 1
) -> Iterator[tuple[int, Outcome]]:
    """Evaluate structures in worker processes.

    A structure that ends its worker is tried once more in another one, since the fault may have
    been an earlier structure's, or the machine's. The workers end with the iterator.

    Parameters
    ----------
    source
        Label source.
    frames
        Structures; only elements, positions, cell and periodic directions count.
    processes
        Number of workers.

    Yields
    ------
    tuple
        Index of a structure and its outcome, in the order in which they are done.

    Raises
    ------
    UserError
        If the calculator cannot be made, or a worker ends before its calculator is made.
    """
    waiting = deque(range(len(frames)))
    tried: set[int] = set()
    workers: list[Worker] = []
    environment = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER)}
    if processes > 1:
        environment.update(dict.fromkeys(THREADS, "1"))
    try:
        while waiting or any(worker.tasks for worker in workers):
            lost = len(workers)
            workers = [worker for worker in workers if worker.alive]
            busy = sum(bool(worker.tasks) for worker in workers)
            missing = min(processes, busy + len(waiting)) - len(workers)
            workers += [Worker(source, environment) for _ in range(missing)]
            if missing or len(workers) != lost:
                selector = listen_to(workers)
            for worker in workers:
                worker.fill(waiting, frames)
            for worker in ready(workers, selector):
                tasks = list(worker.tasks)
                outcome = worker.hear()
                if not worker.alive:
                    worker.tasks.clear()
                    # Only the first was being evaluated.
                    again = tasks[1:]
                    if outcome is not None and not outcome.timed_out and tasks[0] not in tried:
                        tried.add(tasks[0])
                        again, outcome = tasks, None
                    waiting.extendleft(reversed(again))
                # The worker goes on while the caller deals with the outcome.
                worker.fill(waiting, frames)
                if outcome is not None:
                    yield tasks[0], outcome
    finally:
        for worker in workers:
            worker.dismiss()
        for worker in workers:
            worker.end(STOP_LIMIT if worker.idle else 0.0)


def listen_to(workers: Sequence[Worker]) -> selectors.BaseSelector:
    """Selector of the workers' connections."""
    selector = selectors.PollSelector()
    for worker in workers:
        selector.register(worker.connection, selectors.EVENT_READ, worker)
    return selector


def ready(workers: Sequence[Worker], selector: selectors.BaseSelector) -> list[Worker]:
    """Wait for workers that have something to say, have ended or are overdue."""
    first = min(worker.deadline for worker in workers)
    timeout = None if first == np.inf else max(0.0, first - time.monotonic())
    heard = [key.data for key, _ in selector.select(timeout)]
    now = time.monotonic()
    return heard + [w for w in workers if w.deadline <= now and w not in heard]


class Worker:
    """The parent's side of a worker process."""

    def __init__(self, source: Source, environment: dict[str, str]) -> None:
        self.source = source
        self.tasks: deque[int] = deque()
        self.alive = True
        self._is_quick = False
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
                start_new_session=True,  # to be ended with all that it has started
            )
        self._send(sys.path)
        self._send(source)

    @property
    def idle(self) -> bool:
        """Whether it waits for a structure."""
        return self.alive and not self._is_making and not self.tasks

    def fill(self, waiting: deque[int], frames: Sequence[Atoms]) -> None:
        """Give it structures, known by their index: one, and a second one if it is quick.

        The second one lies in the connection's buffer until then, which must have room for it.
        """
        while self.alive and not self._is_making and waiting:
            atoms = frames[waiting[0]]
            if self.tasks and (
                len(self.tasks) > 1 or not self._is_quick or len(atoms) > BUFFERED_ATOMS
            ):
                return
            if not self.tasks:
                self.deadline = time.monotonic() + self.source.time_limit
            self.tasks.append(waiting.popleft())
            self._send((atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc))

    def hear(self) -> Outcome | None:
        """Take its message, or its end; an outcome if that decides the structure's fate.

        Raises
        ------
        UserError
            If it has no calculator, and there is no point in starting another one.
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
            self.tasks.popleft()
            self._is_quick = content.seconds < QUICK
        self._is_making = kind == "making"
        self._has_started = self._has_started or not self._is_making
        limit = START_LIMIT if self._is_making else self.source.time_limit
        self.deadline = time.monotonic() + limit if self.tasks or self._is_making else np.inf
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
                f"was made ({how}); try to import it with {sys.executable}"
            )
        if -self._process.returncode in ASKED_TO_END:
            raise UserError(f"source '{self.source.name}': a process was told to end ({how})")
        return Outcome(error=f"killed its process ({how})") if self.tasks else None

    def _send(self, content: Any) -> None:
        # That it has ended is found out when it is listened to.
        with contextlib.suppress(OSError):
            self.connection.send(content)

    def dismiss(self) -> None:
        """Tell it, if it waits for a structure, that there is none."""
        if self.idle:
            self._send(None)

    def end(self, patience: float = 0.0) -> None:
        """End it, and all that it has started; it may take so long to do so itself (s)."""
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


def exit_text(code: int) -> str:
    """How a process ended, from its exit status, which is negative for a signal."""
    if code >= 0:
        return f"exit status {code}"
    name = signal.strsignal(-code) or "unknown"
    reason = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
    return f"signal {-code}, {name.lower()}{reason}"
