"""What a long job does when it is asked to stop, and how its files appear.

Jobs of label sources use this in their own interpreters: it imports only the standard library.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pretraining.allocation import Watch, has_progressed
from pretraining.errors import UserError

INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: try again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGINT)
END = "the end of its allocation"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Interrupted(BaseException):
    """The run was asked to stop, and goes on when it is started again.

    Not an `Exception`: it may be raised anywhere, and nothing but the run's end may catch it.
    """


class StopRequest:
    """Whether the process has been asked to stop: by a signal, or since its allocation ends.

    Use it as a context manager. Where nothing is lost by it, SIGTERM, SIGUSR1, an interrupt and the
    alarm of :class:`~pretraining.allocation.Watch` raise :class:`Interrupted`; while
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


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Say it in one line if there is no room for what is written to `path`."""
    try:
        yield
    except Exception as error:
        if (why := _why_no_room(error)) is None:
            raise
        raise UserError(
            f"{path} cannot be written ({why}): make room there, then run the same command again; "
            "nothing that was finished before is lost"
        ) from error


def _why_no_room(error: BaseException) -> str | None:
    """Return the system's words if it is a full disk, quota or file that an error comes from."""
    for number in NO_ROOM:
        # Libraries written in C tell the number or the words in a message of their own.
        known = isinstance(error, OSError) and error.errno == number
        if known or os.strerror(number) in str(error):
            return os.strerror(number)
    before = error.__cause__ or error.__context__
    return None if before is None else _why_no_room(before)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a path beside `path`, then move what it wrote into place.

    Raises
    ------
    UserError
        If there is no room for it.
    """
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path):
            write(tmp)
            move_into_place(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def move_into_place(tmp: Path, path: Path) -> None:
    """Rename a file once the disk has it: some systems notice only then that they are full."""
    with open(tmp, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(tmp, path)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically; a number that is not finite is an error."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))


def difference(file: Path, identity: dict[str, Any]) -> str | None:
    """Name the first entry in which a stored identity differs; None if it is the same."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it does not say of which"
    for key, value in identity.items():
        if stored.get(key) != value:
            return f"{key} has changed"
    return None
