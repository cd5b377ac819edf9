"""Label a file of structures, resumably: the loop around :mod:`pretraining.labels.pool`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from pretraining.data.readers import unpacked
from pretraining.labels.evaluate import fingerprint, identity, reason_of
from pretraining.labels.journal import Journal
from pretraining.labels.pool import Outcome, evaluate_all
from pretraining.labels.versions import provenance
from pretraining.runtime.errors import UserError, remake
from pretraining.runtime.files import write_atomically, write_json
from pretraining.runtime.stop import say
from pretraining.study.sources import Source

# If none of so many structures can be evaluated, it is not their fault.
HOPELESS = 20


def read_structures(path: Path, index: str = ":", allow_empty: bool = False) -> list[Atoms]:
    """Read structures with any ASE reader; results stored by earlier calculators are dropped.

    Parameters
    ----------
    index
        ``START:STOP``.
    allow_empty
        Whether a file of no bytes is one of no structures.

    Raises
    ------
    UserError
        If the file is missing, unreadable or holds no structure.
    """
    try:
        if allow_empty and path.stat().st_size == 0:
            return []
        with unpacked(path) as plain:
            frames = read(plain, index=index)
    except FileNotFoundError:
        raise UserError(f"no structure file {path}; give an existing one") from None
    except Exception as error:
        raise UserError(f"cannot read structures from {path}: {reason_of(error)}") from error
    frames = frames if isinstance(frames, list) else [frames]
    if not frames:
        raise UserError(f"{path} holds no structure (index {index})")
    for atoms in frames:
        atoms.calc = None
    return frames


def read_reference(path: Path) -> dict[str, float]:
    """Isolated-atom energies (eV) written by ``--write-reference``."""
    try:
        return {key: float(value) for key, value in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        raise UserError(f"no reference file {path}; make it with --write-reference") from None
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{path} is not a JSON object of element: energy: {remake(path)}") from None


def label(
    source: Source,
    frames: list[Atoms],
    reference: dict[str, float],
    out: Path,
    first: int = 0,
    processes: int = 1,
    made: Path | None = None,
) -> list[int]:
    """Label `frames` and write them, in order, to `out` (extended XYZ).

    Parameters
    ----------
    reference
        Isolated-atom energies (eV) by element, subtracted from every energy.
    first
        Number of the first frame, for messages.
    processes
        How many structures are evaluated at once.
    made
        JSON to write: how the labels were made.

    Returns
    -------
    list of int
        Numbers of the structures that could not be evaluated (``on_error: skip``).

    Raises
    ------
    UserError
        If one cannot be evaluated and the source says ``on_error: stop``, or none can. `out` is
        then not written; what is finished is kept for the next start.
    """
    missing = {symbol for atoms in frames for symbol in atoms.get_chemical_symbols()} - set(
        reference
    )
    if missing:
        raise UserError(
            f"source '{source.name}': no isolated-atom energy of {', '.join(sorted(missing))}"
        )
    twins = first_twins(frames)
    journal = Journal(Path(f"{out}.part"), fingerprint(source, reference, frames))
    try:
        _evaluate(source, frames, twins, reference, journal, first, processes)
    finally:
        journal.close()
    if made is not None:
        write_json(made, provenance(source, reference, journal.made_with))
    records = [journal.done[twin] for twin in twins]
    done = [labelled(source, atoms, record) for atoms, record in zip(frames, records)]  # noqa: B905
    write_atomically(out, lambda tmp: write(tmp, done, format="extxyz"))
    os.remove(journal.path)
    return [first + i for i, record in enumerate(records) if "error" in record]


def first_twins(frames: Sequence[Atoms]) -> list[int]:
    """Index of the first structure that is the same as each one, atom for atom."""
    seen: dict[bytes, int] = {}
    return [seen.setdefault(identity(atoms), i) for i, atoms in enumerate(frames)]


def _evaluate(
    source: Source,
    frames: Sequence[Atoms],
    twins: Sequence[int],
    reference: dict[str, float],
    journal: Journal,
    first: int,
    processes: int,
) -> None:
    """Complete the journal."""
    different = sorted(set(twins))
    if len(different) < len(frames):
        repeated = len(frames) - len(different)
        say(f"{repeated} of {len(frames)} structures are repeated: labelled once")
    if journal.done:
        done = len(journal.done)
        say(f"{done} of {len(different)} structures were done before")
    todo = [i for i in different if not _is_settled(journal.done.get(i), source)]
    progress = Progress(len(different), len(todo))
    # Kept back until the source has shown that it works: else the next start would believe them.
    failures: list[dict[str, Any]] = []
    works = any("energy" in record for record in journal.done.values())
    outcomes = evaluate_all(source, [frames[i] for i in todo], processes)
    with closing(outcomes):
        for index, outcome in outcomes:
            i = todo[index]
            if outcome.error is None:
                works = True
                if outcome.made_with is not None:
                    journal.tell_versions(outcome.made_with)
                journal.add(_record(i, outcome, frames[i], reference))
            else:
                say(f"structure {first + i}: {outcome.error}")
                failures.append(_failure(i, outcome, source))
                _judge(source, failures, first, works)
            if works:
                for failure in failures:
                    journal.add(failure)
                failures = []
            progress.advance()
    for failure in failures:
        journal.add(failure)


def _is_settled(record: dict[str, Any] | None, source: Source) -> bool:
    """Whether a structure need not be evaluated again."""
    if record is None or "energy" in record:
        return record is not None
    # An error counts only where it would be skipped today, too.
    return source.on_error == "skip" and source.time_limit <= record.get("time_limit", np.inf)


def _judge(source: Source, failures: list[dict[str, Any]], first: int, works: bool) -> None:
    """Decide whether to go on after a failure."""
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


def _record(i: int, outcome: Outcome, atoms: Atoms, reference: dict[str, float]) -> dict[str, Any]:
    zero = sum(reference[symbol] for symbol in atoms.get_chemical_symbols())
    return {"i": i, "energy": outcome.energy - zero, "forces": outcome.forces.tolist()}


def _failure(i: int, outcome: Outcome, source: Source) -> dict[str, Any]:
    limit = {"time_limit": source.time_limit} if outcome.timed_out else {}
    return {"i": i, "error": outcome.error, **limit}


class Progress:
    """Says every few seconds how far the job is."""

    def __init__(self, total: int, todo: int) -> None:
        self.total = total
        self.todo = todo
        self.count = 0
        self._started = self._said = time.monotonic()

    def advance(self) -> None:
        """Count a structure."""
        self.count += 1
        now = time.monotonic()
        if self.count < self.todo and now - self._said < 2:
            return
        self._said = now
        pace = (now - self._started) / self.count
        left = (self.todo - self.count) * pace
        done = self.total - self.todo + self.count
        say(f"{done}/{self.total}  {pace:.3g} s/structure  {left:.0f} s left")


def labelled(source: Source, atoms: Atoms, record: dict) -> Atoms:
    """A copy with the labels (or the reason why there are none) of this source."""
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
