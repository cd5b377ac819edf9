"""Energies of trained models with the zero of their labels, held against these labels."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from pretraining.data.energy_references import zero_of
from pretraining.data.prepare import prepare
from pretraining.data.store import Store
from pretraining.runtime.errors import UserError
from pretraining.training.network.checkpoint import load_model, zero_in
from pretraining.training.predict import predict
from pretraining.training.predictions import ENERGY
from pretraining.training.run import Request, train
from toy import rattled_cells, write_settings

ATOMS = {"C": -154.3, "Si": -289.7}


def labelled_cells(elements: int):
    """Cells whose total energies hold those of the atoms, with one or two elements."""
    for i, atoms in enumerate(rattled_cells(40)):
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        if elements == 2:
            atoms.symbols[: 1 + i % 5] = "Si"
        results["energy"] += sum(ATOMS[symbol] for symbol in atoms.symbols)
        atoms.calc = SinglePointCalculator(atoms, **results)
        yield atoms


def prepared(folder, elements: int, reference: dict) -> Store:
    """Prepare the cells with an energy reference."""
    ase.io.write(folder / "raw.extxyz", list(labelled_cells(elements)))
    dataset = {
        "path": str(folder / "raw.extxyz"),
        "labels": {"energy": "energy", "forces": "forces"},
        "energy_reference": reference,
        "split": {"n_val": 5, "n_test": 10},
        "checks": {"min_distance": 0.5},
    }
    prepare({"datasets": {"set": dataset}}, "set", folder, folder / "data.h5")
    return Store(folder / "data.h5")


@pytest.mark.parametrize(
    ("kind", "elements", "reference"),
    [
        ("direct", 2, {"least_squares": True}),
        ("finetune", 2, {"given": ATOMS}),
        ("direct", 1, {"median_shift": True}),
        ("direct", 1, {"none": True}),
    ],
    ids=["fit, two elements", "isolated atoms, two elements", "constant", "none"],
)
def test_absolute_energies_are_those_of_the_labels(tmp_path, kind, elements, reference):
    store = prepared(tmp_path, elements, reference)
    settings = write_settings(tmp_path / "settings.yaml", max_epochs=1)
    run, data = tmp_path / "direct", tmp_path / "data.h5"
    train(Request("direct", data, 4, 1, settings, run))
    if kind == "finetune":
        parent, run = run / "model.ckpt", tmp_path / "finetune"
        train(Request(kind, data, 4, 1, settings, run, initial=parent))
    raw = ase.io.read(tmp_path / "raw.extxyz", ":")
    tested = [raw[i] for i in store.column("index", "test")]
    model, zero = load_model(run / "model.ckpt"), zero_in(run / "model.ckpt")
    errors = [
        (new.get_potential_energy() - old.get_potential_energy()) / len(old)
        for old, new in zip(tested, predict(model, tested, zero=zero), strict=True)
    ]
    known = json.loads((run / "metrics.json").read_text())["test"][ENERGY]
    assert 1000 * np.sqrt(np.mean(np.square(errors))) == pytest.approx(known, abs=0.01)
    assert (abs(sum(zero.values())) > 100) == (reference != {"none": True})
    if elements == 2:
        with pytest.raises(UserError, match="the model's energy zero has only C: .*--relative"):
            list(predict(model, tested, zero={"C": -1.0}))


FITTED = {"energy_reference": {"kind": "least_squares", "energies": {"C": -3.0}}}


@pytest.mark.parametrize(
    ("provenance", "zero"),
    [
        (FITTED, {"C": -3.0}),
        ({"prepared": FITTED}, {"C": -3.0}),
        ({"energy_reference": {"kind": "none", "energies": {}}}, {}),
        ({}, {}),
        # A source's labels are relative to its own atoms, and not to the set's.
        (
            {
                "prepared": FITTED,
                "labels": [{"isolated_atoms_ev": {"C": -1.0, "Si": -2.0}}] * 2,
                "energy_zero": {"kind": "median_shift", "energies": {"C": -7.0, "Si": -7.0}},
            },
            {"C": -8.0, "Si": -9.0},
        ),
    ],
    ids=["prepared", "own labels", "none", "unknown", "labelled by a source"],
)
def test_the_zero_of_a_set(provenance, zero):
    assert zero_of(provenance) == zero
