"""Command-line programs: exit status and log lines.

Imported in interpreters of label sources: only the standard library.
"""

from __future__ import annotations

import argparse
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


class Trust(argparse.Action):
    """``--trust`` opens any model file; ``--trust PATH`` one that names the code of this path."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        text = (
            "open a model file that can run code: alone any file, such as a checkpoint of NequIP's "
            "own training; with import paths, a run's file that names this code"
        )
        super().__init__(
            option_strings, dest, nargs="*", default=False, metavar="IMPORT.PATH", help=text
        )

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values or True)


def log(message: object) -> None:
    """Write a line to stderr; do nothing if the reader of its pipe has ended.

    A batch system that stops a job also stops the program that reads its output.
    """
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        # Python flushes stderr again at its end, and would exit with another status.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
