"""Geometry of a structure: neighbours, shortest distance, layering, density."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, covalent_radii
from ase.units import _amu
from matscipy.neighbours import neighbour_list

# Radius of the search for the nearest neighbour, Å.
NEAREST_WITHIN = 3.0
# An atom farther than this from all others is isolated, Å.
ALONE = 7.0
# Atoms are neighbours within this factor of the sum of their covalent radii, if no radius is given.
BOND = 1.2
# Coordination numbers from here on are counted together.
TOP = 14
FOLDS = tuple(f"fold_{n}" for n in range(TOP)) + (f"fold_{TOP}_or_more",)
LAYERING = "layering"
# Range of layer distances, Å: graphite has 3.35, disordered layers up to 3.7.
SPACINGS = (3.0, 4.0)
# From atomic mass units an Å³ to g/cm³.
DENSITY = _amu * 1e3 / 1e-24


def pairs(atoms: Atoms, cutoff: float | np.ndarray, quantities: str = "ijd") -> Any:
    """Pairs of atoms within `cutoff` (Å), periodic images included (matscipy's quantities).

    An array has a radius for each atom: pairs are within the sum of theirs.
    """
    # matscipy needs three lattice vectors, also where the structure is not periodic.
    return neighbour_list(
        quantities,
        positions=atoms.positions,
        cell=atoms.cell.complete().array,
        pbc=atoms.pbc,
        cutoff=cutoff,
    )


def nearest_pair(atoms: Atoms, within: float = NEAREST_WITHIN) -> tuple[float, int, int] | None:
    """Distance (Å) and numbers of the two nearest atoms; None beyond the radius `within` (Å)."""
    i, j, d = pairs(atoms, within)
    if len(d) == 0:
        return None
    k = int(np.argmin(d))
    return float(d[k]), int(i[k]), int(j[k])


def is_isolated(atoms: Atoms) -> bool:
    """Return whether a structure is one atom far from its images, or without any."""
    return len(atoms) == 1 and not len(pairs(atoms, ALONE, "i"))


def clash(nearest: tuple[float, int, int] | None, min_distance: float) -> str | None:
    """Return which two atoms are closer than `min_distance` (Å), in words."""
    if nearest is None or nearest[0] >= min_distance:
        return None
    distance, i, j = nearest
    other = f"atom {j}" if i != j else "its own image"
    return f"atom {i} is {distance:.3f} Å from {other} (checks.min_distance {min_distance:g} Å)"


def density(numbers: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> float | None:
    """Mass density, g/cm³, of a structure that is periodic in all directions; else None."""
    if not pbc.all():
        return None
    return float(atomic_masses[numbers].sum() / abs(np.linalg.det(cell)) * DENSITY)


def covalent(atoms: Atoms, factor: float = BOND) -> np.ndarray:
    """Covalent radius of each atom (Å) times `factor`, shape (n_atoms,)."""
    return factor * covalent_radii[atoms.numbers]


def neighbours(atoms: Atoms, radius: float | None = None) -> np.ndarray:
    """Number of neighbours of each atom within `radius` (Å, or covalent radii), (n_atoms,)."""
    reach = covalent(atoms) if radius is None else radius
    return np.bincount(pairs(atoms, reach, "i"), minlength=len(atoms))


def fold_counts(numbers: np.ndarray, top: int = TOP) -> np.ndarray:
    """Number of atoms with 0, 1, … and `top` or more neighbours, shape (top + 1,)."""
    return np.bincount(np.minimum(numbers, top), minlength=top + 1)


def layering(atoms: Atoms, spacings: Sequence[float] = SPACINGS) -> float:
    """Return how far the atoms lie in flat layers at `spacings` (least, largest, Å), from 0 to 1.

    The largest peak of the atomic density's Fourier transform at distances of layers, relative to
    that of perfect layers::

        L = max_G |1/N Σ_j exp(i G·r_j)|²,    d_min ≤ 2π/|G| ≤ d_max

    over the reciprocal lattice vectors G of the cell: the height of the (002) peak of the structure
    factor divided by the number of atoms N. It is 1 for flat layers at rest, and about ln(M)/N
    without order, where M is the number of vectors; NaN if the structure is not periodic or no
    vector of its cell is in the range.
    """
    if not atoms.pbc.all():
        return float("nan")
    reciprocal = 2 * np.pi * np.linalg.inv(atoms.cell.array).T
    longest = 2 * np.pi / spacings[0]
    # |n_i| = |G·a_i|/2π ≤ |G| |a_i|/2π
    limits = np.floor(longest * atoms.cell.lengths() / (2 * np.pi) + 1e-9).astype(int)
    indices = np.array(list(product(*(range(-n, n + 1) for n in limits))))
    vectors = indices @ reciprocal
    lengths = np.linalg.norm(vectors, axis=1)
    shortest = 2 * np.pi / spacings[1]
    vectors = vectors[(lengths >= shortest - 1e-9) & (lengths <= longest + 1e-9)]
    if not len(vectors):
        return float("nan")
    # G and -G give the same.
    vectors = vectors[: len(vectors) // 2]
    return float((np.abs(np.exp(1j * atoms.positions @ vectors.T).mean(axis=0)) ** 2).max())
