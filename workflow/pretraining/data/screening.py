"""Filter and check raw structures in one pass, and store those that pass in their raw order.

A filter drops structures and counts them. A check finds broken structures, which are an error.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from pretraining.data.geometry import NEAREST_WITHIN, clash, is_isolated, nearest_pair, pairs
from pretraining.data.readers import Raw
from pretraining.data.sanity.soundness import SAME_PLACE, broken_geometry
from pretraining.data.store_writer import StoreWriter, frame_arrays
from pretraining.runtime.errors import UserError
from pretraining.study.queries import has_own_split

MIN_DISTANCE = 0.5
# The pass ends after so many broken structures: they have one cause.
MAX_REFUSED = 1000
SHOWN = 3


class Filter:
    """One entry of a dataset's ``filters``.

    ``{key, include | exclude | min | max}``, ``{neighbours_within: Å}`` (drops a structure in
    which an atom has no neighbour) or ``{min_cell_edge: Å}`` (of the periodic directions).
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.entry = dict(entry)
        self.n_dropped = 0
        self.geometric = "key" not in entry

    def __str__(self) -> str:
        words = {k: v for k, v in self.entry.items() if k != "key"}
        text = ", ".join(
            f"{k} {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in words.items()
        )
        return text if self.geometric else f"{self.entry['key']}: {text}"

    def keeps(self, atoms: Atoms) -> bool:
        """Return whether the structure passes; count it if not.

        Raises a `UserError` if the structure has no such entry, or a limit is set on one that is
        not a number.
        """
        kept = self._keeps_geometry(atoms) if self.geometric else self._keeps_value(atoms)
        self.n_dropped += not kept
        return kept

    def _keeps_value(self, atoms: Atoms) -> bool:
        key = self.entry["key"]
        if key not in atoms.info:
            known = ", ".join(map(str, atoms.info)) or "none"
            raise UserError(f"has no entry '{key}' to filter by (it has: {known})")
        value = atoms.info[key]
        kept = "include" not in self.entry or _among(value, self.entry["include"])
        kept = kept and not _among(value, self.entry.get("exclude", ()))
        if "min" in self.entry or "max" in self.entry:
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise UserError(f"'{key}' is {value!r}, not a number to filter by") from None
            # NaN, a missing number, is in no range.
            low, high = self.entry.get("min", -np.inf), self.entry.get("max", np.inf)
            kept = kept and low <= number <= high
        return kept

    def _keeps_geometry(self, atoms: Atoms) -> bool:
        kept = True
        if "neighbours_within" in self.entry:
            i = pairs(atoms, self.entry["neighbours_within"], "i")
            kept = len(np.unique(i)) == len(atoms)
        if "min_cell_edge" in self.entry:
            edges = atoms.cell.lengths()[atoms.pbc]
            kept = kept and bool((edges >= self.entry["min_cell_edge"]).all())
        return kept


def _among(value: Any, choices: Sequence[Any]) -> bool:
    """Return whether `value` is in `choices`; text and number that read the same are equal."""
    return any(value == choice or str(value) == str(choice) for choice in choices)


def read_labels(atoms: Atoms, labels: Mapping[str, str]) -> tuple[float, np.ndarray] | str:
    """Energy (eV, total) and forces (N, 3) (eV/Å) of a raw structure, or why it has none.

    `labels` names the ``forces``, and the ``energy`` or the ``per_atom_energy``, which is summed.
    """
    # ASE's readers move some entries to a calculator.
    entries = {**(atoms.calc.results if atoms.calc is not None else {}), **atoms.arrays}
    entries |= atoms.info
    if is_isolated(atoms):
        # Some files give it no forces.
        entries.setdefault(labels["forces"], np.zeros((1, 3)))
    for key in labels.values():
        if entries.get(key) is None:
            known = ", ".join(sorted(map(str, entries.keys() - {"numbers", "positions"})))
            return f"has no '{key}' (it has: {known or 'no entries'})"
    try:
        forces = np.asarray(entries[labels["forces"]], dtype=np.float64)
        kind = "per_atom_energy" if "per_atom_energy" in labels else "energy"
        energy = np.asarray(entries[labels[kind]], dtype=np.float64)
    except (ValueError, TypeError):
        return "energy or forces are not numbers"
    if forces.shape != (len(atoms), 3):
        return f"forces '{labels['forces']}' have the shape {forces.shape}, not ({len(atoms)}, 3)"
    shape = (len(atoms),) if kind == "per_atom_energy" else ()
    if energy.shape != shape and not (shape == () and energy.shape == (1,)):
        return f"{kind} '{labels[kind]}' has the shape {energy.shape}, not {shape}"
    if not np.isfinite(energy).all():
        return f"{kind} '{labels[kind]}' is not finite"
    if not np.isfinite(forces).all():
        return f"forces '{labels['forces']}' are not finite"
    return float(energy.sum()), forces


@dataclass
class Kept:
    """Entries of the structures that passed, by their number in the temporary store."""

    n_raw: int = 0
    n_excluded: int = 0
    nearest: list[float | None] = field(default_factory=list)
    config_types: list[str | None] = field(default_factory=list)
    own: list[Any] = field(default_factory=list)
    groups: list[Any] = field(default_factory=list)
    n_own_unused: int = 0
    # Energies of the isolated atoms, eV, if they are the energy reference.
    isolated: dict[str, list[float]] = field(default_factory=dict)
    # The first raw structure of each.
    elements: dict[str, int] = field(default_factory=dict)


