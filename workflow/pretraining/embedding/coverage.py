"""How much of a projected sample lies where the base has been: a number beside the map.

A plane cannot keep distances, so this is counted in the space of the descriptors. With d(p, B) the
distance of an environment p to the nearest one of the base B,

    d(p, B) = min over b in B of |v_p - v_b|,

and d₉₅ the 95th percentile over the base of its own nearest-neighbour distances, those of b to
environments of *other* structures, the coverage is the fraction of p with d(p, B) <= d₉₅. The base
covers itself, structure by structure, to 95 %.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pretraining.embedding.soap import Environments
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown_table

PERCENTILE = 95
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
        Structure of each, shapes (n,) and (m,); environments of the same one are passed over.

    Returns
    -------
    numpy.ndarray
        Shape (n,); infinite where the base has no other structure.
    """
    # In double precision: squares of small distances are differences of large numbers.
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
    """Return the distance of each of a base's environments to the nearest of another structure.

    Raises
    ------
    UserError
        If they are all of one structure.
    """
    distances = nearest_distances(base.vectors, base.vectors, base.structure, base.structure)
    if np.isinf(distances).any():
        raise UserError("the base is a single structure: take environments of more, to compare")
    return distances


def coverage_table(
    base: Mapping[str, Environments], projected: Mapping[str, Environments]
) -> pd.DataFrame:
    """Return how far each base sample covers each projected one.

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
    columns = ["base", "projected", "environments", "typical", "median", "covered"]
    return pd.DataFrame(rows, columns=columns)


def as_markdown(table: pd.DataFrame) -> str:
    """Return the table as a page."""
    header = ["base", "projected", "environments", "d₉₅ of the base", "median d", "covered"]
    rows = [
        [
            row.base,
            row.projected,
            f"{row.environments:,}",
            f"{row.typical:.4f}",
            f"{row.median:.4f}",
            f"{100 * row.covered:.1f} %",
        ]
        for row in table.itertuples()
    ]
    about = (
        "\nCovered: the fraction of projected environments p with d(p) ≤ d₉₅, in the space of the "
        "descriptors. d(p) is the distance to the nearest environment of the base; d₉₅ is the "
        f"{PERCENTILE}th percentile of the distances of the base's own environments to the nearest "
        "one of another of its structures. By this measure the base covers itself to "
        f"{PERCENTILE} %.\n"
    )
    return markdown_table(header, rows) + about
