"""A study with ``defaults: data`` leaves out most keys; each decision gives way to its key."""

from __future__ import annotations

import copy
import dataclasses
import shutil

import ase.io
import pytest
import yaml
from ase import Atoms
from ase.build import bulk

import copper
from pretraining.data.glance import glance
from pretraining.runtime.errors import UserError
from pretraining.study.config import validate_study
from pretraining.study.decisions import DISTORT, Facts, decide
from pretraining.study.plan import complete, plan

FACTS = Facts(
    structures=200,
    elements=frozenset({"Cu"}),
    formula={"Cu": 1},
    densities=(8.5, 9.0),
    volume=11.8,
    labels={"energy": ["energy"], "forces": ["forces"]},
    isolated=frozenset(),
    parts={},
)
WRITTEN = {
    "defaults": "data",
    "datasets": {"dft": {"path": "cu.xyz"}, "made": {"generate": {"source": "emt"}}},
    "sources": {"emt": copper.CONFIG["sources"]["emt"]},
    "experiments": {"fig3": {"target": "dft", "structures": "made", "sources": ["emt"]}},
}


def decided(changes=None, **facts):
    """Return the study with other values at dotted keys, decided from facts, and its decisions."""
    config = copy.deepcopy(WRITTEN)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        entry = config
        for parent in parents:
            entry = entry.setdefault(parent, {})
        entry[last] = value
    return decide(config, lambda name, entry: dataclasses.replace(FACTS, **facts))


def test_the_decided_study_is_valid_and_stays_as_it_is():
    config, decisions = decided()
    valid = validate_study(config, "mine.yaml")
    assert decide(valid, None) == ({key: valid[key] for key in valid if key != "defaults"}, [])
    assert valid["datasets"]["made"]["structures"] == 20 * 31
    assert len({decision.key for decision in decisions}) == len(decisions) > 20
    assert all("\n" not in str(decision) and decision.why for decision in decisions)


@pytest.mark.parametrize("number", range(len(decided()[1])))
def test_every_decision_gives_way_to_its_key(number):
    every = decided()[1]
    decision = every[number]
    config, others = decided({decision.key: decision.value})
    assert decision.key not in [other.key for other in others]
    assert len(others) == len(every) - 1
    assert config == decided()[0]


@pytest.mark.parametrize(
    "facts, changes, expected",
    [
        ({}, {}, {"sizes": [8, 16, 32, 64, 128], "pretrain_sizes": [410]}),
        ({"structures": 60}, {}, {"sizes": [8, 16, 32]}),
        ({"structures": 900}, {}, {"sizes": [25, 50, 100, 200, 400]}),
        ({"structures": 4530}, {}, {"sizes": [25 * 2**i for i in range(8)]}),
        ({"structures": 3}, {}, {"sizes": [3]}),
        (
            {"parts": {"train": 170, "test": 20, "val": 10}},
            {},
            {"sizes": [8, 16, 32, 64, 128]},
        ),
        ({"parts": {"train": 100, "test": 100}}, {}, {"sizes": [8, 16, 32, 64]}),
        (
            {"parts": {"train": 70, "test": 100, "val": 30}},
            {"datasets.dft.split": {"test_path": "t.xyz", "val_path": "v.xyz"}},
            {"sizes": [8, 16, 32, 64]},
        ),
        (
            {},
            {"experiments.fig3.compare": "pretrain_size"},
            {"pretrain_sizes": [51, 102, 204, 408]},
        ),
        ({}, {"datasets.made.generate.replicas": 1000}, {"pretrain_sizes": [10000]}),
        ({}, {"datasets.made.filters": []}, {"pretrain_sizes": [490]}),
        (
            {},
            {"datasets.made.generate.stages": [{"temperature": 900, "ps": 2}]},
            {"pretrain_sizes": [170]},
        ),
    ],
)
def test_sizes_follow_from_the_pools(facts, changes, expected):
    experiment = decided(changes, **facts)[0]["experiments"]["fig3"]
    assert {key: experiment[key] for key in expected} == expected


def test_distorted_structures_are_by_default_those_of_the_target():
    config, decisions = decided({"datasets.made": {"distort": {"rattle": 0.2}}})
    made = config["datasets"]["made"]
    assert made["path"] == ["cu.xyz"] and made["distort"] == DISTORT | {"rattle": 0.2}
    assert config["experiments"]["fig3"]["pretrain_sizes"] == [400]
    assert "datasets.made.distort.strain: 0.05  # " in "\n".join(map(str, decisions))
    assert validate_study(config, "mine.yaml")
    config, _ = decided({"datasets.made": {"path": "a.xyz", "distort": {}}})
    assert config["datasets"]["made"]["path"] == "a.xyz"


