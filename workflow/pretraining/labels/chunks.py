"""Chunks: parts of a prepared set that go to a label source and come back labelled.

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

import numpy as np
from ase import Atoms
from ase.io import write

from pretraining.data.readers import read_files
from pretraining.data.store import Store
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_atomically

EVAL = "eval"
# Extended XYZ keeps eight decimals of a position.
TOLERANCE = 1e-6


def chunk_rows(store: Store, chunk: str, size: int, last: int) -> range:
    """Rows of a prepared set that make up a chunk.

    Parameters
    ----------
    chunk
        ``eval``, or the chunk's number as in its name.
    size
        Number of structures in a chunk of the training pool.
    last
        Number of training structures to label in all.

    Raises
    ------
    UserError
        If there is no such chunk, or the pool has fewer than `last` structures.
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


def write_chunk(store: Store, rows: range, out: Path) -> int:
    """Write structures without labels as extended XYZ, atomically.

    Returns
    -------
    int
        Number of structures written; those that repeat an earlier one of the set are left out.
    """
    frames = [store[i] for i in rows if store.duplicate_of[i] == i]
    for atoms in frames:
        atoms.calc = None
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda path: write(path, frames, format="extxyz"))
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

    Parameters
    ----------
    files
        Labelled chunks: ``eval``, then those of the training pool in order.

    Yields
    ------
    Label
        Energy (eV, relative to isolated atoms) and forces (N, 3) (eV/Å), or the source's error.

    Raises
    ------
    UserError
        If a structure is not the expected one, or its labels are missing or not finite.
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
    index = atoms.info.get("index")
    if index != int(expected["index"]):
        return f"its index is {index}, not {int(expected['index'])}"
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
        label = Label(row, float(energy), np.asarray(forces, dtype=np.float64))
    except (TypeError, ValueError):
        raise UserError(f"{where}: labels of '{source}' are not numbers") from None
    if not np.isfinite(label.energy) or not np.isfinite(label.forces).all():
        raise UserError(f"{where}: labels of '{source}' are not finite: label again")
    if label.forces.shape != (len(atoms), 3):
        raise UserError(f"{where}: forces of '{source}' have the shape {label.forces.shape}")
    return label
