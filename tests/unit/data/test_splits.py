"""Validation, test and training parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretraining.data.splits import split_structures
from pretraining.runtime.errors import UserError
from pretraining.study.queries import split_sizes


def everything(parts) -> list[int]:
    return sorted(np.concatenate([parts.val, parts.test, parts.train]).tolist())


@settings(max_examples=50, deadline=None)
@given(n=st.integers(12, 20_000))
def test_random_split_is_the_protocols(n: int) -> None:
    order = np.random.RandomState(42).permutation(n).tolist()
    n_test = min(1000, n // 10)
    left, test = order[: n - n_test], order[n - n_test :]
    n_val = min(100, len(left) // 10)
    parts = split_structures(n, {})
    assert parts.test.tolist() == test
    assert parts.val.tolist() == left[len(left) - n_val :]
    assert parts.train.tolist() == left[: len(left) - n_val]
    assert split_sizes(n, {}) == (n_val, n_test)


@settings(max_examples=50, deadline=None)
@given(own=st.lists(st.sampled_from(["train", "test"]), min_size=30, max_size=300))
def test_own_test_part_is_taken_as_it_stands(own: list[str]) -> None:
    train = [i for i, part in enumerate(own) if part == "train"]
    test = [i for i, part in enumerate(own) if part == "test"]
    if len(train) < 10 or not test:
        return
    shuffled = [train[i] for i in np.random.RandomState(42).permutation(len(train))]
    n_val = min(100, len(train) // 10)
    parts = split_structures(len(own), {"key": "split"}, own=own)
    assert parts.test.tolist() == test
    assert parts.val.tolist() == shuffled[-n_val:]
    assert parts.train.tolist() == shuffled[:-n_val]


def test_published_sizes() -> None:
    """C-GAP-17 has 4,080 + 450 structures, C-SYNTH-23M more than 100,000 after the melt."""
    parts = split_structures(4530, {"key": "split"}, own=["train"] * 4080 + ["test"] * 450)
    assert (len(parts.val), len(parts.test), len(parts.train)) == (100, 450, 3980)
    parts = split_structures(109_746, {})
    assert (len(parts.val), len(parts.test), len(parts.train)) == (100, 1000, 108_646)
    parts = split_structures(410, {})
    assert (len(parts.val), len(parts.test), len(parts.train)) == (36, 41, 333)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=12, max_size=60),
    fraction=st.floats(0.05, 0.2),
    seed=st.integers(0, 100),
)
def test_trajectories_stay_whole(sizes: list[int], fraction: float, seed: int) -> None:
    groups = [f"run {k}" for k, size in enumerate(sizes) for _ in range(size)]
    n = len(groups)
    split = {"seed": seed, "fraction": fraction}
    try:
        parts = split_structures(n, split, groups=groups)
    except UserError:  # too few, or one trajectory is nearly everything
        return
    assert everything(parts) == list(range(n))
    runs = [{groups[i] for i in part} for part in (parts.val, parts.test, parts.train)]
    assert not runs[0] & runs[1] and not runs[0] & runs[2] and not runs[1] & runs[2]
    asked = split_sizes(n, split)[1]
    near = min(abs(asked - size) for size in sizes)
    assert len(parts.test) <= 1.2 * asked or len(parts.test) - asked <= max(near, asked)
    again = split_structures(n, split, groups=groups)
    np.testing.assert_array_equal(again.train, parts.train)


@pytest.mark.parametrize(
    ("sizes", "asked", "expected"),
    [
        ([24] * 20, 40, (48, 48)),
        ([48] * 20, 40, (48, 48)),
        ([10] * 50, 40, (40, 40)),
        # A trajectory that is too long stays in the pool, wherever it stands.
        ([1000] + [5] * 100, 40, (40, 40)),
        ([5] * 100 + [1000], 40, (40, 40)),
        ([16] * 30, 40, (48, 48)),
        ([17] * 30, 40, (34, 34)),
        # Nothing else is there.
        ([100, 100, 100], 10, (100, 100)),
    ],
)
@pytest.mark.parametrize("seed", [1, 42, 7])
def test_whole_trajectories_come_near_the_sizes_that_are_asked_for(sizes, asked, expected, seed):
    groups = [k for k, size in enumerate(sizes) for _ in range(size)]
    split = {"n_val": asked, "n_test": asked, "seed": seed}
    parts = split_structures(len(groups), split, groups=groups)
    assert (len(parts.val), len(parts.test)) == expected
    count = len({groups[i] for i in parts.val})
    assert f"validation {expected[0]} structures of {count} (asked for: {asked})" in parts.note


def test_what_becomes_of_the_validation_part_is_said() -> None:
    own = ["train"] * 40 + ["test"] * 10
    assert split_structures(50, {"key": "s"}, own=own).note.endswith(
        "4 of the others were drawn for it"
    )
    assert split_structures(50, {"test_path": "t.xyz"}, own=own).note is not None
    own[:5] = ["val"] * 5
    parts = split_structures(50, {"test_path": "t.xyz", "val_path": "v.xyz"}, own=own)
    assert (parts.val.tolist(), len(parts.test), parts.note) == ([0, 1, 2, 3, 4], 10, None)
    assert split_structures(50, {}).note is None


def test_trajectories_are_mixed_in_the_pool() -> None:
    groups = np.repeat(np.arange(45), 40)
    parts = split_structures(1800, {}, groups=groups)
    assert (len(parts.val), len(parts.test), len(parts.train)) == (120, 200, 1480)
    assert len({groups[i] for i in parts.train[:50]}) > 20


def test_settings() -> None:
    parts = split_structures(100, {"n_test": 7, "n_val": 3})
    assert (len(parts.val), len(parts.test), len(parts.train)) == (3, 7, 90)
    parts = split_structures(1000, {"fraction": 0.2, "max_test": 150, "max_val": 20})
    assert (len(parts.val), len(parts.test), len(parts.train)) == (20, 150, 830)
    assert (
        split_structures(100, {"seed": 1}).train.tolist()
        != split_structures(100, {}).train.tolist()
    )
    # 0.29 * 100 is a little less than 29 in floating point.
    assert split_sizes(100, {"fraction": 0.29})[1] == 29


def test_own_validation_part() -> None:
    own = ["train"] * 20 + ["val"] * 3 + ["test"] * 2
    parts = split_structures(25, {"key": "split", "val": "val"}, own=own)
    assert parts.val.tolist() == [20, 21, 22]
    assert parts.test.tolist() == [23, 24]
    assert parts.train.tolist() == np.random.RandomState(42).permutation(20).tolist()


@pytest.mark.parametrize(
    ("n", "split", "own", "groups", "message"),
    [
        (9, {}, None, None, "no test structures are left of 9"),
        (10, {}, None, None, "no val structures are left of 10"),
        (10, {"n_test": 5, "n_val": 5}, None, None, "no train structures are left of 10"),
        (10, {"n_test": 20, "n_val": 5}, None, None, "no val structures are left of 10"),
        (3, {}, ["train"] * 3, None, "split.test is 'test', but .* has only: train"),
        (
            4,
            {},
            ["train", "test", "valid", "train"],
            None,
            "values test, train, valid: one besides split.test and split.val",
        ),
        (3, {"val": "dev"}, ["train", "test", "x"], None, "split.val is 'dev', but"),
        (3, {}, ["test"] * 3, None, "no val structures are left of 3"),
        (
            40,
            {},
            (["train"] * 9 + ["test"]) * 4,
            np.repeat([7, 8, 9, 10], 10),
            "trajectory [0-9]+ is in both the test and the",
        ),
        (20, {}, None, [1] * 20, "no val structures are left of 20"),
    ],
)
def test_bad_input_is_one_line(n, split, own, groups, message) -> None:
    with pytest.raises(UserError, match=message) as error:
        split_structures(n, split, own, groups)
    assert "\n" not in str(error.value)
