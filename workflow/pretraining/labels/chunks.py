"""Parts of a prepared set on their way to a label source and back.

A chunk is an extended XYZ file: ``eval`` holds the validation and test structures, ``00000``,
``00001``, … hold the training pool, so many structures each, in the pool's order. A structure that
repeats an earlier one of the set is left out of its chunk, which may be empty then, and takes the
earlier one's label. Each structure carries its raw ``index``, by which it is known when it comes
back.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
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
    store
        Prepared set.
    chunk
        ``eval`` or the chunk's number, as in its name.
    size
        Number of structures in a chunk of the training pool.
    last
        Number of training structures to be labelled in all.

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
    """Write structures, without labels, as extended XYZ; the file appears whole or not at all.

    Returns
    -------
    int
        Number of structures: those that repeat an earlier one of the set are left out.
    """
    frames = [store[i] for i in rows if store.duplicate_of[i] == i]
    for atoms in frames:
        atoms.calc = None
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, lambda path: write(path, frames, format="extxyz"))
    return len(frames)


@dataclass
class Label:
    """What a source says of one structure of a prepared set."""

    row: int
    energy: float = np.nan
    forces: np.ndarray | None = None
    error: str | None = None


def read_labelled(store: Store, source: str, files: Sequence[Path]) -> Iterator[Label]:
    """Read labelled chunks and check that they hold the set's structures, in its order.

    Parameters
    ----------
    store
        Prepared set.
    source
        Name of the label source.
    files
        Labelled chunks: the one called ``eval``, then the training pool's, in order.

    Yields
    ------
    Label
        Energy (eV, relative to isolated atoms) and forces (N, 3) (eV/Å), or the reason why the
        source gave none.

    Raises
    ------
    UserError
        If a structure is another one than expected, or has labels that are not finite or none.
    """
    # What follows the evaluation parts is none of their chunk's, though it repeat one of them.
    rows = iter(range(store.n_val + store.n_test if len(files) == 1 else len(store)))
    with Repeats(store) as repeats:
        for path in files:
            if not path.is_file():
                raise UserError(f"no labelled chunk {path}: label it first")
            for n, atoms in enumerate(read_files([path], "extxyz")):
                where = f"{path}: structure {n}"
                for row in rows:
                    if store.duplicate_of[row] == row:
                        break
                    yield repeats.label(row)
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
                repeats.keep(label)
                yield label
        # Repeated structures at the end of the last chunk, which are not in the file.
        yield from map(repeats.label, itertools.takewhile(repeats.known, rows))


class Repeats:
    """Labels of structures that come again in a set, on disk until then.

    Parameters
    ----------
    store
        Prepared set.
    """

    def __init__(self, store: Store) -> None:
        self._duplicate_of = store.duplicate_of
        repeats = np.flatnonzero(self._duplicate_of != np.arange(len(store)))
        self._wanted = set(self._duplicate_of[repeats].tolist())
        self._labels: dict[int, tuple[Label, int, int]] = {}

    def __enter__(self) -> Repeats:
        self._file = tempfile.TemporaryFile()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, label: Label) -> None:
        """Keep a label, if its structure comes again."""
        if label.row not in self._wanted:
            return
        start = self._file.seek(0, os.SEEK_END)
        size = 0 if label.forces is None else self._file.write(label.forces.tobytes())
        self._labels[label.row] = (replace(label, forces=None), start, size)

    def known(self, row: int) -> bool:
        """Whether a row repeats one whose label is kept."""
        return int(self._duplicate_of[row]) in self._labels

    def label(self, row: int) -> Label:
        """Label of a row, from the first with its structure."""
        label, start, size = self._labels[int(self._duplicate_of[row])]
        if label.error is not None:
            return replace(label, row=row)
        self._file.seek(start)
        forces = np.frombuffer(self._file.read(size), dtype=np.float64).reshape(-1, 3)
        return replace(label, row=row, forces=forces)


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
