"""Soundness of a structure: what is broken is refused before it is prepared, labelled or moved.

Imported in interpreters of label sources: only the standard library, numpy and ASE.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from ase import Atoms

from pretraining.runtime.errors import UserError

# A cell is flat if its volume is below this fraction of a box with the same edges.
FLAT = 1e-6
# Å: no cell is thinner between two periodic faces, and no atom or edge reaches farther.
THIN = 0.1
FAR = 1e4
# Atoms nearer than this, Å, are at the same place.
SAME_PLACE = 1e-3
# A direction along which the atoms of no crystal line up.
LINE = np.array([0.6180339, 0.5877852, 0.5223671])


def broken_geometry(atoms: Atoms) -> str | None:
    """Return why a structure is unusable, apart from atoms that are too close."""
    if len(atoms) == 0:
        return "has no atoms"
    if not np.isfinite(atoms.positions).all():
        where = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
        return f"position of atom {where[0]} is not finite"
    far = np.abs(atoms.positions).max(axis=1)
    if far.max() > FAR:
        return f"position of atom {far.argmax()} is {far.max():.3g} Å from the origin"
    unknown = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers > 118))
    if len(unknown):
        return f"atom {unknown[0]} has no element"
    cell = atoms.cell.array
    if not np.isfinite(cell).all():
        return "cell is not finite"
    edges = np.linalg.norm(cell, axis=1)
    if edges.max() > FAR:
        return f"cell has an edge of {edges.max():.3g} Å"
    if atoms.pbc.any():
        if (edges[atoms.pbc] == 0).any():
            return "is periodic but has no cell (a periodic lattice vector is zero)"
        if (edges > 0).all() and abs(np.linalg.det(cell)) < FLAT * edges.prod():
            return "is periodic but its cell has no volume"
        whole = atoms.cell.complete().array
        # The distance of two faces is 1/|b|, with the reciprocal lattice vector b.
        thickness = 1 / np.linalg.norm(np.linalg.inv(whole), axis=0)[atoms.pbc]
        if thickness.min() < THIN:
            return f"is periodic but its cell is only {thickness.min():.3g} Å thick"
    return None


def fault(atoms: Atoms) -> str | None:
    """Return why a structure is unusable, in words; None if it is sound."""
    broken = broken_geometry(atoms)
    if broken is None and (pair := _same_place(atoms)) is not None:
        return f"atoms {min(pair)} and {max(pair)} are at the same place"
    return broken


def _same_place(atoms: Atoms) -> tuple[int, int] | None:
    """Return two atoms at the same place, periodic images included."""
    cell = atoms.cell.complete()
    fractions = cell.scaled_positions(atoms.positions)
    # Two images of a place may lie on either side of a face: then not with other faces.
    for shift in (0.0, 0.31, 0.57):
        shifted = fractions + shift
        positions = cell.cartesian_positions(np.where(atoms.pbc, shifted % 1.0, shifted))
        # Along any line, atoms at the same place are neighbours, or have such atoms between them.
        along = positions @ LINE
        order = np.argsort(along)
        for step in range(1, len(atoms)):
            first, second = order[:-step], order[step:]
            near = along[second] - along[first] < SAME_PLACE
            if not near.any():
                break
            distances = np.linalg.norm(positions[second] - positions[first], axis=1)
            if (found := np.flatnonzero(near & (distances < SAME_PLACE))).size:
                return int(first[found[0]]), int(second[found[0]])
    return None


def refuse_broken(frames: Iterable[Atoms], first: int = 0, cure: str = "", where: str = "") -> None:
    """Raise a `UserError` with the number of the first structure that is not sound.

    `where` comes before it, such as the name of the file.
    """
    for number, atoms in enumerate(frames, start=first):
        if (why := fault(atoms)) is not None:
            raise UserError(f"{where}structure {number} {why}: repair it or leave it out{cure}")
