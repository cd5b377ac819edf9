"""The tutorial's data are what their manifest and README say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

FOLDER = Path(__file__).resolve().parents[3] / "resources" / "tutorial"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())["files"]
# Fewest structures of the parts, elements, energies of an atom (eV).
SETS = {
    "al": ({"test": 9, "val": 6, "train": 15}, {"Al"}, (-3.7, -2.0)),
    "sic": ({"test": 15, "val": 10, "train": 32}, {"Si", "C"}, (-6.7, -3.5)),
}


def test_files_match_manifest_and_readme():
    text = (FOLDER / "README.md").read_text()
    assert {path.name for path in FOLDER.glob("*.extxyz")} == set(MANIFEST)
    for name, entry in MANIFEST.items():
        content = (FOLDER / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name
        assert f"| `{name}` | {entry['structures']} | {entry['atoms']} |" in text
        assert entry["sha256"] in text
    assert sum(entry["bytes"] for entry in MANIFEST.values()) < 1_500_000


@pytest.mark.parametrize("name", SETS)
def test_labels_are_physical_and_parts_share_no_trajectory(name):
    fewest, elements, (low, high) = SETS[name]
    frames = read(FOLDER / f"{name}.extxyz", ":")
    parts: dict[str, list] = {}
    for atoms in frames:
        assert atoms.calc is None and set(atoms.symbols) <= elements
        forces, energy = atoms.arrays["dft_force"], atoms.info["dft_energy"]
        if len(atoms) == 1:
            assert energy == 0
            continue
        assert low < energy / len(atoms) < high
        assert np.abs(forces).max() <= 25
        assert np.abs(forces.sum(axis=0)).max() < 0.2  # eV/Å, the noise of plane waves
        parts.setdefault(atoms.info["split"], []).append(atoms)
    assert {s for atoms in frames if len(atoms) == 1 for s in atoms.symbols} == elements
    assert all(len(parts[part]) >= count for part, count in fewest.items())
    runs = [{atoms.info["run_id"] for atoms in part} for part in parts.values()]
    assert sum(map(len, runs)) == len(set.union(*runs))
    # Every part has melts and crystals.
    for part in parts.values():
        assert {atoms.info["driver"] == "rattle" for atoms in part} == {True, False}
