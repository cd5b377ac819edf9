"""Files: atomic writing, checksums, JSON and YAML.

Imported in interpreters of label sources: only the standard library and PyYAML.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

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


@contextlib.contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turn an error of the file system while writing `path` into a `UserError`."""
    try:
        yield
    except Exception as error:
        if (why := _why_no_room(error)) is not None:
            cure = "make room there, then run the same command again"
        elif isinstance(error, OSError) and _concerns(error, path):
            blocked = isinstance(error, (FileExistsError, NotADirectoryError))
            why = "a file is in the place of its folder" if blocked else error.strerror
            cure = "give a path that can be written"
        else:
            raise
        raise UserError(
            f"{path} cannot be written ({why}): {cure}; nothing that was finished before is lost"
        ) from error


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is of a file's folder or of its disk."""
    if error.filename is None:
        return error.errno in (errno.EIO, errno.EROFS, errno.ESTALE)
    place = Path(os.fsdecode(error.filename))
    return place.parent == path.parent or place in path.parents


def _why_no_room(error: BaseException) -> str | None:
    for number in NO_ROOM:
        # C libraries put the number or the message into an error of their own.
        known = isinstance(error, OSError) and error.errno == number
        if known or os.strerror(number) in str(error):
            return os.strerror(number)
    cause = error.__cause__ or error.__context__
    return None if cause is None else _why_no_room(cause)


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` with a path beside `path`, then move the file into place; create its folder."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with room_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write(tmp)
            move_into_place(tmp, path)
    finally:
        remove(tmp)


def remove(path: Path) -> None:
    """Remove a temporary file, if it is there; an error here would hide the first one."""
    with contextlib.suppress(OSError):
        path.unlink()


def move_into_place(tmp: Path, path: Path) -> None:
    """Rename a file once it is on the disk: some file systems report a full disk only then."""
    with open(tmp, "rb") as handle:
        os.fsync(handle.fileno())
    os.replace(tmp, path)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    path = Path(path)
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
        merges = key_node.tag == "tag:yaml.org,2002:merge"
        key = "<<" if merges else loader.construct_object(key_node, deep=True)
        if key in keys:
            line = key_node.start_mark.line + 1
            cure = "write <<: [*first, *second]" if merges else "keep one"
            raise UserError(f"line {line}: key '{key}' is given twice; {cure}")
        keys.append(key)
    return loader.construct_mapping(node, deep=True)


UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


# A configuration has hundreds.
MOST_VALUES = 1_000_000
# What PyYAML says, and the cure in our words.
YAML_CURES = {
    "cannot start any token": "indent with spaces, not tabs; quote a value that begins with a sign",
    "recursive node": "an alias (*) cannot stand inside its own anchor (&)",
    "unhashable key": "a key is a word or a number",
}


def read_yaml(path: str | Path, *keys: str) -> dict[str, Any]:
    """Read a YAML file, which must have the given keys; an empty file is an empty mapping.

    Raises a `UserError`, with line and column, if the file is missing, is not YAML in UTF-8, is not
    a mapping, or has a key twice.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
        content = yaml.load(text, Loader=UniqueKeyLoader)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(_yaml_fault(path, error)) from None
    except (RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path} is not valid YAML: {reason}") from None
    if _values(content, {}) > MOST_VALUES:
        raise UserError(f"{path}: its aliases (*) stand for more than {MOST_VALUES:,} values")
    content = {} if content is None else content
    if not isinstance(content, dict):
        raise UserError(f"{path} must be a mapping of keys to values, as config/config.yaml is")
    for key in keys:
        if key not in content:
            raise UserError(f"{path}: key '{key}' is missing")
    return content


class Section(dict):
    """A mapping within a file; a missing key raises a `UserError` with file and key."""

    def __init__(self, content: dict[str, Any], where: str) -> None:
        self.where = where
        for key, value in content.items():
            self[key] = Section(value, f"{where}{key}.") if isinstance(value, dict) else value

    def __missing__(self, key: str) -> NoReturn:
        raise UserError(f"{self.where}{key} is missing")


def read_section(path: str | Path, *names: str) -> Section:
    """Read a section of a YAML file, or one within it; all of `names` must be mappings."""
    content = Section(read_yaml(path, names[0]), f"{path}: ")
    for name in names:
        content = content[name]
        if not isinstance(content, Section):
            raise UserError(f"{path}: '{name}' must be a mapping of keys to values")
    return content


def _values(content: Any, known: dict[int, int]) -> int:
    """Number of values, those behind an alias counted each time."""
    if not isinstance(content, (dict, list)):
        return 1
    if id(content) not in known:
        parts = content.values() if isinstance(content, dict) else content
        known[id(content)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(content)]


def mapping(text: str) -> dict[str, Any]:
    """Read an argument of a program that is a mapping in YAML."""
    try:
        content = yaml.load(text, Loader=UniqueKeyLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no mapping in YAML, as '{{key: value}}' is")
    return content


def _yaml_fault(path: str | Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    cure = next((f": {cure}" for sign, cure in YAML_CURES.items() if sign in reason), "")
    where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{path}{where}: not valid YAML ({reason}){cure}"
