"""Files: atomic writing, checksums, JSON and YAML.

Imported in interpreters of label sources: only the standard library and PyYAML.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from pretraining.runtime.errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def digest(content: Any) -> str:
    """Return a short hash of JSON content, independent of the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turn the error of a full disk while writing `path` into a `UserError`."""
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
    for number in NO_ROOM:
        # C libraries put the number or the message into an error of their own.
        known = isinstance(error, OSError) and error.errno == number
        if known or os.strerror(number) in str(error):
            return os.strerror(number)
    cause = error.__cause__ or error.__context__
    return None if cause is None else _why_no_room(cause)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a path beside `path`, then move the file into place."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path):
            write(tmp)
            move_into_place(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def move_into_place(tmp: Path, path: Path) -> None:
    """Rename a file once it is on the disk: some file systems report a full disk only then."""
    with open(tmp, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(tmp, path)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically; create its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON atomically; raise a `ValueError` for a number that is not finite."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda tmp: tmp.write_text(text, encoding="utf-8"))


def difference(file: Path, identity: dict[str, Any]) -> str | None:
    """Return the first entry in which the identity stored in `file` differs; None if equal."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "its identity cannot be read"
    for key, value in identity.items():
        if stored.get(key) != value:
            return f"{key} has changed"
    return None


# The C library's loader, where PyYAML has it, is ten times faster.
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UniqueKeyLoader(SafeLoader):
    """A YAML loader that refuses a repeated key; PyYAML uses the last one."""


def _unique_mapping(loader: UniqueKeyLoader, node: yaml.MappingNode) -> dict:
    keys: list[Any] = []
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in keys:
            line = key_node.start_mark.line + 1
            raise UserError(f"line {line}: key '{key}' is given twice; keep one")
        keys.append(key)
    return loader.construct_mapping(node, deep=True)


UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def read_yaml(path: str | Path, *keys: str) -> dict[str, Any]:
    """Read a YAML file, which must have the given keys; an empty file is an empty mapping.

    Raises a `UserError` if the file is missing, is not a mapping, or has a key twice.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            content = yaml.load(handle, Loader=UniqueKeyLoader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a mapping of keys to values, as config/config.yaml is")
    for key in keys:
        if key not in content:
            raise UserError(f"{path}: key '{key}' is missing")
    return content
