"""Comparisons of what a product was made with and what the configuration wants.

Each raises a `UserError` if they differ.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.runtime.records import OUTPUTS, check_output, read_record, record_of


def record_beside(file: Path) -> dict[str, Any]:
    """Return the record beside a product that has one for itself."""
    return record(record_of(file), file.name)


def record(file: Path, *outputs: str) -> dict[str, Any]:
    """Return a record, whose outputs are as it says; it must describe those named here."""
    if not file.is_file():
        raise UserError(f"it does not say what it was made with: no {file.name}")
    made = read_record(file)
    for name in {**made.get(OUTPUTS, {}), **{name: made[OUTPUTS][name] for name in outputs}}:
        output = file.with_name(name)
        if not output.is_file():
            raise UserError(f"its {name} is missing")
        check_output(output, file)
    return made


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


def plain(value: Any, files: Iterable[str]) -> str:
    """Return arguments of a source as JSON, with these files without their folders."""
    text = json.dumps(value, sort_keys=True)
    for name in files:
        name = re.escape(json.dumps(Path(name).name)[1:-1])
        text = re.sub(rf'(?<=")[^"]*/({name})/?(?=")|[^\s"]*/({name})/?(?=\s)', _last, text)
    return text


def _last(found: re.Match[str]) -> str:
    return found[1] or found[2]
