"""Split structures into validation, test and training parts.

One permutation decides, the same for every training seed. Training sets are nested: training on *n*
structures means the first *n* of the training pool.

- All *n* structures are permuted, and the last ``min(1000, n // 10)`` are the test set. A test part
  of the set's own is used as it is, and the rest is permuted.
- Of the *m* structures left, in the same order, the last ``min(100, m // 10)`` are the validation
  set. (*m*, not *n*, as in the published runs.)
- Split by trajectory, whole trajectories in a permuted order form the test set, then the validation
  set, until each is at least that large; one that makes a part a fifth too large waits for the
  others. The training pool mixes the remaining ones.

A random split of frames puts frames of one trajectory into several parts, as in the published runs:
its test error is that of frames like those trained on. ``groups`` keeps trajectories together.

Source: Gardner, Baker, Deringer (2023) and the code that made its data sets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from pretraining.runtime.errors import UserError
from pretraining.study.queries import part_size, split_sizes

SEED = 42
# A part may exceed its size by this share.
SURPLUS = Fraction(1, 5)


@dataclass(frozen=True)
class Split:
    """Positions of the structures of each part, in their order of use."""

    val: np.ndarray
    test: np.ndarray
    train: np.ndarray
    note: str | None = None  # sizes of parts that follow from the set


def split_structures(
    n: int,
    split: Mapping[str, Any],
    own: Sequence[Any] | None = None,
    groups: Sequence[Any] | None = None,
) -> Split:
    """Split `n` structures into validation, test and training parts.

    `split` is the dataset's entry of the configuration, `own` the part of each structure in the
    set's own split, `groups` the trajectory of each. Raises a `UserError` if a part would be empty,
    a value of `own` is unknown, or a trajectory is cut.
    """
    rng = np.random.RandomState(split.get("seed", SEED))
    if own is None:
        parts = _deal(rng, np.arange(n), split, groups)
    else:
        parts = _own_split(rng, np.asarray(own, dtype=object), split, groups)
    for name in ("test", "val", "train"):
        if len(getattr(parts, name)) == 0:
            raise UserError(
                f"no {name} structures are left of {n}: give more structures, or set split.n_test "
                "and split.n_val"
            )
    if groups is not None:
        _check_groups(parts, groups)
    return parts


def _deal(
    rng: np.random.RandomState,
    rest: np.ndarray,
    split: Mapping[str, Any],
    groups: Sequence[Any] | None,
    test: np.ndarray | None = None,
) -> Split:
    """Split the positions `rest`: all of a set, or all but its own `test` part."""
    if groups is not None:
        return _deal_groups(rng, rest, split, groups, test)
    rest = rest[rng.permutation(len(rest))]
    own_test = test is not None
    if test is None:
        rest, test = _cut(rest, split_sizes(len(rest), split)[1])
    train, val = _cut(rest, part_size(len(rest), split, "val"))
    note = f"the split names no validation part: {len(val):,} of the others were drawn for it"
    return Split(val=val, test=test, train=train, note=note if own_test else None)


def _cut(values: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut off the last `n` values."""
    cut = max(0, len(values) - n)  # values[:-n] would be wrong for n = 0
    return values[:cut], values[cut:]


def _deal_groups(
    rng: np.random.RandomState,
    rest: np.ndarray,
    split: Mapping[str, Any],
    groups: Sequence[Any],
    test: np.ndarray | None,
) -> Split:
    members: dict[Any, list[int]] = {}
    for i in rest:
        members.setdefault(groups[i], []).append(int(i))
    lists = list(members.values())
    order = [lists[i] for i in rng.permutation(len(lists))]

    def take(asked: int) -> np.ndarray:
        taken: list[int] = []
        passed: list[list[int]] = []
        while order and len(taken) < asked:
            near = len(taken) + len(order[-1]) <= asked * (1 + SURPLUS)
            (taken.extend if near else passed.append)(order.pop())
        if len(taken) < asked and passed:
            nearest = min(passed, key=len)
            if not taken or len(taken) + len(nearest) - asked < asked - len(taken):
                taken.extend(nearest)
                passed.remove(nearest)
        order.extend(reversed(passed))
        return np.array(taken, dtype=np.int64)

    asked = {}
    if test is None:
        test = take(asked.setdefault("test", split_sizes(len(rest), split)[1]))
    val = take(asked.setdefault("validation", part_size(sum(map(len, order)), split, "val")))
    train = np.array([i for group in order for i in group], dtype=np.int64)
    sizes = {"test": test, "validation": val}
    said = [
        f"{name} {len(sizes[name]):,} structures of {len({groups[i] for i in sizes[name]}):,} "
        f"(asked for: {n:,})"
        for name, n in asked.items()
    ]
    note = f"whole trajectories in each part: {', '.join(said)}"
    return Split(val=val, test=test, train=train[rng.permutation(len(train))], note=note)


def _own_split(
    rng: np.random.RandomState,
    own: np.ndarray,
    split: Mapping[str, Any],
    groups: Sequence[Any] | None,
) -> Split:
    in_files = "test_path" in split
    names = {"test": "test" if in_files else str(split.get("test", "test"))}
    if (val := "val" if "val_path" in split else split.get("val")) is not None:
        names["val"] = str(val)
    own = own.astype(str)
    values = sorted(set(own))
    others = [value for value in values if value not in names.values()]
    for key, value in names.items():
        if value not in values:
            raise UserError(
                f"split.{key} is '{value}', but the set's own split has only: {', '.join(values)}"
            )
    if len(others) > 1:
        raise UserError(
            f"the set's own split has the values {', '.join(values)}: one besides split.test and "
            "split.val can be the training part"
        )
    test = np.flatnonzero(own == names["test"])
    rest = np.flatnonzero(own == others[0]) if others else np.array([], dtype=np.int64)
    if "val" in names:
        val = np.flatnonzero(own == names["val"])
        return Split(val=val, test=test, train=rest[rng.permutation(len(rest))])
    return _deal(rng, rest, split, groups, test)


def _check_groups(parts: Split, groups: Sequence[Any]) -> None:
    seen: dict[Any, str] = {}
    for name in ("test", "val", "train"):
        for i in getattr(parts, name):
            if seen.setdefault(groups[i], name) != name:
                raise UserError(
                    f"trajectory {groups[i]} is in both the {seen[groups[i]]} and the {name} part: "
                    "leave out split.groups or split.key"
                )
