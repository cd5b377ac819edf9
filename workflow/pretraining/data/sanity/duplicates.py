"""Near-duplicates: test structures that hardly differ from a training structure.

Structures of the same atoms in the same order and cell differ by the rms displacement of their
atoms. Others (shifted, turned, in another order) differ by the distances of each atom to its
nearest neighbours, with the atoms matched best. The means of these distances over all atoms differ
by no more than twice as much in either case: they select candidates.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from ase import Atoms
from ase.cell import Cell
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from pretraining.data.geometry import pairs
from pretraining.data.store import Store

# Least displacement and least difference of distances of other structures, Å (rms). Of a crystal at
# room temperature, independent snapshots differ by 0.2 Å, and frames after 10 fs by 0.03 Å.
MOVED, SAME = 0.1, 0.02
# Neighbours of an atom, those within this radius, Å; and structures that are looked at for each.
NEIGHBOURS, RADIUS, CANDIDATES = 12, 4.0, 6
# Cells with edges that differ by less, Å, are the same.
EDGE = 0.02


def near_duplicates(store: Store) -> list[str]:
    """Say how many structures of the test set hardly differ from one of the training pool."""
    first, raw = store.duplicate_of, store.column("index")
    train = store.indices("train")
    # What repeats another exactly is reported elsewhere.
    repeated = set(first[train.start : train.stop].tolist())
    test = [i for i in store.indices("test") if first[i] not in repeated]

    @lru_cache(maxsize=10_000)
    def row(i: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        arrays = store.arrays(i)
        return arrays, distances(arrays)

    kinds: dict[bytes, list[int]] = {}
    for i in [*test, *train] if test else ():
        kinds.setdefault(np.sort(store.arrays(i)["numbers"]).tobytes(), []).append(i)
    found = []
    for members in kinds.values():
        here = [i for i in members if i in train]
        asked = [i for i in members if i not in train]
        if not (here and asked):
            continue
        means = np.array([row(i)[1].mean(axis=0) for i in members])
        means /= means.shape[1] ** 0.5
        place = {i: k for k, i in enumerate(members)}
        tree = cKDTree(means[[place[i] for i in here]])
        for i in asked:
            _, near = tree.query(means[place[i]], k=CANDIDATES, distance_upper_bound=2 * MOVED)
            # Neighbouring frames, too.
            close = np.argsort(abs(raw[here].astype(int) - int(raw[i])))[:4]
            others = [here[k] for k in dict.fromkeys([*near, *close]) if k < len(here)]
            match = next((j for j in others if are_near(row(i), row(j))), None)
            if match is not None:
                found.append((int(raw[i]), int(raw[match])))
    if not found:
        return []
    return [
        f"{len(found):,} of {len(store.indices('test')):,} test structures hardly differ from a "
        f"training structure (atoms moved by less than {MOVED} Å; {found[0][0]} and "
        f"{found[0][1]}, for example): errors on them tell little; split.groups keeps "
        "trajectories together"
    ]


def distances(row: dict[str, np.ndarray]) -> np.ndarray:
    """Distances (Å) of each atom to its nearest neighbours of each element, ascending.

    Shape (n_atoms, n_elements * NEIGHBOURS); none is beyond the radius.
    """
    numbers = row["numbers"]
    i, j, d = pairs(Atoms(numbers, row["positions"], cell=row["cell"], pbc=row["pbc"]), RADIUS)
    elements, kind = np.unique(numbers, return_inverse=True)
    out = np.full((len(numbers) * len(elements), NEIGHBOURS), RADIUS, dtype=np.float32)
    line = i * len(elements) + kind[j]
    order = np.lexsort((d, line))
    line, d = line[order], d[order]
    rank = np.arange(len(line)) - np.searchsorted(line, line)
    near = rank < NEIGHBOURS
    out[line[near], rank[near]] = d[near]
    return out.reshape(len(numbers), -1)


def are_near(one: tuple, other: tuple) -> bool:
    """Return whether two structures of the same elements, with their distances, hardly differ."""
    (a, of_a), (b, of_b) = one, other
    if (a["pbc"] != b["pbc"]).any():
        return False
    if (a["numbers"] == b["numbers"]).all() and np.abs(a["cell"] - b["cell"]).max() < EDGE:
        cell = Cell(a["cell"]).complete()
        moves = cell.scaled_positions(a["positions"] - b["positions"])
        moves = cell.cartesian_positions(moves - np.where(a["pbc"], np.round(moves), 0))
        moves -= moves.mean(axis=0)
        if (moves**2).sum(axis=1).mean() < MOVED**2:
            return True
    pairs_of = []
    for z in np.unique(a["numbers"]):
        one, other = of_a[a["numbers"] == z], of_b[b["numbers"] == z]
        rows, columns = linear_sum_assignment(cdist(one, other, "sqeuclidean"))
        pairs_of.append(np.stack([one[rows].ravel(), other[columns].ravel()]))
    both = np.hstack(pairs_of)
    both = both[:, (both < RADIUS).any(axis=0)]
    return both.size == 0 or float(np.mean((both[0] - both[1]) ** 2)) < SAME**2
