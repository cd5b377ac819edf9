"""What the atoms of a frame are bonded to, and whether they lie in layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

TOP = 8  # atoms with so many neighbours or more are counted together
FOLDS = tuple(f"fold_{n}" for n in range(TOP)) + (f"fold_{TOP}_or_more",)
LAYERING = "layering"
# Distances of layers that are looked for, Å: graphite has 3.35, disordered layers up to 3.7.
SPACINGS = (3.0, 4.0)


def neighbours(atoms: Atoms, radius: float) -> np.ndarray:
    """Return the number of neighbours of each atom within `radius` (Å), shape (n_atoms,)."""
    return np.bincount(neighbor_list("i", atoms, radius), minlength=len(atoms))


def fold_counts(numbers: np.ndarray) -> np.ndarray:
    """Count the atoms with 0, 1, … and 8 or more neighbours, shape (9,), given those of each."""
    return np.bincount(np.minimum(numbers, TOP), minlength=TOP + 1)


def layering(atoms: Atoms, spacings: Sequence[float] = SPACINGS) -> float:
    """Return how far the atoms lie in evenly spaced flat layers.

    The height of the largest peak of the atomic density's Fourier transform at distances of
    layers, relative to that of perfect layers::

        L = max_G |1/N Σ_j exp(i G·r_j)|²,    d_min ≤ 2π/|G| ≤ d_max

    over the reciprocal lattice vectors G of the cell, so that L is the height of the (002) peak of
    the structure factor over the number of atoms N. It is 1 for flat layers at rest, and about
    ln(M)/N without order, with M directions to choose from.

    Parameters
    ----------
    spacings
        Smallest and largest distance of neighbouring layers, Å.

    Returns
    -------
    float
        NaN if the structure is not periodic or no vector of its cell is in the range.
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
