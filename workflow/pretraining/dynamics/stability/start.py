"""Start structure of an MD stability test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from pretraining.data.store import Store
from pretraining.runtime.errors import UserError


def start_structure(start: Mapping[str, Any], data: Path | None) -> Atoms:
    """Return the structure of a test's entry ``start``, repeated as it says.

    The entry has ``file`` and ``index``, or ``part`` and ``nearest`` for a structure of the
    prepared set `data`. Raises a UserError if there is no such structure.
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
    else:
        with Store(data) as store:
            found = store[_nearest_row(store, start["part"], start["nearest"])]
        origin = {"origin": start["dataset"], **found.info}
    atoms = Atoms(found.numbers, positions=found.positions, cell=found.cell, pbc=found.pbc)
    atoms.info = {key: value for key, value in origin.items() if np.isscalar(value)}
    return atoms.repeat(start["repeat"])


def _nearest_row(store: Store, part: str, wanted: Mapping[str, float]) -> int:
    """Return the row nearest to the wanted values: the first entry decides, ties go to the next."""
    rows = np.array(store.indices(part))
    if not len(rows):
        raise UserError(f"{store.path} has no {part} structures to start from")
    for key, value in wanted.items():
        column = store.column(key, part)
        try:
            distance = np.abs(column[rows - store.indices(part).start].astype(float) - value)
        except ValueError:
            raise UserError(f"start.nearest: '{key}' is not a number in {store.path}") from None
        if np.isnan(distance).all():
            raise UserError(f"start.nearest: no structure of {store.path} has a '{key}'")
        rows = rows[distance <= np.nanmin(distance) + 1e-9]
    return int(rows[0])
