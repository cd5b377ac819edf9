"""How many structures the validation and the test set take."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

FRACTION = 0.1


MAX_TEST = 1000


MAX_VAL = 100


def split_sizes(n: int, split: Mapping[str, Any]) -> tuple[int, int]:
    """Sizes of the validation and the test set of `n` structures without a split of their own.

    Parameters
    ----------
    n
        Number of structures, after filters.
    split
        The dataset's ``split`` of the configuration.

    Returns
    -------
    tuple of int
        Number of validation and of test structures.
    """
    n_test = _size(n, split, "n_test", "max_test", MAX_TEST)
    return _size(n - n_test, split, "n_val", "max_val", MAX_VAL), n_test


def _size(n: int, split: Mapping[str, Any], key: str, limit: str, default: int) -> int:
    if split.get(key) is not None:
        return split[key]
    # Exact, where n * 0.1 may fall just short of a whole number.
    return min(split.get(limit, default), int(n * Fraction(str(split.get("fraction", FRACTION)))))