@pytest.mark.parametrize(
    "facts, target, structures",
    [
        ({}, {"least_squares": True}, {"least_squares": True}),
        ({"isolated": frozenset({"Cu"})}, {"isolated_atoms": True}, None),
        ({"isolated": frozenset({"Au"})}, {"least_squares": True}, {"least_squares": True}),
    ],
)
def test_target_and_structures_have_the_same_zero(facts, target, structures):
    datasets = decided(**facts)[0]["datasets"]
    assert datasets["dft"]["energy_reference"] == target
    assert datasets["made"].get("energy_reference") == structures


@pytest.mark.parametrize(
    "volume, changes, expected",
    [
        (11.8, {}, {"num_layers": 2, "num_features": 16, "cutoff": 4.0}),
        (39.5, {}, {"num_layers": 2, "num_features": 16, "cutoff": 5.7}),
        (None, {}, {"num_layers": 2, "num_features": 16, "cutoff": 4.0}),
        (11.8, {"datasets.made.generate.replicas": 100}, {"cutoff": 4.0}),
    ],
)
def test_the_network_follows_from_the_data(volume, changes, expected):
    assert decided(changes, volume=volume)[0]["network"] == expected


def test_an_unknown_dataset_is_named():
    with pytest.raises(UserError, match="experiments.fig3.target: 'x' is not one of .*: dft, made"):
        decided({"experiments.fig3.target": "x"})


@pytest.mark.parametrize(
    "facts, words",
    [
        ({"densities": None}, "datasets.made.generate.densities: give them"),
        (
            {"labels": {"energy": ["e_energy", "pbe_energy"], "forces": ["forces"]}},
            "datasets.dft.labels: name the energy, .*; the file has: e_energy, pbe_energy",
        ),
        (
            {"labels": {"energy": ["energy"], "forces": []}},
            "datasets.dft.labels: name the forces, .*; the file has: none",
        ),
    ],
)
def test_what_the_data_does_not_tell_is_asked_for(facts, words):
    with pytest.raises(UserError, match=words):
        decided(**facts)


def test_a_file_is_read_for_its_facts(tmp_path):
    frames = [bulk("Cu", cubic=True) for _ in range(9)] + [Atoms("Cu", info={"dft_energy": -0.3})]
    for number, atoms in enumerate(frames[:9]):
        atoms.info |= {"dft_energy": -4.0, "number": number, "split": "test" if number else "train"}
    for atoms in frames:
        atoms.info.setdefault("number", 9)
        atoms.arrays["dft_force"] = atoms.positions
    path = tmp_path / "cu.xyz"
    ase.io.write(path, frames, format="extxyz")
    facts = glance(
        "cu", {"path": str(path), "exclude": [3], "filters": [{"key": "number", "min": 1}]}
    )
    assert (facts.structures, facts.formula) == (7, {"Cu": 1})
    assert facts.labels == {"energy": ["dft_energy"], "forces": ["dft_force"]}
    assert facts.isolated == {"Cu"}
    assert facts.volume == pytest.approx(11.76, abs=0.01)
    assert facts.densities == pytest.approx((8.97, 8.97), abs=0.01)
    assert glance("cu", {"path": str(path)}).parts == {"train": 1, "test": 8}
    assert glance("cu", {"path": str(path), "split": {"key": "other"}}).parts == {}
    shutil.copy(path, tmp_path / "test.xyz")
    own = {"path": str(path), "split": {"test_path": str(tmp_path / "test.xyz")}}
    assert glance("cu", own).parts == {"train": 9, "test": 9}
    with pytest.raises(UserError, match="datasets.cu: no structure file none.xyz: put it there"):
        glance("cu", {"path": ["none.xyz"]})
    with pytest.raises(UserError, match="datasets.cu: structure 0 has no entry 'zz'"):
        glance("cu", {"path": str(path), "filters": [{"key": "zz", "min": 1}]})
    with pytest.raises(UserError, match="datasets.cu: 'defaults: data' decides from files"):
        glance("cu", {"generate": {}})
    with pytest.raises(UserError, match="leave no structure"):
        glance("cu", {"path": str(path), "filters": [{"key": "number", "min": 9}]})


def test_the_shipped_minimal_configuration_runs_as_it_is(root, monkeypatch):
    monkeypatch.chdir(root)
    text = (root / "config/minimal.yaml").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(lines) <= 25
    planned = plan(yaml.safe_load(text), ["config/minimal.yaml"], glance)
    assert len(planned.grid) == 25
    assert f"{planned.decisions[0]}".startswith("datasets.dft.labels: {energy: dft_energy, ")


def test_a_fault_is_named_before_a_file_is_read():
    with pytest.raises(UserError, match="--config: experiments.fig3: key 'sources' is missing"):
        complete(
            {**WRITTEN, "experiments": {"fig3": {"target": "dft", "structures": "made"}}}, [], None
        )
