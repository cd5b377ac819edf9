"""Join labelled chunks into a labelled set."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from pretraining.data.energy_references import Reference, make_reference
from pretraining.data.store import Store, StoreWriter
from pretraining.labels.chunks import read_labelled
from pretraining.runtime.errors import UserError, whole

# Entries of the provenance that all chunks must share.
DECISIVE = ("calculator", "args", "kwargs", "parameter_files_sha256", "isolated_atoms_ev")


def fit_zero(
    store: Store, source: str, files: Sequence[Path], fit: str, n: int | None = None
) -> Reference:
    """Fit the zero of a source's energies to its first `n` training labels, as :func:`join`."""
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

    Parameters
    ----------
    store
        Prepared set that the chunks were cut from.
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

    Raises
    ------
    UserError
        If the chunks do not fit the set, or too few structures are labelled.
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

    Versions of a code may differ between chunks; parameters may not.

    Raises
    ------
    UserError
        If an entry that decides the labels differs between chunks.
    """
    ways: list[dict[str, Any]] = []
    for path in files:
        with whole(path):
            how = json.loads(path.read_text(encoding="utf-8"))
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
