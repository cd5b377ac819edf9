"""Label a file of structures, resumably: the loop around :mod:`pretraining.labels`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write

from pretraining.errors import UserError
from pretraining.labels import Evaluator, fingerprint, reason_of
from pretraining.sources import Source


def read_structures(path: Path, index: str = ":") -> list[Atoms]:
    """Read structures with any ASE reader; results stored by earlier calculators are dropped.

    Raises
    ------
    UserError
        If the file is missing, unreadable or holds no structure.
    """
    try:
        frames = read(path, index=index)
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
        raise UserError(f"{path} is not a JSON object of element: energy") from None


class Journal:
    """Finished structures of a job, a JSON line each, in ``<out>.part``.

    The first line holds the job's fingerprint: the journal of another job is not used.
    """

    def __init__(self, path: Path, job: str) -> None:
        self.path = path
        self.done: dict[int, dict] = {}
        keep = 0
        if path.exists():
            lines = path.read_bytes().splitlines(keepends=True)
            if lines and _parse(lines[0]) == {"job": job}:
                keep = len(lines[0])
                for line in lines[1:]:
                    record = _parse(line)
                    if record is None:  # cut off by the kill
                        break
                    self.done[record["i"]] = record
                    keep += len(line)
            else:
                print(f"{path} is of another job: starting afresh", file=sys.stderr)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "r+b" if keep else "wb")  # noqa: SIM115
        self._file.seek(keep)
        self._file.truncate()
        if not keep:
            self._write({"job": job})

    def add(self, record: dict) -> None:
        """Store one finished structure."""
        self.done[record["i"]] = record
        self._write(record)

    def _write(self, record: dict) -> None:
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file, keeping it."""
        self._file.close()


def _parse(line: bytes) -> dict | None:
    """The record of a whole line; None for one that a kill cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def label(
    source: Source, frames: list[Atoms], reference: dict[str, float], out: Path, first: int = 0
) -> list[int]:
    """Label `frames` and write them, in order, to `out` (extended XYZ).

    Parameters
    ----------
    reference
        Isolated-atom energies (eV) by element, subtracted from every energy.
    first
        Number of the first frame, for messages.

    Returns
    -------
    list of int
        Numbers of the structures that could not be evaluated (``on_error: skip``).

    Raises
    ------
    UserError
        If one cannot be evaluated and the source says ``on_error: stop``. `out` is then not
        written; what is finished is kept for the next start.
    """
    missing = {symbol for atoms in frames for symbol in atoms.get_chemical_symbols()} - set(
        reference
    )
    if missing:
        raise UserError(
            f"source '{source.name}': no isolated-atom energy of {', '.join(sorted(missing))}"
        )
    journal = Journal(Path(f"{out}.part"), fingerprint(source, reference, frames))
    if journal.done:
        print(f"{len(journal.done)} of {len(frames)} structures were done before", file=sys.stderr)
    evaluate = Evaluator(source)
    started, count, todo = time.monotonic(), 0, len(frames) - len(journal.done)
    try:
        for i, atoms in enumerate(frames):
            if i in journal.done:
                continue
            try:
                energy, forces = evaluate(atoms)
            except UserError:
                raise
            except Exception as error:
                reason = reason_of(error)
                print(f"structure {first + i}: {reason}", file=sys.stderr)
                if source.on_error == "stop":
                    raise UserError(
                        f"source '{source.name}' cannot evaluate structure {first + i} ({reason}); "
                        "remove it or set the source's on_error: skip"
                    ) from error
                journal.add({"i": i, "error": reason})
            else:
                energy -= sum(reference[symbol] for symbol in atoms.get_chemical_symbols())
                journal.add({"i": i, "energy": energy, "forces": forces.tolist()})
            count += 1
            pace = (time.monotonic() - started) / count
            if count == todo or count % max(1, int(2 / pace)) == 0:
                print(
                    f"{len(journal.done)}/{len(frames)}  {pace:.3g} s/structure  "
                    f"{(todo - count) * pace:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )
    finally:
        journal.close()
    write_atomically(out, [labelled(source, a, journal.done[i]) for i, a in enumerate(frames)])
    os.remove(f"{out}.part")
    return [first + i for i, record in sorted(journal.done.items()) if "error" in record]


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


def write_atomically(out: Path, frames: list[Atoms]) -> None:
    """Write extended XYZ so that `out` appears whole or not at all."""
    partial = f"{out}.tmp"
    write(partial, frames, format="extxyz")
    os.replace(partial, out)
