"""Exported models: packaged and compiled, opened without this package, evaluated as LAMMPS does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from matscipy.neighbours import neighbour_list

from pretraining.data.store import Store
from pretraining.operations.export import write_lammps
from pretraining.training import export
from pretraining.training.run import Request, train
from toy import rattled_cells, write_settings

LMP = os.environ.get("PRETRAINING_LMP", "")
COMPILER = os.environ.get("CXX") or "g++"
ZERO = {"C": -154.3, "Si": -289.7}
# Ours cannot be imported, whatever the interpreter finds.
ALONE = """
import runpy, sys
sys.modules["pretraining"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
pytestmark = pytest.mark.slow


def cells(n: int, seed: int):
    """Cells of carbon and silicon."""
    for atoms in rattled_cells(n, seed):
        atoms.symbols[:3] = "Si"
        yield atoms


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Model of a tiny network of two elements."""
    folder = tmp_path_factory.mktemp("export")
    settings = write_settings(folder / "settings.yaml", max_epochs=5)
    data = folder / "data.h5"
    Store.write(data, cells(45, 0), n_val=5, n_test=10)
    train(Request("direct", data, 30, 1, settings, folder / "run"))
    return folder / "run" / "model.ckpt"


@pytest.fixture(scope="module")
def expected(trained):
    """Structures of several sizes with absolute energies by our own prediction."""
    frames = [
        a.repeat(size) for a, size in zip(cells(3, 5), (1, (2, 1, 1), (3, 2, 2)), strict=True)
    ]
    for atoms in frames:
        atoms.calc = None
        atoms.rattle(0.05, seed=1)
    return export.absolute_predictions(trained, ZERO, frames)


@pytest.fixture(scope="module")
def folder(trained, expected, root) -> Path:
    """An export with its example and its known energies."""
    made = trained.parents[1] / "made"
    made.mkdir()
    export.write_package(trained, ZERO, made / f"seed1{export.PACKAGE}")
    shutil.copy(root / "workflow/report/export/ase_example.py", made)
    frames = [atoms.copy() for atoms in expected]
    for atoms, known in zip(frames, expected, strict=True):
        atoms.info["seed1_energy"] = known.get_potential_energy()
        atoms.arrays["seed1_forces"] = known.get_forces()
    ase.io.write(made / "check.extxyz", frames)
    return made


@pytest.fixture(scope="module")
def compiled(folder) -> Path:
    """The same with compiled models."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"AOTInductor needs a C++ compiler: no {COMPILER}")
    package = folder / f"seed1{export.PACKAGE}"
    for target in ("ase", "pair_nequip"):
        export.compile_package(package, folder / f"seed1-{target}{export.COMPILED}", target, "cpu")
    return folder


def run_example(folder: Path) -> subprocess.CompletedProcess:
    """Run an export's example where this package cannot be imported."""
    command = [sys.executable, "-I", "-c", ALONE, folder / "ase_example.py"]
    return subprocess.run(command, env={}, cwd=folder, capture_output=True, text=True)


def assert_close(done, file: str) -> None:
    """The example finds the energies to 1e-6 eV/atom and the forces to 1e-5 eV/Å."""
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(f"{file}: "))
    energy, force = (float(number) for number in re.findall(r"\d\.\de[-+]\d+", line))
    assert energy <= 1e-6 and force <= 1e-5


def test_a_package_needs_nequip_alone(folder):
    assert_close(run_example(folder), f"seed1{export.PACKAGE}")


def test_another_model_is_not_taken_for_the_exported_one(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    frames = ase.io.read(other / "check.extxyz", ":")
    frames[1].info["seed1_energy"] += 0.1
    ase.io.write(other / "check.extxyz", frames)
    done = run_example(other)
    assert done.returncode == 1 and "not what it was" in done.stderr


def test_a_compiled_model_needs_nequip_alone(compiled):
    assert_close(run_example(compiled), f"seed1-ase{export.COMPILED}")


def as_pair_nequip(program, atoms, cutoff: float) -> list[torch.Tensor]:
    """Call a loaded program with what the pair style hands over, in its order and precision.

    LAMMPS numbers atom types by the pair_coeff line, and makes the list of neighbours itself.
    """
    i, j, shifts = neighbour_list("ijS", atoms, cutoff)
    inputs = [
        torch.from_numpy(atoms.positions.copy()),
        torch.from_numpy(np.stack([i, j]).astype(np.int64)),
        torch.from_numpy((atoms.symbols == "Si").astype(np.int64)),
        torch.from_numpy(atoms.cell.array.copy()).view(1, 3, 3),
        torch.from_numpy(shifts.astype(np.float64)),
    ]
    return program(inputs)


def test_lammps_finds_the_same_energies_and_forces(compiled, expected):
    """Any number of atoms and neighbours, other than it was traced with."""
    program = torch._inductor.aoti_load_package(
        str(compiled / f"seed1-pair_nequip{export.COMPILED}")
    )
    # What pair_nequip reads before it asks LAMMPS for neighbours.
    metadata = program.loader.get_metadata()
    assert metadata["type_names"] == "C Si" and float(metadata["r_max"]) == 4.0
    for atoms in expected:
        energies, forces, virial = as_pair_nequip(program, atoms, 4.0)
        assert np.abs(atoms.get_forces()).max() > 0.05
        np.testing.assert_allclose(forces.numpy(), atoms.get_forces(), atol=1e-5)
        difference = float(energies.sum()) - atoms.get_potential_energy()
        assert abs(difference) < 1e-6 * len(atoms)
        assert torch.isfinite(virial).all()


@pytest.mark.skipif(not shutil.which(LMP), reason="PRETRAINING_LMP: no LAMMPS with pair_nequip")
def test_lammps_itself_finds_them_and_conserves_energy(compiled, expected):
    write_lammps(compiled, expected[1], ["C", "Si"], "seed1")
    done = subprocess.run(
        [shutil.which(LMP), "-in", "in.lammps"], cwd=compiled, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    heads = [i for i, row in enumerate(rows) if row[:2] == ["Step", "Temp"]]
    energy = float(rows[heads[0] + 1][2])
    assert abs(energy - expected[1].get_potential_energy()) < 1e-5
    dumped = ase.io.read(compiled / "forces.dump", 0, format="lammps-dump-text")
    # LAMMPS may turn the cell: lengths of forces stay.
    lengths = [np.linalg.norm(a.get_forces(), axis=1) for a in (dumped, expected[1])]
    np.testing.assert_allclose(*lengths, atol=1e-5)
    total = [float(row[4]) for row in rows[heads[1] + 1 :] if len(row) == 6 and row[0].isdigit()]
    assert len(total) > 10 and np.ptp(total) < 0.01 * len(dumped)
