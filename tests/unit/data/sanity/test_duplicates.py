"""Test structures that hardly differ from training structures are counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from pretraining.data.sanity import duplicates
from pretraining.data.sanity.duplicates import near_duplicates
from pretraining.data.store import Store

RNG = np.random.default_rng(0)


def snapshot(seed: int, structure: str = "crystal") -> Atoms:
    """Return a cell of copper-silver, or water, with atoms at random places about their own."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", cubic=True) * (3, 2, 2) if structure == "crystal" else molecule("H2O")
    if structure == "crystal":
        atoms.symbols[::3] = "Ag"
    atoms.positions += rng.normal(0, 0.1 if structure == "crystal" else 0.5, atoms.positions.shape)
    return atoms


def moved(atoms: Atoms, by: float) -> Atoms:
    copy = atoms.copy()
    copy.positions += RNG.normal(0, by / 3**0.5, copy.positions.shape)
    return copy


def shuffled(atoms: Atoms) -> Atoms:
    return atoms[RNG.permutation(len(atoms))]


def turned(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.rotate(40, (1, 2, 3), rotate_cell=True)
    return copy


def renamed(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.symbols[[0, 1]] = copy.symbols[[1, 0]]
    return copy


def reported(tmp_path, train: list[Atoms], test: list[Atoms]) -> list[str]:
    def labelled():
        for number, atoms in enumerate([train[0].copy(), *test, *train]):
            atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((len(atoms), 3)))
            atoms.info["index"] = number
            yield atoms

    Store.write(tmp_path / "set.h5", labelled(), n_val=1, n_test=len(test))
    with Store(tmp_path / "set.h5") as store:
        return near_duplicates(store)


CHANGES = {
    "a little": (lambda atoms: moved(atoms, 0.03), True),
    "far": (lambda atoms: moved(atoms, 0.6), False),
    "turned": (lambda atoms: turned(shuffled(atoms)), True),
    "repeated": (lambda atoms: atoms.copy(), False),  # reported elsewhere
    "renamed": (renamed, False),
}


@pytest.mark.parametrize(
    "structure, change",
    [*itertools.product(["crystal", "molecule"], list(CHANGES)[:4]), ("crystal", "renamed")],
)
def test_what_hardly_differs_is_counted(tmp_path, structure, change):
    change, near = CHANGES[change]
    train = [snapshot(seed, structure=structure) for seed in range(12)]
    test = [change(train[4]), snapshot(99, structure=structure), change(train[7])]
    found = reported(tmp_path, train, test)
    assert len(found) == near
    assert not near or "2 of 3 test structures hardly differ" in found[0], found


def test_many_structures_cost_little(tmp_path, monkeypatch):
    """Only structures that may be near are compared atom by atom."""
    compared = []
    displacement = duplicates.displacement
    monkeypatch.setattr(
        duplicates, "displacement", lambda *pair: compared.append(pair) or displacement(*pair)
    )
    train = [snapshot(seed, structure="molecule") for seed in range(300)]
    test = [snapshot(seed, structure="molecule") for seed in range(1000, 1010)]
    reported(tmp_path, train, test)
    assert 0 < len(compared) <= 10 * (duplicates.CANDIDATES + duplicates.FRAMES)
