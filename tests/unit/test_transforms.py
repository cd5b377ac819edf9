"""Alchemical transforms."""

from __future__ import annotations

import numpy as np
import pytest

from pretraining.errors import UserError
from pretraining.transforms import Transform

ARRAYS = {
    "numbers": np.array([6, 8, 6], dtype=np.uint8),
    "positions": np.arange(9.0).reshape(3, 3),
    "cell": 4.0 * np.eye(3),
    "forces": np.ones((3, 3)),
    "energy": np.array(-3.0),
}


def transform(**options):
    return Transform.from_settings("mine", {"mine": options})


def test_none_always_exists_and_changes_nothing():
    changed = Transform.from_settings("none", {}).apply(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(changed[name], array)


def test_elements_are_renamed_and_lengths_scaled_but_labels_stay():
    before = {name: array.copy() for name, array in ARRAYS.items()}
    changed = transform(elements={"C": "Si"}, scale=1.5).apply(ARRAYS)
    assert changed["numbers"].tolist() == [14, 8, 14]
    np.testing.assert_array_equal(changed["positions"], 1.5 * ARRAYS["positions"])
    np.testing.assert_array_equal(changed["cell"], 1.5 * ARRAYS["cell"])
    np.testing.assert_array_equal(changed["forces"], ARRAYS["forces"])
    assert changed["energy"] == ARRAYS["energy"]
    for name, array in before.items():
        np.testing.assert_array_equal(ARRAYS[name], array)


def test_forces_can_be_scaled_to_stay_a_gradient():
    changed = transform(scale=2.0, scale_forces=True).apply(ARRAYS)
    np.testing.assert_array_equal(changed["forces"], 0.5 * ARRAYS["forces"])


def test_two_elements_can_be_swapped():
    changed = transform(elements={"C": "O", "O": "C"}).apply(ARRAYS)
    assert changed["numbers"].tolist() == [8, 6, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"element": {"C": "Si"}}, "transforms.mine.element: unknown"),
        ({"elements": {"C": "Xy"}}, "'Xy' is not an element"),
        ({"scale": 0}, "transforms.mine.scale: must be positive"),
    ],
)
def test_a_fault_is_named(options, message):
    with pytest.raises(UserError, match=message):
        transform(**options)


def test_a_missing_transform_is_named():
    with pytest.raises(UserError, match="no transform 'Ge': `transforms` has none, Si"):
        Transform.from_settings("Ge", {"Si": {}})
