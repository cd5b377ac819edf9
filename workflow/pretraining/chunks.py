"""Parts of a prepared set on their way to a label source and back.

A chunk is an extended XYZ file: ``eval`` holds the validation and test structures, ``00000``,
``00001``, … hold the training pool, so many structures each, in the pool's order. Each structure
carries its raw ``index``, by which it is known when it comes back.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import write

from pretraining.errors import UserError
from pretraining.loading import read_files
from pretraining.references import Reference, make_reference
from pretraining.store import Store, StoreWriter

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


def write_chunk(store: Store, rows: range, out: Path) -> None:
    """Write structures, without labels, as extended XYZ; the file appears whole or not at all."""
    frames = [store[i] for i in rows]
    for atoms in frames:
        atoms.calc = None
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    write(partial, frames, format="extxyz")
    os.replace(partial, out)


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
    row = 0
    for path in files:
        if not path.is_file():
            raise UserError(f"no labelled chunk {path}: label it first")
        for n, atoms in enumerate(read_files([path], "extxyz")):
            where = f"{path}: structure {n}"
            if row == len(store):
                raise UserError(f"{where} is beyond the prepared set's {len(store)}: label again")
            difference = _difference(store, row, atoms)
            if difference is not None:
                raise UserError(
                    f"{where} is not structure {row} of {store.path} ({difference}): give the "
                    "chunks in order, or label again"
                )
            yield _label(row, source, atoms, where)
            row += 1


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


def fit_zero(
    store: Store, source: str, files: Sequence[Path], fit: str, n: int | None = None
) -> Reference:
    """Fit the zero of a source's energies to its labels of the first `n` training structures.

    Parameters
    ----------
    fit
        ``least_squares`` or ``median_shift``.
    store, source, files, n
        As in :func:`join`.
    """
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
) -> dict[str, Any]:
    """Join labelled chunks into a labelled set; structures without a label are left out.

    Parameters
    ----------
    store
        Prepared set that the chunks were cut from.
    source
        Name of the label source.
    files
        Labelled chunks, ``eval`` first, then the training pool's in order.
    out
        Labelled set to write: as the prepared one, its training pool cut off.
    n
        Number of training structures: the first `n` that could be labelled. By default, all.
    fit
        Zero of the energies: ``least_squares`` or ``median_shift`` of these training structures.
        By default they stay relative to the source's isolated atoms.

    Returns
    -------
    dict
        ``val``, ``test``, ``train``: numbers of labelled structures; ``failed``: raw index and
        reason of each that the source could not label.

    Raises
    ------
    UserError
        If the chunks do not fit the set, or too few structures are labelled.
    """
    counts = dict.fromkeys(("val", "test", "train"), 0)
    failed: list[dict[str, Any]] = []
    seen, n_eval = 0, store.n_val + store.n_test
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
        provenance = {
            "source": source,
            "prepared": {"checksum": store.checksum, **store.provenance},
            "failed": failed,
            "energy_zero": zero.as_dict(),
        }
        checksum = writer.finish(counts["val"], counts["test"], provenance)
    return {"source": source, "checksum": checksum, **counts, "failed": failed}


def _group(store: Store, row: int) -> str:
    if row < store.n_val:
        return "val"
    return "test" if row < store.n_val + store.n_test else "train"
