"""Label a file of structures; an interrupted job resumes after the last finished structure."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from pretraining.data.readers import read_files
from pretraining.data.sanity.soundness import refuse_broken
from pretraining.labels.evaluate import (
    fingerprint,
    identity,
    provenance,
    refuse_written_files,
)
from pretraining.labels.pool import evaluate_all
from pretraining.runtime.cli import log
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import digest, file_sha256, room_for, write_atomically
from pretraining.runtime.records import check_output, write_record
from pretraining.runtime.slurm import progress
from pretraining.study.sources import Source, parameter_files

# If the first 20 structures all fail, the source is at fault.
HOPELESS = 20
# Seconds between two lines of progress.
SAY_EVERY = 2.0


def read_structures(path: Path, index: str = ":", allow_empty: bool = False) -> list[Atoms]:
    """Read structures with any ASE reader; results of earlier calculators are dropped.

    `index` is ``START:STOP``. With `allow_empty` a file of zero bytes holds no structure. Raises a
    `UserError` if the file is missing, unreadable or holds no structure.
    """
    check_output(path)
    if allow_empty and path.is_file() and path.stat().st_size == 0:
        return []
    start, stop = (int(number) if number else None for number in index.split(":"))
    frames = list(islice(read_files([path]), start, stop))
    if not frames:
        raise UserError(f"{path} holds no structure (index {index})")
    for atoms in frames:
        atoms.calc = None
    return frames


def label(
    source: Source,
    frames: list[Atoms],
    reference: dict[str, float],
    out: Path,
    first: int = 0,
    processes: int = 1,
    made: Path | None = None,
    structures: Path | None = None,
) -> list[int]:
    """Label `frames` and write them in order to `out` (extended XYZ).

    Raises a `UserError` if a structure fails and the source has ``on_error: stop``, or if all fail.
    `out` is then not written; the next start keeps the finished structures.

    Parameters
    ----------
    reference
        Isolated-atom energies (eV) by element, subtracted from every energy.
    first
        Number of the first frame, for messages.
    processes
        Number of structures evaluated at once.
    made
        Record to write: how the labels were made.
    structures
        File of the frames, for the record.

    Returns
    -------
    list of int
        Numbers of the structures that could not be evaluated (``on_error: skip``).
    """
    elements = {symbol for atoms in frames for symbol in atoms.symbols}
    missing = ", ".join(sorted(elements - reference.keys()))
    if missing:
        raise UserError(f"source '{source.name}': no isolated-atom energy of {missing}")
    # The first structure that equals each one, atom for atom.
    seen: dict[bytes, int] = {}
    duplicate_of = [seen.setdefault(identity(atoms), i) for i, atoms in enumerate(frames)]
    journal = Journal(Path(f"{out}.part"), fingerprint(source, reference, frames))
    with closing(journal):
        try:
            _evaluate(source, frames, duplicate_of, reference, journal, first, processes)
        except UserError as error:
            raise UserError(f"{structures}: {error}" if structures else str(error)) from error
    records = [journal.done[i] for i in duplicate_of]
    done = [labelled(source, atoms, record) for atoms, record in zip(frames, records, strict=True)]
    write_atomically(out, lambda tmp: write(tmp, done, format="extxyz"))
    if made is not None:
        how = provenance(source, reference, journal.made_with)
        of = {} if structures is None else {"structures_sha256": file_sha256(structures)}
        write_record(made, how | of, out)
    os.remove(journal.path)
    return [first + i for i, record in enumerate(records) if "error" in record]


def check_structures(source: Source, frames: Sequence[Atoms], first: int = 0) -> None:
    """Raise a `UserError` with the first structure that is broken, or of unknown elements.

    Some codes evaluate atoms that they do not know as if they were not there. With ``on_error:
    skip`` a broken structure is skipped later.
    """
    if source.on_error == "stop":
        refuse_broken(frames, first, f" (sources.{source.name}.on_error: skip leaves it out)")
    for number, atoms in enumerate(frames, start=first):
        unknown = sorted(set(atoms.symbols) - set(source.elements or atoms.symbols))
        if unknown:
            raise UserError(
                f"structure {number} has {', '.join(unknown)}, which source '{source.name}' does "
                f"not know (sources.{source.name}.elements: {', '.join(source.elements)}): choose "
                "another source, or add the element if its calculator has it"
            )


def labelled(source: Source, atoms: Atoms, record: dict) -> Atoms:
    """A copy with the labels of this source, or the reason why there are none."""
    atoms = atoms.copy()
    atoms.info.pop(source.energy_key, None)
    atoms.info.pop(source.error_key, None)
    atoms.arrays.pop(source.force_key, None)
    if "error" in record:
        atoms.info[source.error_key] = record["error"]
    else:
        atoms.info[source.energy_key] = record["energy"]
        atoms.arrays[source.force_key] = np.array(record["forces"])
    return atoms


def _evaluate(
    source: Source,
    frames: Sequence[Atoms],
    duplicate_of: Sequence[int],
    reference: dict[str, float],
    journal: Journal,
    first: int,
    processes: int,
) -> None:
    """Evaluate the structures that the journal lacks."""
    different = sorted(set(duplicate_of))
    if len(different) < len(frames):
        repeated = len(frames) - len(different)
        log(f"{repeated} of {len(frames)} structures are repeated: labelled once")
    if journal.done:
        log(f"{len(journal.done)} of {len(different)} structures were done before")
    todo = [i for i in different if not _is_settled(journal.done.get(i), source)]
    files = parameter_files(source)
    started = said = time.monotonic()
    # Stored only after the first success: the next start retries the failures of a broken source.
    failures: list[dict[str, Any]] = []
    works = any("energy" in record for record in journal.done.values())
    with closing(evaluate_all(source, [frames[i] for i in todo], processes)) as outcomes:
        for count, (index, outcome) in enumerate(outcomes, start=1):
            i = todo[index]
            if count == 1:
                refuse_written_files(source, files)
            if outcome.error is None:
                works = True
                if outcome.made_with is not None:
                    journal.add_versions(outcome.made_with)
                zero = sum(reference[symbol] for symbol in frames[i].get_chemical_symbols())
                energy, forces = outcome.energy - zero, outcome.forces.tolist()
                journal.add({"i": i, "energy": energy, "forces": forces})
            else:
                log(f"structure {first + i}: {outcome.error}")
                limit = {"time_limit": source.time_limit} if outcome.timed_out else {}
                failures.append({"i": i, "error": outcome.error, **limit})
                _stop_after(source, failures, first, works)
            while works and failures:
                journal.add(failures.pop(0))
            now = time.monotonic()
            if count == len(todo) or now - said >= SAY_EVERY:
                said, left = now, len(todo) - count
                pace = (now - started) / count
                done = f"{len(different) - left}/{len(different)}"
                log(f"{done}  {pace:.3g} s/structure  {left * pace:.0f} s left")
    for failure in failures:
        journal.add(failure)


def _is_settled(record: dict[str, Any] | None, source: Source) -> bool:
    if record is None or "energy" in record:
        return record is not None
    # An error counts only if today's settings would skip it as well.
    return source.on_error == "skip" and source.time_limit <= record.get("time_limit", np.inf)


def _stop_after(source: Source, failures: list[dict[str, Any]], first: int, works: bool) -> None:
    number, reason = first + failures[-1]["i"], failures[-1]["error"]
    if source.on_error == "stop":
        raise UserError(
            f"source '{source.name}' cannot evaluate structure {number} ({reason}); "
            "remove it or set the source's on_error: skip"
        )
    if not works and len(failures) == HOPELESS:
        raise UserError(
            f"source '{source.name}' cannot evaluate any of the first {HOPELESS} structures "
            f"(structure {number}: {reason}): look for the fault in the source, not in them"
        )


class Journal:
    """Finished structures of a job, a line each, in ``<out>.part``: a digest and JSON.

    The first line holds the job's fingerprint; the journal of another job is discarded. The others
    hold the result of a structure by its number ``i``, or the versions it was ``made_with``.
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
                    if record is None:
                        break
                    self._take(record)
                    keep += len(line)
            else:
                log(f"{path} is of another job: starting afresh")
        with room_for(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered: after a failed write, closing must not write the rest.
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

    def add_versions(self, made_with: dict[str, Any]) -> None:
        """Store the versions of the code if they differ from the last ones."""
        if made_with not in self.made_with[-1:]:
            self.add({"made_with": made_with})

    def _take(self, record: dict[str, Any]) -> None:
        if "made_with" in record:
            self.made_with.append(record["made_with"])
        else:
            self.done[record["i"]] = record

    def _write(self, record: dict[str, Any]) -> None:
        line = f"{digest(record)} {json.dumps(record)}\n".encode()
        with room_for(self.path):
            while line:
                line = line[self._file.write(line) :]

    def close(self) -> None:
        self._file.close()


def _parse(line: bytes) -> dict[str, Any] | None:
    """The record of a line; None if the line was cut off or damaged."""
    try:
        known, text = line.decode().split(" ", 1)
        record = json.loads(text)
        return record if line.endswith(b"\n") and digest(record) == known else None
    except ValueError:
        return None