def read_raw(
    raw: Raw, dataset: Mapping[str, Any], filters: Sequence[Filter], scratch: Path
) -> Kept:
    """Read the raw structures once, one at a time.

    Those that pass go to the store `scratch`, without parts and with total energies. Filters count
    what they drop. Raises a `UserError` if a structure is broken, their number is not the expected
    one, or none is left.
    """
    labels = dataset.get("labels")
    if labels is not None and "source" in labels:
        labels = None  # to be computed
    keep = dataset.get("keep", [])
    split = dataset.get("split", {})
    excluded = set(dataset.get("exclude", []))
    min_distance = dataset.get("checks", {}).get("min_distance", MIN_DISTANCE)
    kept = Kept()
    wanted = dataset.get("energy_reference", {"auto": True}).keys() & {"auto", "isolated_atoms"}
    isolated = kept.isolated if wanted and labels is not None else None
    refused: list[tuple[int, str]] = []
    found_keys: set[str] = set()
    with StoreWriter(scratch, has_labels=labels is not None, info=keep) as writer:
        for index, atoms in enumerate(raw.frames):
            kept.n_raw += 1
            if index in excluded:
                kept.n_excluded += 1
                continue
            try:
                outcome = _pass(atoms, index, filters, labels, min_distance, isolated)
            except UserError as error:
                raise UserError(f"{raw.name(index)} {error}") from None
            if outcome is None:
                continue
            if isinstance(outcome, str):
                refused.append((index, outcome))
                if len(refused) == MAX_REFUSED:
                    break
                continue
            row, nearest = outcome
            writer.add_arrays(row, {key: _entry(atoms, key, raw.name(index)) for key in keep})
            found_keys |= atoms.info.keys() & set(keep)
            kept.nearest.append(nearest)
            kept.config_types.append(atoms.info.get("config_type"))
            kept.elements = dict.fromkeys(atoms.symbols, index) | kept.elements
            for key, values in (("key", kept.own), ("groups", kept.groups)):
                if split.get(key) is not None:
                    values.append(_required(atoms, split[key], raw.name(index), f"split.{key}"))
            if "test_path" in split:
                kept.own.append(raw.part(index))
            kept.n_own_unused += not has_own_split(split) and "split" in atoms.info
        _refuse([(raw.name(index), reason) for index, reason in refused], writer.n)
        expected = dataset.get("structures", kept.n_raw)
        if kept.n_raw != expected:
            raise UserError(
                f"{kept.n_raw:,} raw structures, but the configuration expects {expected:,}: the "
                "file is cut short or another one, or correct `structures`"
            )
        beyond = sorted(i for i in excluded if i >= kept.n_raw)
        if beyond:
            raise UserError(f"exclude: {beyond[0]} is no structure (there are {kept.n_raw})")
        if kept.n_raw == 0:
            raise UserError(f"{', '.join(raw.files) or 'the dataset'} holds no structure")
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
    isolated: dict[str, list[float]] | None,
) -> tuple[dict[str, np.ndarray], float | None] | str | None:
    """Row for the store and shortest distance (Å); None if filtered; a reason if broken.

    An isolated atom goes to `isolated`, if that is not None.
    """
    if not all(f.keeps(atoms) for f in filters if not f.geometric):
        return None
    fault = broken_geometry(atoms)
    if fault is not None:
        return fault
    if isolated is not None and is_isolated(atoms):
        found = read_labels(atoms, labels)
        if isinstance(found, str):
            return found
        isolated.setdefault(str(atoms.symbols[0]), []).append(found[0])
        return None
    if not all(f.keeps(atoms) for f in filters if f.geometric):
        return None
    nearest = nearest_pair(atoms, max(NEAREST_WITHIN, min_distance))
    fault = clash(nearest, max(min_distance, SAME_PLACE))
    if fault is not None:
        return fault
    row = frame_arrays(atoms, has_labels=False, index=index)
    if labels is not None:
        found = read_labels(atoms, labels)
        if isinstance(found, str):
            return found
        row["energy"], row["forces"] = np.asarray(found[0]), found[1]
    return row, None if nearest is None else nearest[0]


def _entry(atoms: Atoms, key: str, name: str) -> Any:
    value = atoms.info.get(key)
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, str | int | float | bool | np.generic | None):
        raise UserError(f"keep: '{key}' of {name} is neither a number nor text")
    return value


def _required(atoms: Atoms, key: str, name: str, setting: str) -> Any:
    if atoms.info.get(key) is None:
        known = ", ".join(map(str, atoms.info)) or "none"
        raise UserError(f"{setting}: {name} has no entry '{key}' (it has: {known})")
    return atoms.info[key]


def _refuse(refused: Sequence[tuple[str, str]], n_stored: int) -> None:
    """List all broken structures in the log and raise an error with the first few."""
    if not refused:
        return
    if n_stored == 0 and len({reason for _, reason in refused}) == 1:
        # The configuration is at fault, not the file.
        raise UserError(f"none of the structures is usable: each one {refused[0][1]}")
    for name, reason in refused:
        print(f"refused: {name} {reason}", file=sys.stderr)
    first = "; ".join(f"{name} {reason}" for name, reason in refused[:SHOWN])
    more = "; and more, all listed above" if len(refused) > SHOWN else ""
    count = f"{len(refused)}" if len(refused) < MAX_REFUSED else f"at least {MAX_REFUSED}"
    raise UserError(
        f"{count} broken structure(s): {first}{more}; repair the file, or list them under `exclude`"
    )
