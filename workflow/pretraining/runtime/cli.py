"""What every command-line program of the workflow shares."""

from __future__ import annotations

import sys
from collections.abc import Callable

from pretraining.runtime.errors import UserError


def run(main: Callable[[], int | None]) -> None:
    """Run `main` and turn a :class:`UserError` into one line and exit status 1.

    Any other exception keeps its traceback: it is a fault of the program, not of its input.
    """
    try:
        status = main()
    except UserError as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)
        status = 1
    sys.exit(status or 0)
