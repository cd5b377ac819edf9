"""The one exception type that is meant to be read by a user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(ValueError):
    """Wrong input, said in one line that names what is wrong and how to cure it."""


def remake(path: str | Path) -> str:
    """Return how a file that the workflow has made is made anew.

    To delete it is not enough: Snakemake misses no file from which nothing has to be made.
    """
    return f"make it anew with `snakemake … -R {path}`"


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
        raise UserError(f"{path} is damaged ({reason}): {remake(path)}") from error
