"""The embedded demo data are what their manifest and README say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

DEMO = Path(__file__).resolve().parents[2] / "resources" / "demo"
MANIFEST = json.loads((DEMO / "manifest.json").read_text())


@pytest.fixture(scope="module")
def sets() -> dict:
    """The three sets of structures."""
    return {name: read(DEMO / f"{name}.extxyz", ":") for name in ("dft", "gap_train", "synthetic")}


def test_files_match_the_manifest():
    listed = MANIFEST["files"]
    shipped = {path.name for path in DEMO.glob("*.extxyz")} | {
        path.name for path in DEMO.glob("gap_demo.xml*")
    }
    assert shipped == set(listed)
    for name, entry in listed.items():
        content = (DEMO / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name
        assert len(content) == entry["bytes"]
    assert sum(entry["bytes"] for entry in listed.values()) < 3_000_000


def test_readme_states_counts_and_checksums():
    text = (DEMO / "README.md").read_text()
    for name, entry in MANIFEST["files"].items():
        assert f"`{name}`" in text
        assert entry["sha256"] in text, name
        if "structures" in entry:
            row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
            assert f"| {entry['structures']} |" in row and f"| {entry['atoms']} |" in row


def test_counts_and_keys(sets):
    for name, frames in sets.items():
        entry = MANIFEST["files"][f"{name}.extxyz"]
        assert len(frames) == entry["structures"]
        assert sum(map(len, frames)) == entry["atoms"]
        for atoms in frames:
            assert {"run_id", "time", "density", "config_type", "driver"} <= set(atoms.info)
            assert atoms.pbc.all() and set(atoms.symbols) == {"C"}
            labelled = name != "synthetic"
            assert ("dft_energy" in atoms.info) is labelled
            assert ("dft_force" in atoms.arrays) is labelled
            assert atoms.calc is None
    assert 300 <= len(sets["synthetic"]) <= 450
    assert len(sets["dft"]) >= 110


def test_trajectories_are_of_one_part_only(sets):
    """No trajectory is in two sets, nor on two sides of the target's split."""
    runs = {name: {atoms.info["run_id"] for atoms in frames} for name, frames in sets.items()}
    assert not runs["dft"] & runs["gap_train"]
    assert not runs["dft"] & runs["synthetic"]
    assert not runs["gap_train"] & runs["synthetic"]
    part: dict[str, set] = {}
    for atoms in sets["dft"]:
        part.setdefault(atoms.info["split"], set()).add(atoms.info["run_id"])
    assert set(part) == {"train", "val", "test"}
    assert sum(map(len, part.values())) == len(set.union(*part.values()))
    counts = {name: sum(a.info["split"] == name for a in sets["dft"]) for name in part}
    assert counts["test"] >= 36 and counts["val"] >= 14 and counts["train"] >= 56


def test_labels_are_physical(sets):
    for name in ("dft", "gap_train"):
        for atoms in sets[name]:
            forces = atoms.arrays["dft_force"]
            assert np.isfinite(forces).all()
            assert np.abs(forces.sum(axis=0)).max() < 0.1  # eV/Å, the noise of plane waves
            if len(atoms) < 3:  # the dimers and the isolated atom
                continue
            assert np.abs(forces).max() <= 25
            assert -9.5 < atoms.info["dft_energy"] / len(atoms) < -4
    crystals = [a for a in sets["dft"] if a.info["config_type"] == "diamond"]
    lowest = min(atoms.info["dft_energy"] / len(atoms) for atoms in crystals)
    assert lowest == pytest.approx(-8.9, abs=0.3)  # LDA's cohesive energy of diamond


def test_no_two_structures_are_the_same(sets):
    seen = {np.round(atoms.positions, 5).tobytes() for frames in sets.values() for atoms in frames}
    assert len(seen) == sum(map(len, sets.values()))
