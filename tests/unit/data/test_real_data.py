"""Preparing real data sets, where they are at hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from pretraining.data.prepare import prepare
from pretraining.data.store import Store


@pytest.fixture
def make(shared_data: Path, tmp_path: Path):
    """Prepare one file of the reference data; returns the summary and the open store."""

    def make(file: str, **entry) -> tuple[dict, Store]:
        entry = {"path": str(shared_data / file), "format": "extxyz", **entry}
        summary = prepare({"datasets": {"set": entry}}, "set", tmp_path, tmp_path / "set.h5")
        return summary, Store(tmp_path / "set.h5")

    return make


def test_c_gap_17_as_it_was_published(make, shared_data: Path) -> None:
    """All header keys of the original file; the energy hides in a calculator, `force` does not."""
    summary, store = make(
        "c-gap-17-raw-sample.extxyz.gz",
        structures=100,
        labels={"energy": "energy", "forces": "force"},
        energy_reference={"given": {"C": -148.314002}},
        filters=[{"key": "config_type", "exclude": ["dimer"]}],
        keep=["config_type", "detailed_ct", "cut_off_energy"],
    )
    assert summary["counts"]["kept"] == 100
    assert summary["groups"]["all"]["energy_ev_per_atom"]["mean"] == pytest.approx(-9.77, abs=0.01)
    raw = read(shared_data / "c-gap-17-raw-sample.extxyz.gz", ":", format="extxyz")
    for atoms in store.subset("train"):
        original = raw[atoms.info["index"]]
        energy = original.get_potential_energy() + 4 * 148.314002
        assert atoms.get_potential_energy() == pytest.approx(energy)
        np.testing.assert_array_equal(atoms.get_forces(), original.arrays["force"])
        assert atoms.info["cut_off_energy"] == "650 eV"


def test_dft_target(make) -> None:
    summary, store = make(
        "c-gap-17-test-pbe.extxyz.gz",
        structures=450,
        labels={"energy": "pbe_energy", "forces": "pbe_force"},
        energy_reference={"median_shift": True},
    )
    assert [summary["counts"][k] for k in ("val", "test", "train")] == [40, 45, 365]
    assert summary["groups"]["all"]["atoms"] == 28_337
    force = summary["groups"]["all"]["force_ev_per_angstrom"]["component_rms"]
    assert force == pytest.approx(2.96, abs=0.005)
    order = np.random.RandomState(42).permutation(450)
    np.testing.assert_array_equal(store.column("index", "train", 25), order[:25])


def test_synthetic_structures_after_the_quench(make) -> None:
    summary, store = make(
        "c-ace-md.extxyz.gz",
        structures=2520,
        filters=[{"key": "time", "min": 4.25}],
        split={"groups": "run_id"},
        keep=["density", "time", "run_id"],
    )
    assert summary["counts"]["kept"] == 1800
    assert summary["counts"]["dropped"][0]["structures"] == 720
    assert not store.has_labels
    assert store.column("time").min() >= 4.25
    parts = [set(store.column("run_id", group)) for group in ("val", "test", "train")]
    assert sum(map(len, parts)) == 45 == len(set.union(*parts))
    density = summary["groups"]["all"]["density_g_cm3"]
    assert density == pytest.approx({"min": 1.0, "max": 3.5}, abs=0.01)
    stated = store.column("density")
    volume = np.abs(np.linalg.det(store.column("cell")))
    np.testing.assert_allclose(64 * 12.011 / volume * 1.66054, stated, rtol=1e-3)


def test_frames_labelled_by_atom(make, shared_data: Path) -> None:
    summary, store = make(
        "c-synth-23m-frames.extxyz.gz",
        labels={"per_atom_energy": "gap17_energy", "forces": "gap17_forces"},
        keep=["density", "anneal_T", "time"],
    )
    assert summary["counts"]["kept"] == 26
    raw = read(shared_data / "c-synth-23m-frames.extxyz.gz", ":", format="extxyz")
    for atoms in store:
        original = raw[atoms.info["index"]]
        total = original.arrays["gap17_energy"].sum()
        assert atoms.get_potential_energy() == pytest.approx(total)
        assert atoms.info["time"] == 21


def test_original_labels_in_place_of_computed_ones(make, tmp_path: Path) -> None:
    """As config/README.md has it: an energy for each atom, relative to the isolated one."""
    make(
        "c-synth-23m-frames.extxyz.gz",
        labels={"per_atom_energy": "gap17_energy", "forces": "gap17_forces"},
        energy_reference={"given": {"C": -148.314002}},
    )
    script = Path(__file__).parents[3] / "workflow/scripts/own_labels.py"
    out = tmp_path / "npre.h5"
    command = [sys.executable, str(script), "--data", str(tmp_path / "set.h5")]
    subprocess.run([*command, "--n", "20", "--out", str(out)], check=True)
    with Store(out) as store:
        assert store.n_train == 20
        energies = store.column("energy") / store.n_atoms
        forces = np.concatenate([store.arrays(i)["forces"] for i in range(len(store))])
    # LDA binds diamond by 10 eV an atom, amorphous carbon by less.
    assert energies.min() > -10 and energies.max() < -8
    assert 0.5 < np.sqrt((forces**2).mean()) < 5


def test_silicon_with_its_own_split(make) -> None:
    summary, store = make(
        "si-mlearn-pbe.extxyz.gz",
        labels={"energy": "pbe_energy", "forces": "pbe_force"},
        split={"key": "split", "test": "test"},
        filters=[{"neighbours_within": 6.0}],
        energy_reference={"least_squares": True},
        keep=["config_type"],
    )
    assert [summary["counts"][k] for k in ("val", "test", "train")] == [21, 25, 193]
    assert sum(summary["groups"]["test"]["config_types"].values()) == 25
    assert (np.diff(store.column("index", "test")) > 0).all()  # as it stands


def test_small_cells_can_be_left_out(make) -> None:
    summary, store = make(
        "c-gap-20-nanotubes-fullerenes.extxyz.gz",
        structures=410,
        labels={"energy": "energy", "forces": "force"},
        filters=[
            {"key": "config_type", "include": ["Nanotubes", "Fullerenes"]},
            {"min_cell_edge": 8.0},
        ],
        keep=["config_type"],
    )
    assert summary["groups"]["all"]["config_types"] == {"Fullerenes": 267, "Nanotubes": 52}
    assert np.linalg.norm(store.column("cell"), axis=2).min() >= 8.0
