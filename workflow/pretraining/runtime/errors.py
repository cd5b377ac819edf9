"""Errors for users: one line that names the fault and its cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(ValueError):
    """Wrong input. The message names file, key or structure and the cure."""


def remake(path: str | Path) -> str:
    """Return the command that makes a file again; for Snakemake, deleting it is not enough."""
    return f"make it anew with `snakemake … -R {path}`"


@contextmanager
def whole(path: str | Path) -> Iterator[None]:
    """Turn any error of reading a file of the workflow into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): see to its rights") from error
    except MemoryError as error:
        raise UserError(f"{path} does not fit into the memory of this job") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{path} is damaged ({reason}): {remake(path)}") from error
