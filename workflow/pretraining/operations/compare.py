"""Comparisons of what a product was made with and what the configuration wants.

Each raises a `UserError` if they differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256
from pretraining.runtime.records import OUTPUTS, check_output, read_record

sha256 = cache(file_sha256)


def record_for(file: Path, of: Path | None = None) -> dict[str, Any]:
    """Return a record, which must describe the file `of`, if one is given."""
    if not file.is_file():
        raise UserError(f"it does not say what it was made with: no {file.name}")
    record = read_record(file)
    if of is not None:
        if not of.is_file():
            raise UserError(f"its {of.name} is missing")
        record[OUTPUTS][of.name]
        check_output(of, file)
    return record


def equal(what: str, made: Any, wanted: Any) -> None:
    """Compare JSON values; `what` names that of another making."""
    if made != json.loads(json.dumps(wanted)):
        raise UserError(f"it was made with {what}")


def equal_keys(made: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Compare settings."""
    for key in {**made, **wanted}:
        equal(f"another {key}", made.get(key), wanted.get(key))


def present(file: Path) -> Path:
    """Return a file that a product was made from, if it is there."""
    if not file.is_file():
        raise UserError(f"{file} is missing, which it was made from: copy that as well")
    return file


def plain(value: Any, names: set[str]) -> Any:
    """Return arguments of a source with files of these names without their folders."""
    if isinstance(value, Mapping):
        return {key: plain(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item, names) for item in value]
    if isinstance(value, str):
        if Path(value).name in names:
            return Path(value).name
        words = [(word, Path(word).name) for word in value.split()]
        return " ".join(name if name in names else word for word, name in words)
    return value


def same_files(made: Mapping[str, str], here: Mapping[str, Path]) -> None:
    """Compare the SHA-256 of files that were read, by name, with those that are here."""
    for name, path in here.items():
        if path.is_file() and made.get(name) != sha256(path):
            raise UserError(f"{path} was another file there")
