"""Finished structures of a labelling job, so that it goes on where it was ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pretraining.runtime.files import room_for
from pretraining.runtime.slurm import progress
from pretraining.runtime.stop import say


class Journal:
    """Finished structures of a job, a JSON line each, in ``<out>.part``.

    The first line holds the job's fingerprint: the journal of another job is not used. Others hold
    what a structure became, by its number ``i``, or the versions that it was ``made_with``.
    """

    def __init__(self, path: Path, job: str) -> None:
        self.path = path
        self.done: dict[int, dict[str, Any]] = {}
        self.made_with: list[dict[str, Any]] = []
        keep = 0
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            if lines and _parse(lines[0]) == {"job": job}:
                keep = len(lines[0])
                for line in lines[1:]:
                    record = _parse(line)
                    if record is None:  # cut off by the kill
                        break
                    self._take(record)
                    keep += len(line)
            else:
                say(f"{path} is of another job: starting afresh")
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without a buffer, which would be written again when the file is closed.
        self._file = open(path, "r+b" if keep else "wb", buffering=0)  # noqa: SIM115
        self._file.seek(keep)
        self._file.truncate()
        if not keep:
            self._write({"job": job})

    def add(self, record: dict[str, Any]) -> None:
        """Store one finished structure."""
        self._take(record)
        self._write(record)
        progress()

    def tell_versions(self, made_with: dict[str, Any]) -> None:
        """Store the versions that labels are made with, if they are not those of before."""
        if made_with not in self.made_with[-1:]:
            self.add({"made_with": made_with})

    def _take(self, record: dict[str, Any]) -> None:
        if "made_with" in record:
            self.made_with.append(record["made_with"])
        else:
            self.done[record["i"]] = record

    def _write(self, record: dict[str, Any]) -> None:
        line = json.dumps(record).encode() + b"\n"
        with room_for(self.path):
            while line:
                line = line[self._file.write(line) :]

    def close(self) -> None:
        """Close the file, keeping it."""
        self._file.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record of a whole line; None for one that a kill cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None
