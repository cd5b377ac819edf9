"""Evaluate structures in worker processes, so that a crashing code does not kill the job.

A calculator may crash, hang or print. Each runs in a worker (:mod:`pretraining.labels.worker`), a
fresh interpreter because MPI and OpenMP do not survive a fork. A worker keeps its calculator from
structure to structure; a lost worker is replaced.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from ase import Atoms

from pretraining.labels.process import Outcome, Worker
from pretraining.study.sources import Source

__all__ = ["Outcome", "evaluate_all"]

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


def evaluate_all(
    source: Source, frames: Sequence[Atoms], processes: int = 1
) -> Iterator[tuple[int, Outcome]]:
    """Evaluate structures in worker processes.

    A structure that ends its worker is tried once more in another one: an earlier structure or
    the machine may have caused the crash. The workers end with the iterator.

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
        Index of a structure and its outcome, in the order in which they finish.

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
            workers = [worker for worker in workers if worker.alive]
            busy = sum(bool(worker.tasks) for worker in workers)
            missing = min(processes, busy + len(waiting)) - len(workers)
            workers += [Worker(source, environment) for _ in range(missing)]
            for worker in workers:
                worker.fill(waiting, frames)
            for worker in ready(workers):
                tasks = list(worker.tasks)
                outcome = worker.receive()
                if not worker.alive:
                    worker.tasks.clear()
                    # The worker was evaluating the first; the others had not begun.
                    again = tasks[1:]
                    if outcome is not None and not outcome.timed_out and tasks[0] not in tried:
                        tried.add(tasks[0])
                        again, outcome = tasks, None
                    waiting.extendleft(reversed(again))
                # The worker continues while the caller handles the outcome.
                worker.fill(waiting, frames)
                if outcome is not None:
                    yield tasks[0], outcome
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
