"""Near-duplicates: test structures that hardly differ from a training structure.

The fingerprint of a structure is the mean, over the atoms of each element, of the distances to the
nearest neighbours of each element. Structures with equal fingerprints are copies, also turned or in
another order. Those whose atoms have the same order and cell differ by the rms displacement of
their atoms, and their fingerprints by no more than twice that, which selects candidates.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from ase import Atoms
from ase.geometry import find_mic
from scipy.spatial import cKDTree

from pretraining.data.geometry import pairs
from pretraining.data.store import Store

# Displacement (rms) of near-duplicates and difference of fingerprints of copies, Å. Independent
# snapshots of a crystal at room temperature differ by 0.2 Å, its frames after 10 fs by 0.03 Å.
MOVED, SAME = 0.1, 1e-3
# Neighbours of an atom, those within this radius, Å; candidates and nearest frames to look at.
NEIGHBOURS, RADIUS, CANDIDATES, FRAMES = 12, 4.0, 6, 4


def near_duplicates(store: Store) -> list[str]:
    """Say how many structures of the test set hardly differ from one of the training pool."""
    first, raw = store.duplicate_of, store.column("index").astype(int)
    train, test = store.indices("train"), store.indices("test")
    repeated = set(first[train.start : train.stop].tolist())  # reported elsewhere
    kinds: dict[bytes, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for i in [i for i in test if first[i] not in repeated] + [*train]:
        kinds[np.sort(store.arrays(i)["numbers"]).tobytes()][i in train].append(i)
    found = []
    for asked, pool in kinds.values():
        tree = cKDTree([fingerprint(store[j]) for j in pool]) if asked and pool else None
        for i in asked if tree else ():
            atoms = store[i]
            apart, near = tree.query(fingerprint(atoms), CANDIDATES, distance_upper_bound=2 * MOVED)
            frames = np.argsort(abs(raw[pool] - raw[i]))[:FRAMES]
            others = [pool[k] for k in dict.fromkeys([*near, *frames]) if k < len(pool)]
            copy = others[0] if apart[0] < SAME else None
            match = next((j for j in others if displacement(atoms, store[j]) < MOVED), copy)
            if match is not None:
                found.append((raw[i], raw[match]))
    if not found:
        return []
    return [
        f"{len(found):,} of {len(test):,} test structures hardly differ from a training structure "
        f"(atoms moved by less than {MOVED} Å, or a copy; structures {found[0][0]} and "
        f"{found[0][1]}, for example): errors on them tell little; split.groups keeps "
        "trajectories together"
    ]


def fingerprint(atoms: Atoms) -> np.ndarray:
    """Mean distances (Å) to the nearest neighbours, in order, over the square root of their number.

    Shape (n_elements² * NEIGHBOURS,); no distance is beyond the radius.
    """
    i, j, d = pairs(atoms, RADIUS)
    elements, kind = np.unique(atoms.numbers, return_inverse=True)
    n, line = len(elements), i * len(elements) + kind[j]
    order = np.lexsort((d, line))
    line, d = line[order], d[order]
    rank = np.arange(len(line)) - np.searchsorted(line, line)
    nearest = np.full((len(atoms) * n, NEIGHBOURS), RADIUS)
    nearest[line[rank < NEIGHBOURS], rank[rank < NEIGHBOURS]] = d[rank < NEIGHBOURS]
    means = [nearest.reshape(len(atoms), -1)[kind == k].mean(axis=0) for k in range(n)]
    return np.concatenate(means) / (n**2 * NEIGHBOURS) ** 0.5


def displacement(one: Atoms, other: Atoms) -> float:
    """Displacement of the atoms (rms, Å); infinite for another order or another cell."""
    if (one.numbers != other.numbers).any() or (one.pbc != other.pbc).any():
        return np.inf
    if np.abs(one.cell - other.cell).max() > MOVED / 5:
        return np.inf
    moves = find_mic(one.positions - other.positions, one.cell, one.pbc)[0]
    return float(np.sqrt(((moves - moves.mean(axis=0)) ** 2).sum(axis=1).mean()))
