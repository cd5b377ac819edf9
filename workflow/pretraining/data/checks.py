"""Which structures are wanted, and which cannot be used.

A *filter* drops a structure because the configuration says so, and is counted. A *check* refuses a
structure that is broken, and stops the preparation: nothing is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list

from pretraining.runtime.errors import UserError

# Nearest neighbours are looked for within this distance, Å.
NEAREST_WITHIN = 3.0
# A cell is flat if its volume is less than this fraction of that of a box of the same edges.
FLAT = 1e-6
MIN_DISTANCE = 0.5


def pairs(atoms: Atoms, cutoff: float, quantities: str = "ijd") -> Any:
    """Pairs of atoms within `cutoff` (Å), periodic images included (matscipy's quantities)."""
    # matscipy needs three lattice vectors, also where the structure is not periodic.
    return neighbour_list(
        quantities,
        positions=atoms.positions,
        cell=atoms.cell.complete().array,
        pbc=atoms.pbc,
        cutoff=cutoff,
    )


def broken_geometry(atoms: Atoms) -> str | None:
    """Say why a structure is not one: no atoms, positions or cell not finite, or a lost cell."""
    if len(atoms) == 0:
        return "has no atoms"
    if not np.isfinite(atoms.positions).all():
        where = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
        return f"position of atom {where[0]} is not finite"
    if (atoms.numbers < 1).any() or (atoms.numbers > 118).any():
        return (
            f"atom {np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > 118))[0]} has no element"
        )
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        return "cell is not finite"
    if atoms.pbc.any():
        edges = np.linalg.norm(cell, axis=1)
        if (edges[atoms.pbc] == 0).any():
            return "is periodic but has no cell (a periodic lattice vector is zero)"
        if (edges > 0).all() and abs(np.linalg.det(cell)) < FLAT * edges.prod():
            return "is periodic but its cell has no volume"
    return None


def nearest_pair(atoms: Atoms, within: float = NEAREST_WITHIN) -> tuple[float, int, int] | None:
    """Distance (Å) and numbers of the two nearest atoms, or None if none are that near."""
    i, j, d = pairs(atoms, within)
    if len(d) == 0:
        return None
    k = int(np.argmin(d))
    return float(d[k]), int(i[k]), int(j[k])


def clash(nearest: tuple[float, int, int] | None, min_distance: float) -> str | None:
    """Say which two atoms are closer than `min_distance` (Å)."""
    if nearest is None or nearest[0] >= min_distance:
        return None
    distance, i, j = nearest
    other = f"atom {j}" if i != j else "its own image"
    return f"atom {i} is {distance:.3f} Å from {other} (checks.min_distance {min_distance:g} Å)"


def read_labels(atoms: Atoms, labels: Mapping[str, str]) -> tuple[float, np.ndarray] | str:
    """Energy (eV, total) and forces (N, 3) (eV/Å) of a raw structure, or why it has none.

    Parameters
    ----------
    atoms
        Raw structure. ASE's readers hide entries of some names (``energy``, ``forces``) in a
        calculator: the entry is looked for there, too.
    labels
        Names of the ``forces`` and of the ``energy`` or the ``per_atom_energy``, which is summed.
    """
    entries = {**(atoms.calc.results if atoms.calc is not None else {}), **atoms.arrays}
    entries |= atoms.info
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


class Filter:
    """One entry of a dataset's ``filters``.

    Parameters
    ----------
    entry
        ``{key, include | exclude | min | max}``, ``{neighbours_within: Å}`` (drops a structure in
        which an atom has no neighbour) or ``{min_cell_edge: Å}`` (of the periodic directions).
    """

    def __init__(self, entry: Mapping[str, Any]) -> None:
        self.entry = dict(entry)
        self.n_dropped = 0
        self.geometric = "key" not in entry
        self._keeps: Callable[[Any], bool] = (
            self._keeps_geometry if self.geometric else self._keeps_value
        )

    def __str__(self) -> str:
        words = {k: v for k, v in self.entry.items() if k != "key"}
        text = ", ".join(
            f"{k} {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in words.items()
        )
        return text if self.geometric else f"{self.entry['key']}: {text}"

    def keeps(self, atoms: Atoms) -> bool:
        """Whether the structure passes; one that does not is counted.

        Raises
        ------
        UserError
            If the structure has no such entry, or a limit is set on one that is not a number.
        """
        kept = self._keeps(atoms)
        self.n_dropped += not kept
        return kept

    def _keeps_value(self, atoms: Atoms) -> bool:
        key = self.entry["key"]
        if key not in atoms.info:
            known = ", ".join(map(str, atoms.info)) or "none"
            raise UserError(f"has no entry '{key}' to filter by (it has: {known})")
        value = atoms.info[key]
        kept = True
        if "include" in self.entry:
            kept = _among(value, self.entry["include"])
        if "exclude" in self.entry:
            kept = kept and not _among(value, self.entry["exclude"])
        if "min" in self.entry or "max" in self.entry:
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise UserError(f"'{key}' is {value!r}, not a number to filter by") from None
            # A missing number, NaN, is in no range.
            kept = kept and self.entry.get("min", -np.inf) <= number <= self.entry.get(
                "max", np.inf
            )
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
    """Whether `value` is one of `choices`; text that reads the same as a number counts."""
    return any(value == choice or str(value) == str(choice) for choice in choices)
