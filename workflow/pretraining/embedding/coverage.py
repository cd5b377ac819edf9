"""Coverage of a projected sample by a base sample, in the space of the descriptors.

A plane cannot keep distances, so the map comes with a number. With the distance of an environment
p to the nearest one of the base B,

    d(p, B) = min over b in B of |v_p - v_b|,

and d₉₅ the 95th percentile of the distances of base environments to environments of *other* base
structures, the coverage is the fraction of p with d(p, B) <= d₉₅. The base covers itself to 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pretraining.embedding.soap import Environments
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown

PERCENTILE = 95
# Heads and formats of the page.
COLUMNS = {
    "base": ("base", ""),
    "projected": ("projected", ""),
    "environments": ("environments", ",d"),
    "typical": ("d₉₅ of the base", ".4f"),
    "median": ("median d", ".4f"),
    "covered": ("covered (%)", ".1f"),
}
_ROWS = 500


def nearest_distances(
    vectors: np.ndarray,
    base: np.ndarray,
    structures: np.ndarray | None = None,
    base_structures: np.ndarray | None = None,
) -> np.ndarray:
    """Return the distance of each environment to the nearest of the base.

    Parameters
    ----------
    vectors, base
        Descriptors, shapes (n, d) and (m, d).
    structures, base_structures
        Structure of each, shapes (n,) and (m,); environments of the same one do not count.

    Returns
    -------
    numpy.ndarray
        Shape (n,); infinite if the base has no other structure.
    """
    # Double precision: squares of small distances are differences of large numbers.
    base = base.astype(np.float64)
    squares = (base**2).sum(axis=1)
    nearest = np.empty(len(vectors))
    for start in range(0, len(vectors), _ROWS):
        part = slice(start, start + _ROWS)
        block = vectors[part].astype(np.float64)
        distances = (block**2).sum(axis=1)[:, None] + squares - 2 * block @ base.T
        if structures is not None:
            distances[structures[part, None] == base_structures] = np.inf
        nearest[part] = distances.min(axis=1)
    return np.sqrt(np.maximum(nearest, 0))


def own_distances(base: Environments) -> np.ndarray:
    """Return the distance of each environment of a base to the nearest of another structure.

    Raises
    ------
    UserError
        If all environments are of one structure.
    """
    distances = nearest_distances(base.vectors, base.vectors, base.structure, base.structure)
    if np.isinf(distances).any():
        raise UserError("the base is a single structure: take environments of several")
    return distances


def coverage_table(
    base: Mapping[str, Environments], projected: Mapping[str, Environments]
) -> pd.DataFrame:
    """Return the coverage of each projected sample by each base sample.

    Returns
    -------
    pandas.DataFrame
        Columns ``base``, ``projected``, ``environments`` (number of the projected), ``typical``
        (d₉₅ of the base), ``median`` (of the projected distances) and ``covered`` (fraction).
    """
    rows = []
    for name, sample in base.items():
        own = own_distances(sample)
        typical = float(np.percentile(own, PERCENTILE))
        for other, vectors in projected.items():
            distances = nearest_distances(vectors.vectors, sample.vectors)
            rows.append(
                {
                    "base": name,
                    "projected": other,
                    "environments": len(vectors),
                    "typical": typical,
                    "median": float(np.median(distances)),
                    "covered": float(np.mean(distances <= typical)),
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def as_markdown(table: pd.DataFrame) -> str:
    """Return a page with the table."""
    percent = table.assign(covered=100 * table["covered"])
    about = (
        "\nCovered: the fraction of projected environments p with d(p) ≤ d₉₅, in the space of the "
        "descriptors. d(p) is the distance to the nearest environment of the base; d₉₅ is the "
        f"{PERCENTILE}th percentile of the distances of the base's own environments to the nearest "
        "one of another of its structures. By this measure the base covers itself to "
        f"{PERCENTILE} %.\n"
    )
    return markdown(percent, columns=COLUMNS) + about
