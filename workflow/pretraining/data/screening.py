"""One pass over raw structures: filter, check, and store those that pass, in their raw order."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from pretraining.data.checks import (
    MIN_DISTANCE,
    NEAREST_WITHIN,
    Filter,
    broken_geometry,
    clash,
    nearest_pair,
    read_labels,
)
from pretraining.data.raw import Raw
from pretraining.data.store_writer import StoreWriter, frame_arrays
from pretraining.runtime.errors import UserError

# A set with more faults than this has one cause; the rest need not be found.
MAX_REFUSED = 1000
SHOWN = 3


@dataclass
class Kept:
    """What is known of the structures that passed, by their number in the temporary store."""

    n_raw: int = 0
    n_excluded: int = 0
    nearest: list[float | None] = field(default_factory=list)
    config_types: list[str | None] = field(default_factory=list)
    own: list[Any] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list)
    n_own_unused: int = 0
    elements: set[str] = field(default_factory=set)


def read_raw(
    raw: Raw, dataset: Mapping[str, Any], filters: Sequence[Filter], scratch: Path
) -> Kept:
    """Read the raw structures once, one at a time.

    Parameters
    ----------
    raw
        Raw structures.
    dataset
        The dataset's entry in the configuration.
    filters
        Filters; they count what they drop.
    scratch
        Store to write, without parts and with total energies.

    Raises
    ------
    UserError
        If a structure is broken, their number is not the expected one, or none is left.
    """
    _check_count(raw.n, dataset)
    labels = dataset.get("labels")
    if labels is not None and "source" in labels:
        labels = None  # to be computed
    keep = dataset.get("keep", [])
    split = dataset.get("split", {})
    excluded = set(dataset.get("exclude", []))
    min_distance = dataset.get("checks", {}).get("min_distance", MIN_DISTANCE)
    kept = Kept()
    refused: list[tuple[int, str]] = []
    found_keys: set[str] = set()
    with StoreWriter(scratch, has_labels=labels is not None, info=keep) as writer:
        for index, atoms in enumerate(raw.frames):
            kept.n_raw += 1
            if index in excluded:
                kept.n_excluded += 1
                continue
            try:
                outcome = _pass(atoms, index, filters, labels, min_distance)
            except UserError as error:
                raise UserError(f"structure {index} {error}") from None
            if outcome is None:
                continue
            if isinstance(outcome, str):
                refused.append((index, outcome))
                if len(refused) == MAX_REFUSED:
                    break
                continue
            row, nearest = outcome
            writer.add_arrays(row, {key: _entry(atoms, key, index) for key in keep})
            found_keys |= atoms.info.keys() & set(keep)
            kept.nearest.append(nearest)
            kept.config_types.append(atoms.info.get("config_type"))
            kept.elements |= set(atoms.symbols)
            for key, values in (("key", kept.own), ("groups", kept.groups)):
                if split.get(key) is not None:
                    values.append(_required(atoms, split[key], index, f"split.{key}"))
            kept.n_own_unused += split.get("key") is None and "split" in atoms.info
        if refused and writer.n == 0 and len({reason for _, reason in refused}) == 1:
            # The configuration is at fault, not the file.
            raise UserError(f"none of the structures is usable: each one {refused[0][1]}")
        if refused:
            _refuse(refused)
        _check_count(kept.n_raw, dataset)
        beyond = sorted(i for i in excluded if i >= kept.n_raw)
        if beyond:
            raise UserError(f"exclude: {beyond[0]} is no structure (there are {kept.n_raw})")
        if writer.n == 0:
            dropped = "; ".join(f"{f}: {f.n_dropped}" for f in filters) or "no filters"
            raise UserError(f"none of {kept.n_raw} structures is left (dropped by {dropped})")
        missing = sorted(set(keep) - found_keys)
        if missing:
            raise UserError(f"keep: no structure has an entry '{missing[0]}'")
        writer.finish(n_val=0, n_test=0)
    return kept


def _pass(
    atoms: Atoms,
    index: int,
    filters: Sequence[Filter],
    labels: Mapping[str, str] | None,
    min_distance: float,
) -> tuple[dict[str, np.ndarray], float | None] | str | None:
    """Row for the store and shortest distance (Å); None if filtered; a reason if broken."""
    if not all(f.keeps(atoms) for f in filters if not f.geometric):
        return None
    fault = broken_geometry(atoms)
    if fault is not None:
        return fault
    if not all(f.keeps(atoms) for f in filters if f.geometric):
        return None
    nearest = nearest_pair(atoms, max(NEAREST_WITHIN, min_distance))
    fault = clash(nearest, min_distance)
    if fault is not None:
        return fault
    row = frame_arrays(atoms, has_labels=False, index=index)
    if labels is not None:
        found = read_labels(atoms, labels)
        if isinstance(found, str):
            return found
        row["energy"], row["forces"] = np.asarray(found[0]), found[1]
    return row, None if nearest is None else nearest[0]


def _entry(atoms: Atoms, key: str, index: int) -> Any:
    value = atoms.info.get(key)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, str | int | float | bool | np.generic | None):
        raise UserError(f"keep: '{key}' of structure {index} is neither a number nor text")
    return value


def _required(atoms: Atoms, key: str, index: int, setting: str) -> Any:
    if atoms.info.get(key) is None:
        known = ", ".join(map(str, atoms.info)) or "none"
        raise UserError(f"{setting}: structure {index} has no entry '{key}' (it has: {known})")
    return atoms.info[key]


def _check_count(n: int | None, dataset: Mapping[str, Any]) -> None:
    expected = dataset.get("structures")
    if expected is not None and n is not None and n != expected:
        raise UserError(
            f"{n:,} raw structures, but the configuration expects {expected:,}: the file is cut "
            "short or another one, or correct `structures`"
        )


def _refuse(refused: Sequence[tuple[int, str]]) -> None:
    """List all broken structures in the log and end with the first few."""
    for index, reason in refused:
        print(f"refused: structure {index} {reason}", file=sys.stderr)
    first = "; ".join(f"structure {index} {reason}" for index, reason in refused[:SHOWN])
    more = "; and more, all listed above" if len(refused) > SHOWN else ""
    count = f"{len(refused)}" if len(refused) < MAX_REFUSED else f"at least {MAX_REFUSED}"
    raise UserError(
        f"{count} broken structure(s): {first}{more}; repair the file, or list them under `exclude`"
    )
