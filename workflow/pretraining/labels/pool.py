"""Evaluate structures in processes of their own, so that a code cannot take the program with it.

A calculator may end its process, hang or print whatever it likes: each lives in a worker
(:mod:`.worker`), started as a fresh interpreter, since MPI and OpenMP do not survive a
fork. The worker keeps its calculator from structure to structure and is replaced when it is lost.
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
# What a launcher tells the processes of one MPI program; each worker is a program of its own.
LAUNCHER = ("PMI_", "PMI2_", "PMIX_", "OMPI_")


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
