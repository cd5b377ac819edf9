"""Labels in other units than eV and Å, or with another zero, are warned of with numbers."""

from __future__ import annotations

import re

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from pretraining.data.sanity.units import comparison_warnings, unit_warnings
from pretraining.data.store import Store

SETS = {"dft": "dft", "graphite": "dft", "silicon": "dft", "gap_train": "dft"}


@pytest.fixture(scope="module")
def demo(root):
    """Return the structures of the demo's DFT sets."""
    folder = root / "resources/demo"
    return {name: ase.io.read(folder / f"{name}.extxyz", ":") for name in SETS}


def labelled(atoms, energy, forces):
    """Return the structure with labels."""
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def warned(tmp_path, frames, energy=1.0, force=1.0, shift=0.0):
    """Return the warnings for DFT labels that are scaled, and shifted by an energy per atom."""

    def scaled():
        for atoms in frames:
            copy = atoms.copy()
            yield labelled(
                copy,
                energy * atoms.info["dft_energy"] + shift * len(atoms),
                force * atoms.arrays["dft_force"],
            )

    path = tmp_path / "set.h5"
    Store.write(path, scaled(), n_val=1, n_test=1)
    with Store(path) as store:
        assert store.has_labels
        return unit_warnings(store)


@pytest.mark.parametrize("name", SETS)
def test_real_labels_raise_no_warning(tmp_path, demo, name):
    assert warned(tmp_path, demo[name]) == []


LARGE, SMALL = "energies are too large for these forces", "energies are too small for these forces"
UNITS = [
    ({"energy": 1000}, "times −F·dx", LARGE),
    ({"energy": 23.06}, "times −F·dx", LARGE),
    ({"energy": 96.5}, "times −F·dx", LARGE),
    ({"energy": 1 / 27.211}, "times −F·dx", SMALL),
    ({"force": 1 / 51.422}, "times −F·dx", LARGE),
    ({"force": 1000}, "times −F·dx", SMALL),
    ({"force": 23.06}, "times −F·dx", SMALL),
    ({"force": 0.529}, "times −F·dx", None),
    ({"force": -1}, "the forces have the wrong sign", "the forces have the wrong sign"),
    ({"energy": 30, "force": 30}, "forces are .* too large", "forces are .* too large"),
    ({"shift": -147.0}, "more than any cohesive energy", "more than any cohesive energy"),
]


@pytest.mark.parametrize("name", ["dft", "graphite", "silicon"])
@pytest.mark.parametrize(("scales", "words", "apart"), UNITS)
def test_other_units_are_warned_of(tmp_path, demo, name, scales, words, apart):
    """By neighbouring frames, and less precisely without any."""
    warnings = warned(tmp_path, demo[name], **scales)
    (warning,) = (warning for warning in warnings if re.search(words, warning))
    if found := re.search(r"change by (\S+) times", warning):
        factor = scales.get("energy", 1) / scales.get("force", 1)
        assert float(found[1]) == pytest.approx(factor, rel=0.2)
    assert all(any(c.isdigit() for c in warning) for warning in warnings)
    # No two cells are the same.
    alone = [atoms.copy() for atoms in demo[name]]
    for number, atoms in enumerate(alone):
        atoms.cell[0, 0] += 0.002 * (number + 1)
    warnings = warned(tmp_path, alone, **scales)
    assert bool(warnings) == (apart is not None)
    assert apart is None or any(re.search(apart, warning) for warning in warnings), warnings


def test_one_phase_at_one_temperature_has_similar_energies(tmp_path):
    rng = np.random.default_rng(0)

    def frames():
        for _ in range(30):
            atoms = bulk("Cu", cubic=True) * (3, 3, 3)
            moves = rng.normal(0, 0.05, atoms.positions.shape)
            atoms.positions += moves
            # Springs of 10 eV/Å².
            yield labelled(atoms, 5 * float((moves**2).sum()) - 3.5 * len(atoms), -10 * moves)

    Store.write(tmp_path / "set.h5", frames(), n_val=1, n_test=1)
    with Store(tmp_path / "set.h5") as store:
        assert unit_warnings(store) == []


@pytest.mark.parametrize(
    ("scale", "shift", "fitted", "words"),
    [
        (1, 0.0, False, []),
        (1, 0.9, False, []),
        (1, -1.5, False, ["differ from the target's by -1.50 eV/atom"]),
        (1, -1.5, True, []),
        (23.06, 0.0, True, ["energies vary by"]),
        (1 / 27.2, 0.0, True, ["energies vary by"]),
    ],
)
def test_a_source_is_compared_with_the_target(scale, shift, fitted, words):
    rng = np.random.default_rng(0)
    energy, forces = rng.normal(0, 0.5, 20), rng.normal(0, 2, 600)
    theirs = (scale * energy + shift, forces + 0.1)
    warnings = comparison_warnings(theirs, (energy, forces), fitted)
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))
