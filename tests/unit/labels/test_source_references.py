"""Label sources reproduce recorded energies and forces, if their code is installed.

The values in ``tests/reference`` are made by running this file: ``python
tests/unit/labels/test_source_references.py`` evaluates the installed sources and writes them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.io import read, write

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests"))

from interpreters import interpreter  # noqa: E402

pytestmark = pytest.mark.slow

REFERENCE = ROOT / "tests" / "reference"
STRUCTURES = REFERENCE / "source-structures.extxyz"
VALUES = REFERENCE / "source-values.json"
DEMO = ROOT / "resources" / "demo" / "dft.extxyz"
# eV/atom and eV/Å: what versions of one code may differ by, DFT's most of all.
TOLERANCES = {"dft": (2e-3, 2e-2)}
TOLERANCE = (1e-6, 1e-5)
# The other structures of DFT take a minute.
CHECKED = {"dft": ["graphite"]}
SOURCES = ["lcbop_lammps", "edip_lammps", "gap_demo", "lcbop", "edip", "ace", "dft"]


def entry(name: str) -> dict:
    """A source of the shipped configurations, its interpreter found on this machine.

    Raises
    ------
    LookupError
        With the reason why it cannot run here.
    """
    configs = [yaml.safe_load((ROOT / f"config/{c}.yaml").read_text()) for c in ("demo", "config")]
    found = next(c["sources"][name] for c in configs if name in c["sources"])
    if name in ("lcbop", "edip"):
        found["python"] = interpreter("kimpy")
    elif name == "ace":
        found["python"] = interpreter("pyace")
        places = [ROOT / "resources/potentials", ROOT.parent / "shared/data/potentials"]
        path = next((p / "c_ace.yace" for p in places if (p / "c_ace.yace").is_file()), None)
        if path is None:
            raise LookupError("c_ace.yace is in none of " + ", ".join(map(str, places)))
        found["kwargs"] = {"basis_set": str(path)}
        found.pop("files", None)
    elif name == "dft":
        found["python"] = interpreter("gpaw", "/usr/bin/python3")
    else:
        package = {"gap_demo": "quippy"}.get(name, "lammps")
        found["python"] = interpreter(package)
    return found


def label(name: str, frames: list[Atoms], folder: Path, reference: dict | None = None):
    """Label structures as the workflow does; give them back with the labels of this source."""
    config = folder / "sources.yaml"
    source = entry(name)
    config.write_text(yaml.safe_dump({"sources": {name: source}}))
    write(folder / "in.extxyz", frames)
    how, out = folder / "how.json", folder / "out.extxyz"
    command = [source["python"], ROOT / "workflow/scripts/label.py", "--config", config]
    command += ["--source", name, "--structures", folder / "in.extxyz", "--out", out]
    command += ["--provenance", how]
    if reference:
        (folder / "reference.json").write_text(json.dumps(reference))
        command += ["--reference", folder / "reference.json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return read(out, ":"), json.loads(how.read_text())


def energies(name: str, frames: list[Atoms]) -> np.ndarray:
    """Energy an atom (eV) of labelled structures."""
    return np.array([atoms.info[f"{name}_energy"] / len(atoms) for atoms in frames])


def largest_forces(name: str, frames: list[Atoms]) -> list[float]:
    """Largest force (eV/Å) in each labelled structure."""
    forces = [atoms.arrays[f"{name}_force"] for atoms in frames]
    return [float(np.linalg.norm(f, axis=1).max()) for f in forces]


@pytest.mark.parametrize("name", SOURCES)
def test_values_are_reproduced(name, tmp_path):
    recorded = json.loads(VALUES.read_text())["sources"][name]
    frames = read(STRUCTURES, ":")
    wanted = [
        i
        for i, atoms in enumerate(frames)
        if atoms.info["name"] in CHECKED.get(name, atoms.info["name"])
    ]
    # The lone atom of DFT takes as long as all the rest.
    reference = recorded["isolated_atoms_ev"] if name == "dft" else None
    try:
        found, how = label(name, [frames[i] for i in wanted], tmp_path, reference)
    except LookupError as reason:
        pytest.skip(str(reason))
    energy, force = TOLERANCES.get(name, TOLERANCE)
    expected = [recorded["structures"][frames[i].info["name"]] for i in wanted]
    code = f"{how['code']}, recorded with {recorded['code']}"
    np.testing.assert_allclose(
        energies(name, found),
        [values["energy_ev_per_atom"] for values in expected],
        atol=energy,
        rtol=0,
        err_msg=code,
    )
    np.testing.assert_allclose(
        largest_forces(name, found),
        [values["largest_force_ev_per_angstrom"] for values in expected],
        atol=force,
        rtol=0,
        err_msg=code,
    )


@pytest.mark.parametrize(("name", "lost"), [("edip", 0), ("lcbop", 4)])
def test_kim_and_lammps_agree(name, lost, tmp_path):
    """The same potential through KIM's simulator model and through LAMMPS itself.

    LCBOP in LAMMPS depends on the order of atoms where a coordination is fractional, and KIM's
    calculator orders them otherwise: a few structures differ, by less than 1 meV/atom.
    """
    frames = read(DEMO, ":")
    results = []
    for source in (name, f"{name}_lammps"):
        folder = tmp_path / source
        folder.mkdir()
        try:
            results.append(energies(source, label(source, frames, folder)[0]))
        except LookupError as reason:
            pytest.skip(str(reason))
    difference = np.abs(results[0] - results[1])
    assert (difference > 1e-6).sum() <= lost
    assert difference.max() < (1e-6 if lost == 0 else 1e-3)


def make_structures() -> list[Atoms]:
    """A rattled diamond, graphite, and an amorphous cell of the demo's DFT set."""
    diamond = bulk("C", "diamond", a=3.567, cubic=True)
    diamond.rattle(0.05, seed=42)
    diamond.info["name"] = "diamond"
    scaled = [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25), (0, 0, 0.75), (2 / 3, 1 / 3, 0.75)]
    cell = [2.46, 2.46, 6.71, 90, 90, 120]
    graphite = Atoms("C4", scaled_positions=scaled, cell=cell, pbc=True, info={"name": "graphite"})
    cells = (a for a in read(DEMO, ":") if a.info["config_type"] == "amorphous" and len(a) == 8)
    first = next(cells)
    amorphous = Atoms(first.numbers, positions=first.positions, cell=first.cell, pbc=True)
    amorphous.info["name"] = "amorphous"
    return [diamond, graphite, amorphous]


def write_values(folder: Path) -> None:
    """Evaluate every source that can run here, and write the values; others keep theirs."""
    write(STRUCTURES, make_structures())
    frames = read(STRUCTURES, ":")
    values = json.loads(VALUES.read_text())["sources"] if VALUES.exists() else {}
    for name in SOURCES:
        try:
            (folder / name).mkdir()
            found, how = label(name, frames, folder / name)
        except LookupError as reason:
            print(f"{name}: {reason}")
            continue
        entries = zip(energies(name, found), largest_forces(name, found), strict=True)
        values[name] = {
            "code": how["code"],
            "parameter_files_sha256": how["parameter_files_sha256"],
            "isolated_atoms_ev": how["isolated_atoms_ev"],
            "structures": {
                atoms.info["name"]: {
                    "energy_ev_per_atom": round(float(energy), 9),
                    "largest_force_ev_per_angstrom": round(force, 7),
                }
                for atoms, (energy, force) in zip(frames, entries, strict=True)
            },
        }
        print(name, values[name]["structures"])
    content = {"structures": STRUCTURES.name, "sources": values}
    VALUES.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        write_values(Path(scratch))
