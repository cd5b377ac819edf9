"""A process that evaluates structures for :mod:`pretraining.labels.pool`.

It talks to its parent through a connection, so a code may print to the log. Messages are pairs:
``making`` and ``made`` a calculator (with warnings), ``refused`` with the reason in one line,
``outcome`` of a structure.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import threading
import time
from multiprocessing.connection import Connection

import numpy as np
from ase import Atoms

from pretraining.labels.calculators import ignored_arguments, versions
from pretraining.labels.evaluate import Evaluator, lacks_code, missing_code, reason_of
from pretraining.labels.pool import START_LIMIT, Outcome
from pretraining.runtime.errors import UserError
from pretraining.study.sources import Source

# A worker ends itself this long after its parent should have done so, s.
GRACE = 60.0


class AnnouncingEvaluator(Evaluator):
    """An evaluator that announces when it makes a calculator, with a time limit."""

    def __init__(self, source: Source, connection: Connection) -> None:
        super().__init__(source)
        self._connection = connection

    def make(self) -> None:
        self._connection.send(("making", None))
        end_after(START_LIMIT)
        super().make()
        end_after(self.source.time_limit)
        arguments = self.source.neutral_kwargs | self.source.kwargs
        kind = self.source.calculator
        self._connection.send(("made", ignored_arguments(kind, arguments, self._calculator)))


def end_after(seconds: float) -> None:
    """Let the system end this process later, in case the parent no longer can."""
    signal.setitimer(signal.ITIMER_REAL, min(seconds + GRACE, 2.0**31))


def end_with(parent: Connection) -> None:
    """End this process and its children when the parent ends."""

    def watch() -> None:
        poll = select.poll()
        poll.register(parent.fileno(), 0)  # only the end of the connection
        poll.poll()
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def serve(connection: Connection) -> None:
    """Evaluate structures until the parent sends None."""
    # A child with an open copy would hide this process's end from the parent.
    os.set_inheritable(connection.fileno(), False)
    end_with(connection)
    source = connection.recv()
    if source.on_error == "stop":
        # Dozens of lines, which would hide all else if crashes are skipped.
        faulthandler.enable()
    evaluate = AnnouncingEvaluator(source, connection)
    made_with = None
    try:
        evaluate.make()
        signal.setitimer(signal.ITIMER_REAL, 0)
        while (task := connection.recv()) is not None:
            end_after(source.time_limit)
            numbers, positions, cell, pbc = task
            atoms = Atoms(numbers, positions=positions, cell=cell, pbc=pbc)
            outcome = evaluated(evaluate, atoms)
            if made_with is None and outcome.error is None:
                # Takes a second or two, which do not count for the structure.
                connection.send(("making", None))
                outcome.made_with = made_with = versions(evaluate.used)
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(("outcome", outcome))
    except UserError as error:
        connection.send(("refused", str(error)))


def evaluated(evaluate: Evaluator, atoms: Atoms) -> Outcome:
    """Energy and forces, or the reason why there are none."""
    started = time.perf_counter()
    try:
        energy, forces = evaluate(atoms)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if lacks_code(error):
            what = f"cannot run {evaluate.source.calculator}"
            raise missing_code(evaluate.source, what, error) from error
        return Outcome(error=reason_of(error), seconds=time.perf_counter() - started)
    return Outcome(energy, np.asarray(forces), seconds=time.perf_counter() - started)
