"""Command-line programs: exit status and log lines.

Imported in interpreters of label sources: only the standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from pretraining.runtime.errors import UserError


def run(main: Callable[[], int | None]) -> None:
    """Run `main` and turn a :class:`UserError` into one line and exit status 1.

    Any other exception is a fault of the program and keeps its traceback.
    """
    try:
        status = main()
    except UserError as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)
        status = 1
    sys.exit(status or 0)


def log(message: object) -> None:
    """Write a line to stderr; do nothing if the reader of its pipe has ended.

    A batch system that stops a job also stops the program that reads its output.
    """
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        # Python flushes stderr again at its end, and would exit with another status.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
