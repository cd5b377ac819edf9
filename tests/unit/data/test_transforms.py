"""Alchemical transforms."""

from __future__ import annotations

import numpy as np
import pytest

from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError

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


def test_energies_are_shifted_by_the_atoms_after_renaming():
    changed = transform(elements={"C": "Si"}, energy_shift={"Si": 2.0, "C": 9.0}).apply(ARRAYS)
    assert changed["energy"] == ARRAYS["energy"] + 2 * 2.0
    unlabelled = {name: ARRAYS[name] for name in ("numbers", "positions", "cell")}
    assert set(transform(energy_shift={"C": 1.0}).apply(unlabelled)) == set(unlabelled)


def test_scaled_forces_are_the_gradient_of_the_shifted_energy():
    """E(x) of a spring, labelled at x, seen by a network at s x: dE/d(s x) = (dE/dx) / s."""

    def labelled(stretch):
        positions = np.array([[0.0, 0, 0], [stretch, 0, 0]])
        forces = np.array([[stretch, 0, 0], [-stretch, 0, 0]])
        numbers = np.array([6, 6])
        return {
            "numbers": numbers,
            "positions": positions,
            "cell": 9 * np.eye(3),
            "energy": np.array(0.5 * stretch**2),
            "forces": forces,
        }

    change = transform(elements={"C": "Si"}, scale=1.5, scale_forces=True, energy_shift={"Si": 3.0})
    low, here, high = (change.apply(labelled(1.2 + d)) for d in (-1e-5, 0.0, 1e-5))
    slope = (high["energy"] - low["energy"]) / (high["positions"] - low["positions"])[1, 0]
    assert here["forces"][1, 0] == pytest.approx(-slope)


def test_two_elements_can_be_swapped():
    changed = transform(elements={"C": "O", "O": "C"}).apply(ARRAYS)
    assert changed["numbers"].tolist() == [8, 6, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elements": {"C": "Xy"}}, "'Xy' is not an element"),
        ({"energy_shift": {"Xy": 1.0}}, "transforms.mine.energy_shift: 'Xy' is not an element"),
    ],
)
def test_a_fault_is_named(options, message):
    with pytest.raises(UserError, match=message):
        transform(**options)


def test_a_missing_transform_is_named():
    with pytest.raises(UserError, match="no transform 'Ge': `transforms` has none, Si"):
        Transform.from_settings("Ge", {"Si": {}})
