"""Maps of atomic environments: UMAP fits a plane to the descriptors of the base samples.

Source: McInnes, Healy, Melville, arXiv:1802.03426. In one thread the same descriptors give the same
map bit for bit on one machine. Elsewhere the last digits of sums differ, and a map may look
different with the same neighbourhoods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from pretraining.embedding.soap import Environments
from pretraining.runtime.errors import UserError

COLUMNS = ("structure", "atom", "density", "coordination", "energy")


def fit_map(
    base: np.ndarray,
    projected: Sequence[np.ndarray],
    *,
    n_neighbors: int,
    min_dist: float,
    seed: int,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Fit a map to the base and project each other sample onto it.

    Parameters
    ----------
    base
        Descriptors, shape (n, d).
    projected
        Descriptors of each projected sample, shapes (m, d).
    n_neighbors, min_dist, seed
        Parameters of UMAP.

    Returns
    -------
    tuple
        Coordinates of the base, shape (n, 2), and of each projected sample, shapes (m, 2).

    Raises
    ------
    UserError
        If the base has no more environments than `n_neighbors`.
    """
    if len(base) <= n_neighbors:
        raise UserError(
            f"the base has {len(base)} environments, UMAP's n_neighbors is {n_neighbors}: take "
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
        ).fit(base)
        return umap.embedding_, [umap.transform(vectors) for vectors in projected]


def embed(
    base: Mapping[str, Environments],
    projected: Mapping[str, Environments],
    settings: Mapping[str, Any],
) -> pd.DataFrame:
    """Return the table of a map.

    Parameters
    ----------
    base, projected
        Samples by name.
    settings
        ``n_neighbors``, ``min_dist`` and ``seed``.

    Returns
    -------
    pandas.DataFrame
        One row per environment: ``sample``, ``role`` (``base`` or ``project``), ``x``, ``y``, and
        ``structure``, ``atom``, ``density``, ``coordination``, ``energy`` of
        :class:`pretraining.embedding.soap.Environments`.
    """
    joint = np.concatenate([sample.vectors for sample in base.values()])
    others = [sample.vectors for sample in projected.values()]
    places, placed = fit_map(joint, others, **settings)
    ends = np.cumsum([len(sample) for sample in base.values()])[:-1]
    tables = []
    for role, samples, points in (
        ("base", base, np.split(places, ends)),
        ("project", projected, placed),
    ):
        for (name, sample), xy in zip(samples.items(), points, strict=True):
            known = {column: getattr(sample, column) for column in COLUMNS}
            place = {"x": xy[:, 0], "y": xy[:, 1]}
            tables.append(pd.DataFrame({"sample": name, "role": role, **place, **known}))
    return pd.concat(tables, ignore_index=True)
