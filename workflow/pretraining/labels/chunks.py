"""Chunks: parts of a prepared set that go to a label source and are joined to a labelled set.

A chunk is an extended XYZ file. ``eval`` holds the validation and test structures; ``00000``,
``00001``, … hold the training pool in its order, a fixed number of structures each. A structure
that repeats an earlier one of the set is left out (a chunk may be empty) and takes the earlier
one's label. Each structure carries its raw ``index``, which identifies it when it comes back.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import write

from pretraining.data.energy_references import Reference, make_reference
from pretraining.data.readers import read_files
from pretraining.data.store import Store, StoreWriter
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_atomically
from pretraining.runtime.records import OUTPUTS, check_output, read_record, record_of, write_record
from pretraining.study.sources import DECISIVE_KEYS

EVAL = "eval"
# Extended XYZ keeps eight decimals of a position.
TOLERANCE = 1e-6
# Entries of the provenance that all chunks must share.
DECISIVE = (*DECISIVE_KEYS, "parameter_files_sha256", "isolated_atoms_ev")


def chunk_rows(store: Store, chunk: str, size: int, last: int) -> range:
    """Rows of a prepared set that make up a chunk.

    Raises a `UserError` if there is no such chunk, or the pool has fewer than `last` structures.

    Parameters
    ----------
    chunk
        ``eval``, or the chunk's number as in its name.
    size, last
        Number of training structures in a chunk and in all.
    """
    if chunk == EVAL:
        return range(store.n_val + store.n_test)
    if not re.fullmatch(r"\d+", chunk):
        raise UserError(f"no chunk '{chunk}': it is '{EVAL}' or a number")
    pool = store.indices("train", last)
    rows = pool[int(chunk) * size : (int(chunk) + 1) * size]
    if size < 1 or len(rows) == 0:
        raise UserError(f"no chunk '{chunk}' of {size} structures in the first {last} of the pool")
    return rows


def write_chunk(store: Store, rows: range, out: Path, size: int | None = None) -> int:
    """Write structures without labels as extended XYZ, atomically; return their number.

    Structures that repeat an earlier one of the set are left out. `size`, the number of structures
    of a training chunk, is for the chunk's record.
    """
    frames = [store[i] for i in rows if store.duplicate_of[i] == i]
    for atoms in frames:
        atoms.calc = None
    write_atomically(out, lambda path: write(path, frames, format="extxyz"))
    write_record(record_of(out), {"prepared": store.checksum, "chunk_size": size}, out)
    return len(frames)


@dataclass
class Label:
    """A source's label of one structure of a prepared set, or the reason why there is none."""

    row: int
    energy: float = np.nan
    forces: np.ndarray | None = None
    error: str | None = None


def read_labelled(store: Store, source: str, files: Sequence[Path]) -> Iterator[Label]:
    """Read labelled chunks and check that they hold the set's structures in order.

    Raises a `UserError` if a structure is not the expected one, or its labels are missing or not
    finite.

    Parameters
    ----------
    files
        Labelled chunks: ``eval``, then those of the training pool in order.

    Yields
    ------
    Label
        Energy (eV, relative to isolated atoms) and forces (N, 3) (eV/Å), or the source's error.
    """
    # With `eval` alone, repeats of its structures in the training pool do not belong to it.
    rows = iter(range(store.n_val + store.n_test if len(files) == 1 else len(store)))
    first = store.duplicate_of
    repeated = set(first[first != np.arange(len(store))].tolist())
    # Labels of structures that are repeated later.
    kept: dict[int, Label] = {}
    for path in files:
        if not path.is_file():
            raise UserError(f"no labelled chunk {path}: label it first")
        check_output(path)
        for n, atoms in enumerate(read_files([path], "extxyz")):
            where = f"{path}: structure {n}"
            for row in rows:
                if first[row] == row:
                    break
                yield replace(kept[first[row]], row=row)
            else:
                raise UserError(f"{where} is one too many for {store.path}: label again")
            difference = _difference(store, row, atoms)
            if difference is not None:
                raise UserError(
                    f"{where} is not structure {row} of {store.path} ({difference}): give the "
                    "chunks in order; if they are, one is not whole: make this one and the "
                    "one before anew, and the structures of both, with `snakemake … -R FILES`"
                )
            label = _label(row, source, atoms, where)
            if row in repeated:
                kept[row] = label
            yield label
    # Repeats at the end of the last chunk are not in its file.
    for row in itertools.takewhile(lambda row: first[row] in kept, rows):
        yield replace(kept[first[row]], row=row)


def _difference(store: Store, row: int, atoms: Atoms) -> str | None:
    expected = store.arrays(row)
    index, known = atoms.info.get("index"), int(expected["index"])
    if index != known:
        return f"its index is {index}, not {known}"
    if not np.array_equal(atoms.numbers, expected["numbers"]):
        return "elements differ"
    if not np.allclose(atoms.positions, expected["positions"], rtol=0, atol=TOLERANCE):
        return "positions differ"
    if not np.allclose(atoms.cell.array, expected["cell"], rtol=0, atol=TOLERANCE):
        return "cells differ"
    return None if np.array_equal(atoms.pbc, expected["pbc"]) else "periodic directions differ"


