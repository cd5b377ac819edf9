"""Start structure of an MD stability test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from pretraining.data.sanity.soundness import refuse_broken
from pretraining.data.store import Store
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256


def start_structure(start: Mapping[str, Any], data: Path | None) -> tuple[Atoms, dict[str, Any]]:
    """Return the structure of a test's entry ``start``, repeated as it says, and how it was made.

    The entry has ``file`` and ``index``, or ``part``, ``where`` and ``nearest`` for a structure of
    the prepared set `data`. Raises a UserError if there is no such structure, or more than one.
    """
    if data is None:
        path = Path(start["file"])
        try:
            found = read(path, index=start["index"])
        except Exception as error:
            raise UserError(
                f"{path}: structure {start['index']} cannot be read ({error}); see start.file and "
                "start.index"
            ) from error
        origin: dict[str, Any] = {"origin": path.name, "origin_index": start["index"]}
        made = {"start": {**start, "file": path.name}, "sha256": file_sha256(path)}
    else:
        with Store(data) as store:
            found = store[_row_of(store, start)]
            made = {"start": dict(start), "data_checksum": store.checksum}
        origin = {"origin": start["dataset"], **found.info}
    refuse_broken([found], origin.get("origin_index", 0), where=f"start: {origin['origin']}: ")
    atoms = Atoms(found.numbers, positions=found.positions, cell=found.cell, pbc=found.pbc)
    atoms.info = {key: value for key, value in origin.items() if np.isscalar(value)}
    return atoms.repeat(start["repeat"]), made


def _row_of(store: Store, start: Mapping[str, Any]) -> int:
    """Return the row with the entries `where`, nearest to those of `nearest`, in their order."""
    part = start["part"]
    indices = store.indices(part)
    rows = np.array(indices)
    if not len(rows):
        raise UserError(f"{store.path} has no {part} structures to start from")
    for key, value in start["where"].items():
        column = store.column(key, part)
        rows = rows[column[rows - indices.start] == value]
        if not len(rows):
            raise UserError(f"start.where: no {part} structure of {store.path} has {key} {value}")
    for key, value in start["nearest"].items():
        column = store.column(key, part)
        try:
            distance = np.abs(column[rows - indices.start].astype(float) - value)
        except ValueError:
            raise UserError(f"start.nearest: '{key}' is not a number in {store.path}") from None
        if np.isnan(distance).all():
            raise UserError(f"start.nearest: no structure of {store.path} has a '{key}'")
        rows = rows[distance <= np.nanmin(distance) + 1e-9]
    if len(rows) > 1:
        raise UserError(
            f"start: {len(rows)} {part} structures of {store.path} are equally near (the first: "
            f"{_entries(store[int(rows[0])])}; the last: {_entries(store[int(rows[-1])])}): add "
            "entries to start.where or start.nearest that tell them apart"
        )
    return int(rows[0])


def _entries(atoms: Atoms) -> str:
    return ", ".join(f"{key} {value}" for key, value in atoms.info.items() if np.isscalar(value))
