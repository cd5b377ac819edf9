"""The embedded demo data are what their manifest and README say."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from ase.neighborlist import neighbor_list

DEMO = Path(__file__).resolve().parents[3] / "resources" / "demo"
MANIFEST = json.loads((DEMO / "manifest.json").read_text())
SETS = ("dft", "gap_train", "graphite", "silicon", "synthetic")
# Fewest structures of the parts of each target, and what its energies are like, eV/atom.
TARGETS = {
    "dft": ({"test": 36, "val": 14, "train": 56}, (-9.5, -4)),
    "graphite": ({"test": 18, "val": 8, "train": 30}, (-9, -6.8)),
    "silicon": ({"test": 24, "val": 9, "train": 48}, (-5.3, -4)),
}


@pytest.fixture(scope="module")
def sets() -> dict:
    """The sets of structures."""
    return {name: read(DEMO / f"{name}.extxyz", ":") for name in SETS}


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
            assert atoms.pbc.all()
            assert set(atoms.symbols) == ({"Si"} if name == "silicon" else {"C"})
            labelled = name != "synthetic"
            assert ("dft_energy" in atoms.info) is labelled
            assert ("dft_force" in atoms.arrays) is labelled
            assert atoms.calc is None
    assert 300 <= len(sets["synthetic"]) <= 450
    assert len(sets["dft"]) >= 110


def test_trajectories_are_of_one_part_only(sets):
    """No trajectory is in two sets, nor on two sides of a target's split."""
    runs = [(name, {atoms.info["run_id"] for atoms in frames}) for name, frames in sets.items()]
    for (name, some), (other, more) in itertools.combinations(runs, 2):
        assert not some & more, (name, other)
    for name, (fewest, _) in TARGETS.items():
        part: dict[str, set] = {}
        for atoms in sets[name]:
            part.setdefault(atoms.info["split"], set()).add(atoms.info["run_id"])
        assert set(part) == set(fewest), name
        assert sum(map(len, part.values())) == len(set.union(*part.values())), name
        for key, count in fewest.items():
            assert sum(a.info["split"] == key for a in sets[name]) >= count, (name, key)


def test_every_part_of_the_layered_carbon_has_every_kind_to_test(sets):
    kinds: dict[str, set] = {}
    for atoms in sets["graphite"]:
        kinds.setdefault(atoms.info["split"], set()).add(atoms.info["config_type"])
    assert kinds["train"] == kinds["test"]
    assert kinds["test"] == {"graphite", "nanotube", "rippled", "sheared", "stacked-graphene"}


def test_layered_carbon_is_threefold_coordinated(sets):
    """What tells it from the amorphous cells, which have chains and tetrahedra, too."""

    def threefold(frames) -> float:
        bonds = [np.bincount(neighbor_list("i", a, 1.75), minlength=len(a)) for a in frames]
        return float(np.mean(np.concatenate(bonds) == 3))

    disordered = [a for a in sets["dft"] if a.info["driver"] != "rattle"]
    assert threefold(sets["graphite"]) > 0.95 > 0.8 > threefold(disordered)


def test_labels_are_physical(sets):
    for name in (*TARGETS, "gap_train"):
        low, high = TARGETS.get(name, TARGETS["dft"])[1]
        for atoms in sets[name]:
            forces = atoms.arrays["dft_force"]
            assert np.isfinite(forces).all()
            assert np.abs(forces.sum(axis=0)).max() < 0.1  # eV/Å, the noise of plane waves
            if len(atoms) < 3:  # the dimers and the isolated atom
                continue
            assert np.abs(forces).max() <= 25
            assert low < atoms.info["dft_energy"] / len(atoms) < high


@pytest.mark.parametrize(
    ("name", "kind", "binding"),
    [("dft", "diamond", -8.9), ("graphite", "graphite", -8.9), ("silicon", "diamond", -5.2)],
)
def test_crystals_bind_as_in_lda(sets, name, kind, binding):
    energies = [
        atoms.info["dft_energy"] / len(atoms)
        for atoms in sets[name]
        if atoms.info["config_type"] == kind
    ]
    # The crystals are rattled: a little above the cohesive energy.
    assert min(energies) == pytest.approx(binding, abs=0.3)


def test_no_two_structures_are_the_same(sets):
    seen = {np.round(atoms.positions, 5).tobytes() for frames in sets.values() for atoms in frames}
    assert len(seen) == sum(map(len, sets.values()))
