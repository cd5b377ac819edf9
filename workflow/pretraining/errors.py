"""The one exception type that is meant to be read by a user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REMAKE = "delete it and run the same command again, which makes it anew"


class UserError(ValueError):
    """Wrong input, said in one line that names what is wrong and how to cure it."""


@contextmanager
def whole(path: str | Path) -> Iterator[None]:
    """Say it in one line if a file that the workflow has made cannot be read.

    Raises
    ------
    UserError
        For whatever the reading raises.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} is damaged ({reason}): {REMAKE}") from error
