"""What a long job does when it is asked to stop, and how its files appear.

Jobs of label sources use this in their own interpreters: it imports only the standard library.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.runtime.slurm import Watch, has_progressed

INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: try again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGINT)
END = "the end of its allocation"


class Interrupted(BaseException):
    """The run was asked to stop, and goes on when it is started again.

    Not an `Exception`: it may be raised anywhere, and nothing but the run's end may catch it.
    """


class StopRequest:
    """Whether the process has been asked to stop: by a signal, or since its allocation ends.

    Use it as a context manager. Where nothing is lost by it, SIGTERM, SIGUSR1, an interrupt and the
    alarm of :class:`~pretraining.runtime.slurm.Watch` raise :class:`Interrupted`; while
    :attr:`deferred` is set, they wait to be looked at between steps. A second interrupt from the
    keyboard ends the process at once.
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
        """Handle the signals here; to be called again when a library has put itself before."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def __bool__(self) -> bool:
        return self.signal is not None

    def leave(self, message: object) -> int:
        """Say that the run is interrupted, let it go on in another allocation if its own has ended.

        A run that was asked to stop by a signal stops: somebody may have cancelled it.

        Parameters
        ----------
        message
            What to say.

        Returns
        -------
        int
            The program's exit status.

        Raises
        ------
        UserError
            If nothing was saved since the allocation began: so it would be in the next one.
        """
        say(message)
        if self.signal == END:
            if not has_progressed():
                raise UserError(
                    "nothing could be saved in this allocation, and another like it would be no "
                    "better: allow longer ones (max_runtime of the profile)"
                )
            say(f"Slurm job {self._watch.job} goes back into the queue, and goes on from there")
            refused = self._watch.requeue()
            say(
                f"it was not put back ({refused}): the job fails here, and goes on when Snakemake "
                "tries again, as often as its option --retries says"
            )
        return INTERRUPTED

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = END if number == signal.SIGALRM else signal.Signals(number).name
        if not self.deferred:
            raise Interrupted(f"stopped by {self.signal}; run the same command again to go on")


def say(message: object) -> None:
    """Write a line to stderr, if anyone still reads it.

    A batch system that stops a job stops the program at the other end of the pipe as well.
    """
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        # Python would try again at its end, and fail there with a status of its own.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
