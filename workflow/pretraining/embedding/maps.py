"""Maps of atomic environments by UMAP, and the coverage of one sample by another.

UMAP (McInnes, Healy, Melville, arXiv:1802.03426) fits a plane to the descriptors of the base
samples. In one thread the same descriptors give the same map bit for bit on one machine; on
another, rounding may change its look, with the same neighbourhoods. A plane cannot keep distances,
so each map comes with the coverage, measured in the space of the descriptors.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from pretraining.embedding.soap import Environments
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown

# Properties of an environment in the table of a map.
PROPERTIES = ("structure", "atom", "density", "coordination", "energy")
PERCENTILE = 95
# Heads and formats of the coverage's page.
COVERAGE = {
    "base": ("base", ""),
    "projected": ("projected", ""),
    "environments": ("environments", ",d"),
    "typical": ("d₉₅ of the base", ".4f"),
    "median": ("median d", ".4f"),
    "covered": ("covered (%)", ".1f"),
}
_ROWS = 500


def embed(
    base: Mapping[str, Environments],
    projected: Mapping[str, Environments],
    *,
    n_neighbors: int,
    min_dist: float,
    seed: int,
) -> pd.DataFrame:
    """Fit a map to the base samples, project the others onto it, and return its table.

    Raises a `UserError` if the base has no more environments than `n_neighbors`.

    Parameters
    ----------
    base, projected
        Samples by name.
    n_neighbors, min_dist, seed
        Parameters of UMAP.

    Returns
    -------
    pandas.DataFrame
        One row per environment: ``sample``, ``role`` (``base`` or ``project``), ``x``, ``y`` and
        the :data:`PROPERTIES` of :class:`pretraining.embedding.soap.Environments`.
    """
    joint = np.concatenate([sample.vectors for sample in base.values()])
    if len(joint) <= n_neighbors:
        raise UserError(
            f"the base has {len(joint)} environments, UMAP's n_neighbors is {n_neighbors}: take "
            "more environments, or fewer neighbours"
        )
    # The import takes seconds.
    from umap import UMAP

    with threadpool_limits(1):
        umap = UMAP(
            n_neighbors=n_neighbors,
            min_dist=min_dist,
            random_state=seed,
            transform_seed=seed,
            n_jobs=1,
        ).fit(joint)
        ends = np.cumsum([len(sample) for sample in base.values()])[:-1]
        points = {
            "base": np.split(umap.embedding_, ends),
            "project": [umap.transform(sample.vectors) for sample in projected.values()],
        }
    tables = []
    for role, samples in (("base", base), ("project", projected)):
        for (name, sample), xy in zip(samples.items(), points[role], strict=True):
            columns = {"sample": name, "role": role, "x": xy[:, 0], "y": xy[:, 1]}
            columns |= {key: getattr(sample, key) for key in PROPERTIES}
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def nearest_distances(
    vectors: np.ndarray,
    base: np.ndarray,
    structures: np.ndarray | None = None,
    base_structures: np.ndarray | None = None,
) -> np.ndarray:
    """Return the distance of each environment to the nearest of the base, shape (n,).

    Parameters
    ----------
    vectors, base
        Descriptors, shapes (n, d) and (m, d).
    structures, base_structures
        Structure of each, shapes (n,) and (m,): the distance to environments of the same one is
        infinite.
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


def coverage_table(
    base: Mapping[str, Environments], projected: Mapping[str, Environments]
) -> pd.DataFrame:
    """Return the coverage of each projected sample by each base sample.

    Raises a `UserError` if all environments of a base are of one structure.

    Returns
    -------
    pandas.DataFrame
        Columns ``base``, ``projected``, ``environments`` (number of the projected), ``typical``
        (d₉₅ of the base), ``median`` (of the projected distances) and ``covered`` (fraction), as
        :func:`as_markdown` defines them.
    """
    rows = []
    for name, sample in base.items():
        own = nearest_distances(sample.vectors, sample.vectors, sample.structure, sample.structure)
        if np.isinf(own).any():
            raise UserError("the base is a single structure: take environments of several")
        typical = float(np.percentile(own, PERCENTILE))
        for other, environments in projected.items():
            distances = nearest_distances(environments.vectors, sample.vectors)
            rows.append(
                {
                    "base": name,
                    "projected": other,
                    "environments": len(environments),
                    "typical": typical,
                    "median": float(np.median(distances)),
                    "covered": float(np.mean(distances <= typical)),
                }
            )
    return pd.DataFrame(rows, columns=list(COVERAGE))


def as_markdown(table: pd.DataFrame) -> str:
    """Return a page with the coverage and its definition."""
    percent = table.assign(covered=100 * table["covered"])
    about = (
        "\nCovered: the fraction of projected environments p with d(p) ≤ d₉₅, in the space of the "
        "descriptors. d(p) is the distance to the nearest environment of the base; d₉₅ is the "
        f"{PERCENTILE}th percentile of the distances of the base's own environments to the nearest "
        "one of another of its structures. By this measure the base covers itself to "
        f"{PERCENTILE} %.\n"
    )
    return markdown(percent, columns=COVERAGE) + about
