"""Records: JSON files that say how the files beside them were made, with the SHA-256 of each.

A record holds a digest of its own content too, so that whoever reads a file or its record notices
what was damaged, exchanged or edited since.

Imported in interpreters of label sources: only the standard library and PyYAML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError, remake, whole
from pretraining.runtime.files import digest, file_sha256, write_json

OUTPUTS, DIGEST = "outputs_sha256", "record_digest"


def write_record(
    path: Path, content: dict[str, Any], *outputs: Path, moving: Mapping[str, Path] | None = None
) -> None:
    """Write a record; `outputs` are the finished files beside it that it describes.

    Those that are still to be moved there come by their names, as `moving`.
    """
    content = json.loads(json.dumps(content))
    if files := {file.name: file for file in outputs} | dict(moving or {}):
        content[OUTPUTS] = {name: file_sha256(file) for name, file in files.items()}
    write_json(path, content | {DIGEST: digest(content)})


def read_record(path: Path) -> dict[str, Any]:
    """Read a record; one without a digest, written by hand, is taken as it is.

    Raises a `UserError` if it is no JSON object, or not what was written.
    """
    with whole(path):
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    known = content.pop(DIGEST, None)
    if known is not None and known != digest(content):
        raise UserError(
            f"{path} was changed after it was written (its {DIGEST} differs): {remake(path)}; to "
            f"keep an edit of your own, delete its entry {DIGEST}"
        )
    return content


def record_of(file: Path) -> Path:
    """Return the record beside a file that has one for itself."""
    return file.with_suffix(".provenance.json")


def check_output(file: Path, record: Path | None = None) -> str | None:
    """Raise a `UserError` if a file is another than the one that its record, if any, describes.

    By default the record is that of :func:`record_of`. Returns the file's SHA-256, if recorded.
    """
    record = record_of(file) if record is None else record
    known = read_record(record).get(OUTPUTS, {}).get(file.name) if record.is_file() else None
    if known is not None and known != file_sha256(file):
        raise UserError(
            f"{file} was changed after it was written (its SHA-256 is not that in {record}): "
            f"{remake(file)}; to keep a file of your own, delete the entries {OUTPUTS} and "
            f"{DIGEST} there"
        )
    return known