def _label(row: int, source: str, atoms: Atoms, where: str) -> Label:
    error = atoms.info.get(f"{source}_error")
    if error is not None:
        return Label(row, error=str(error))
    energy = atoms.info.get(f"{source}_energy")
    forces = atoms.arrays.get(f"{source}_force")
    if energy is None or forces is None:
        raise UserError(
            f"{where} has no {source}_energy and {source}_force, and no {source}_error: label it "
            f"with the source '{source}'"
        )
    try:
        energy, forces = float(energy), np.asarray(forces, dtype=np.float64)
    except (TypeError, ValueError):
        energy, forces = np.nan, np.empty(0)
    if forces.shape != (len(atoms), 3) or not np.isfinite([energy, *forces.ravel()]).all():
        raise UserError(
            f"{where}: labels of '{source}' are not finite numbers, an energy and three force "
            "components per atom: label again"
        )
    return Label(row, energy, forces)


def fit_zero(
    store: Store, source: str, files: Sequence[Path], fit: str, n: int | None = None
) -> Reference:
    """Fit the zero of a source's energies to its first `n` training labels."""
    n_eval = store.n_val + store.n_test
    pool = (
        (store.arrays(label.row)["numbers"], label.energy)
        for label in read_labelled(store, source, files)
        if label.row >= n_eval and label.error is None
    )
    first = list(itertools.islice(pool, n))
    present = sorted({chemical_symbols[z] for numbers, _ in first for z in numbers})
    return make_reference({fit: True}, present, first)


def join(
    store: Store,
    source: str,
    files: Sequence[Path],
    out: Path,
    n: int | None = None,
    fit: str | None = None,
    provenance: Sequence[Path] = (),
) -> dict[str, Any]:
    """Join labelled chunks into a labelled set; structures without a label are left out.

    Raises a `UserError` if the chunks do not fit the set, or too few structures are labelled.

    Parameters
    ----------
    files
        Labelled chunks, ``eval`` first, then the training pool's in order.
    out
        Labelled set to write: the prepared one with the first part of its training pool.
    n
        Number of training structures: the first `n` with a label. By default all.
    fit
        Zero of the energies: ``least_squares`` or ``median_shift`` of these training structures.
        By default energies stay relative to the source's isolated atoms.
    provenance
        JSON files on how each chunk was labelled.

    Returns
    -------
    dict
        ``val``, ``test``, ``train``: numbers of labelled structures; ``failed``: raw index and
        reason of each structure without a label; ``made``: result of :func:`read_provenance`.
    """
    counts = dict.fromkeys(("val", "test", "train"), 0)
    failed: list[dict[str, Any]] = []
    seen, n_eval = 0, store.n_val + store.n_test
    made = read_provenance(provenance)
    zero = fit_zero(store, source, files, fit, n) if fit else Reference("none")
    with StoreWriter(out, has_labels=True, info=store.info_names) as writer:
        for label in read_labelled(store, source, files):
            if counts["train"] == n and label.row >= n_eval:
                break
            seen += 1
            row = store.arrays(label.row)
            if label.error is not None:
                failed.append({"index": int(row["index"]), "reason": label.error})
                continue
            energy = label.energy - zero.of(row["numbers"])
            row |= {"energy": np.asarray(energy), "forces": label.forces}
            writer.add_arrays(row, store.info(label.row))
            counts[_group(store, label.row)] += 1
        if seen < n_eval:
            raise UserError(
                f"{seen} of {n_eval} validation and test structures: a chunk is missing"
            )
        failures = f" ({len(failed)} could not be labelled)" if failed else ""
        if counts["train"] < (n or 0):
            raise UserError(
                f"the source '{source}' labelled {counts['train']:,} training structures{failures} "
                f"where {n:,} are needed: lower the pre-training size, or label more structures"
            )
        for group in ("val", "test"):
            if counts[group] == 0:
                raise UserError(f"the source '{source}' labelled no {group} structure{failures}")
        about = {
            "source": source,
            "labels": made,
            "prepared": {"checksum": store.checksum, **store.provenance},
            "failed": failed,
            "energy_zero": zero.as_dict(),
        }
        checksum = writer.finish(counts["val"], counts["test"], about)
    return {"source": source, "checksum": checksum, **counts, "failed": failed, "made": made}


def read_provenance(files: Sequence[Path]) -> list[dict[str, Any]]:
    """How chunks were labelled: each way once, with the names of its ``chunks``.

    Versions of a code may differ between chunks; parameters may not. Raises a `UserError` if an
    entry that decides the labels differs between chunks.
    """
    ways: list[dict[str, Any]] = []
    for path in files:
        how = read_record(path)
        # What chunks differ in.
        for key in (OUTPUTS, "structures_sha256"):
            how.pop(key, None)
        if "code" not in how:  # an empty chunk: earlier chunks have its structures
            continue
        chunk = path.name.split(".")[0]
        for key in DECISIVE:
            if ways and ways[0].get(key) != how.get(key):
                raise UserError(
                    f"{path}: {key} is not that of chunk {ways[0]['chunks'][0]}: label both again"
                )
        for way in ways:
            if way == {**how, "chunks": way["chunks"]}:
                way["chunks"].append(chunk)
                break
        else:
            ways.append({**how, "chunks": [chunk]})
    return ways


def _group(store: Store, row: int) -> str:
    if row < store.n_val:
        return "val"
    return "test" if row < store.n_val + store.n_test else "train"
