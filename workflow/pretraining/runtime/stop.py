"""Stop a long job between steps on a signal or at the end of its Slurm allocation.

Imported in interpreters of label sources: only the standard library.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from pretraining.runtime.cli import log
from pretraining.runtime.errors import UserError
from pretraining.runtime.slurm import Watch, has_progressed

INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: try again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGINT)
END = "the end of its allocation"


class Interrupted(BaseException):
    """The run stops and resumes when it is started again.

    Not an `Exception`: it may be raised anywhere, and only the end of the run may catch it.
    """


class StopRequest:
    """Whether a signal or the end of the allocation has asked the process to stop.

    A context manager, within which SIGTERM, SIGUSR1, SIGINT and the alarm of
    :class:`~pretraining.runtime.slurm.Watch` raise :class:`Interrupted`. While :attr:`deferred` is
    set they do not: the run checks the request's truth value between steps. A second SIGINT ends
    the process at once.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self.deferred = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        self._watch = Watch()
        return self

    def __exit__(self, *_: object) -> None:
        self._watch.end()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def listen(self) -> None:
        """Handle the signals; call it again after a library has set handlers of its own."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def __bool__(self) -> bool:
        return self.signal is not None

    def leave(self, message: object) -> int:
        """Log `message` and return the exit status of an interrupted program.

        At the end of an allocation, the Slurm job is requeued; a `UserError` says if nothing was
        saved in it. After a signal it is not requeued: somebody may have cancelled it.
        """
        log(message)
        if self.signal == END:
            if not has_progressed():
                raise UserError(
                    "nothing could be saved in this allocation, nor could it in the next: allow "
                    "longer ones (max_runtime of the profile)"
                )
            log(f"Slurm job {self._watch.job} is requeued and resumes from there")
            refused = self._watch.requeue()
            log(
                f"it was not requeued ({refused}): the job fails here and resumes when Snakemake "
                "retries it (option --retries)"
            )
        return INTERRUPTED

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = END if number == signal.SIGALRM else signal.Signals(number).name
        if not self.deferred:
            raise Interrupted(f"stopped by {self.signal}; run the same command again to resume")
