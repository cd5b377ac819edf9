"""Distorted crystals: what is given comes back, in numbers worked out by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from ase.build import bulk
from ase.io import write

from copper import CONFIG
from pretraining.data.distort import distorted, prototypes
from pretraining.data.prepare import prepare
from pretraining.data.store import Store
from pretraining.runtime.errors import UserError
from pretraining.study.config import validate_study

PLAIN = {"number": 4, "repeat": [1, 1, 1], "strain": 0.0, "rattle": 0.0, "vacancies": 0, "seed": 1}
BCC = {"name": "Mo", "crystalstructure": "bcc", "a": 3.0, "cubic": True}
SALT = {"name": "NaCl", "crystalstructure": "rocksalt", "a": 5.6}


def made(**settings):
    return list(distorted(prototypes([BCC, SALT]), PLAIN | settings))


def test_without_a_distortion_the_crystals_come_in_turn():
    frames = made()
    assert [str(atoms.symbols) for atoms in frames] == ["Mo2", "NaCl", "Mo2", "NaCl"]
    assert [atoms.info["start"] for atoms in frames] == [0, 1, 0, 1]
    np.testing.assert_array_equal(frames[0].cell.lengths(), [3.0, 3.0, 3.0])


def test_vacancies_are_taken_from_the_repeated_cell():
    frames = made(repeat=[2, 2, 1], vacancies=3)
    assert [len(atoms) for atoms in frames] == [5, 5, 5, 5]
    assert frames[0].cell.lengths() == pytest.approx([6, 6, 3])
    assert len({atoms.positions.tobytes() for atoms in frames}) == 4


def test_a_strain_is_symmetric_and_at_most_as_large_as_asked_for():
    frames = made(number=50, strain=0.1)
    strains = np.array([atoms.cell.array / 3.0 - np.eye(3) for atoms in frames[::2]])
    np.testing.assert_allclose(strains, strains.transpose(0, 2, 1), atol=1e-12)
    assert 0.08 < np.abs(strains).max() <= 0.1
    # Atoms follow the cell.
    np.testing.assert_allclose(frames[0].get_scaled_positions()[1], 0.5)


def test_displacements_have_the_size_asked_for():
    frames = made(number=40, repeat=[3, 3, 3], rattle=0.2)
    moved = np.concatenate(
        [a.positions - bulk(**BCC).repeat(3).positions for a in frames[::2]], axis=None
    )
    assert np.std(moved) == pytest.approx(0.2, rel=0.03)


def test_more_structures_leave_the_first_ones_as_they_are():
    few, many = (made(number=n, strain=0.1, rattle=0.1, vacancies=1) for n in (3, 6))
    for one, other in zip(few, many, strict=False):
        assert one == other
    assert made(rattle=0.1)[0] != made(rattle=0.1, seed=2)[0]
    assert many[0] != many[2]


@pytest.mark.parametrize(
    ("settings", "entry", "message"),
    [
        ({"vacancies": 2}, BCC, r"distort.vacancies: 2 are all 2 atoms of start 0: lower it, or"),
        ({}, {"name": "Mo", "crystalstructure": "bbc", "a": 3.0}, r"prototypes\[0\]: ASE cannot"),
        ({}, {"name": "Xyz"}, r"prototypes\[0\]: ASE cannot build {'name': 'Xyz'}"),
        ({}, {"name": "C60"}, r"prototypes\[0\]: ASE cannot build"),
    ],
)
def test_what_cannot_be_built_is_named(settings, entry, message):
    with pytest.raises(UserError, match=message):
        list(distorted(prototypes([entry]), PLAIN | settings))


def study(**dataset):
    config = copy.deepcopy(CONFIG)
    config["datasets"]["Cu-synthetic"] = {"split": {"n_val": 4, "n_test": 2}} | dataset
    return validate_study(config, "x.yaml")


CU = [{"name": "Cu"}]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"prototypes": CU, "distort": {"number": 9, "strain": 0.9}}, "distort.strain: 0.9"),
        ({"prototypes": CU, "distort": {"number": 9, "rattle": -1}}, "distort.rattle: -1"),
        ({"prototypes": CU, "distort": {"rattle": 0.1}}, "distort: key 'number' is missing"),
        ({"prototypes": CU, "distort": {"number": 9, "strian": 0.1}}, "did you mean 'strain'"),
        ({"prototypes": [{"name": "Cu", "lattice": 3}], "distort": {"number": 30}}, "'lattice'"),
        ({"prototypes": CU}, "key 'distort' is missing, which 'prototypes' needs"),
        (
            {"prototypes": CU, "distort": {"number": 30}, "path": "x"},
            r"give only one of: load_atoms \| path \| generate \| prototypes",
        ),
        (
            {"path": "x", "distort": {"number": 30}, "labels": {"energy": "e", "forces": "f"}},
            "datasets.Cu-synthetic.labels: distorted structures have other labels",
        ),
        ({"prototypes": CU, "distort": {"number": 15}}, "pretrain_sizes.0.: 12 is more than the"),
    ],
)
def test_nonsense_is_refused_before_anything_runs(dataset, message):
    with pytest.raises(UserError, match=message):
        study(**dataset)


def test_a_prepared_set_of_a_file_and_one_of_prototypes(tmp_path):
    start = bulk("Cu", cubic=True)
    start.info["place"] = 7
    write(tmp_path / "start.cif", start)
    distort = {"number": 20, "repeat": [2, 1, 1], "rattle": 0.05, "vacancies": 1}
    for origin in ({"path": "start.cif"}, {"prototypes": [{"name": "Cu", "cubic": True}]}):
        config = study(**origin, distort=distort, keep=["start"])
        summary = prepare(config, "Cu-synthetic", tmp_path, tmp_path / "p.h5")
        assert summary["counts"]["kept"] == 20
        with Store(tmp_path / "p.h5") as store:
            assert set(store.n_atoms) == {7} and set(store.column("start")) == {0}
            assert store.provenance["origin"].keys() & {"files", "prototypes"}
