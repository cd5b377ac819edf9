"""Files that appear whole or not at all, and their checksums.

Jobs of label sources use this in their own interpreters: it imports only the standard library."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def write_text(path: str | Path, text: str) -> None:
    """Write a whole file or nothing, creating its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))
