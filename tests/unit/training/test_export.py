"""The model that LAMMPS opens: exported by nequip-compile, evaluated as pair_nequip does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from matscipy.neighbours import neighbour_list

from pretraining.training.network.checkpoint import load_model
from pretraining.training.predict import predict
from pretraining.training.run import Request, train
from toy import rattled_cells, write_settings, write_store

COMPILER = os.environ.get("CXX") or "g++"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which(COMPILER) is None, reason=f"AOTInductor needs a C++ compiler: no {COMPILER}"
    ),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Model of a tiny network, trained for a few epochs."""
    folder = tmp_path_factory.mktemp("export")
    settings = write_settings(folder / "settings.yaml", max_epochs=12)
    data = write_store(folder / "data.h5")
    train(Request("direct", data, 30, 1, settings, folder / "run"))
    return folder / "run" / "model.ckpt"


@pytest.fixture(scope="module")
def exported(trained, root) -> Path:
    """What the README's command makes of it."""
    out = trained.with_name("model.nequip.pt2")
    command = [Path(sys.executable).with_name("nequip-compile"), trained, out, "--device", "cpu"]
    command += ["--mode", "aotinductor", "--target", "pair_nequip"]
    environment = os.environ | {"PYTHONPATH": str(root / "workflow")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def as_pair_nequip(program, atoms, cutoff: float) -> list[torch.Tensor]:
    """Call a loaded program with what the pair style hands over, in its order and precision.

    LAMMPS numbers atom types by the pair_coeff line, and makes the list of neighbours itself.
    """
    i, j, shifts = neighbour_list("ijS", atoms, cutoff)
    inputs = [
        torch.from_numpy(atoms.positions.copy()),
        torch.from_numpy(np.stack([i, j]).astype(np.int64)),
        torch.zeros(len(atoms), dtype=torch.int64),
        torch.from_numpy(atoms.cell.array.copy()).view(1, 3, 3),
        torch.from_numpy(shifts.astype(np.float64)),
    ]
    return program(inputs)


@pytest.mark.parametrize(
    "atoms",
    [
        next(rattled_cells(1, seed=5)).repeat((2, 1, 1)),
        next(rattled_cells(1, seed=6)).repeat((3, 2, 2)),
        bulk("C", "diamond", a=3.6, cubic=True),
    ],
    ids=["16 atoms", "96 atoms", "8 atoms"],
)
def test_the_exported_model_has_the_forces_of_the_model(trained, exported, atoms):
    """Any number of atoms and neighbours, other than it was traced with."""
    atoms.calc = None
    atoms.rattle(0.05, seed=1)
    program = torch._inductor.aoti_load_package(str(exported))
    # What pair_nequip reads before it asks LAMMPS for neighbours.
    metadata = program.loader.get_metadata()
    assert metadata["type_names"] == "C"
    cutoff = float(metadata["r_max"])
    assert cutoff == 4.0
    energies, forces, virial = as_pair_nequip(program, atoms, cutoff)
    (expected,) = predict(load_model(trained), [atoms])
    assert np.abs(expected.get_forces()).max() > 0.05
    np.testing.assert_allclose(forces.numpy(), expected.get_forces(), atol=1e-5)
    assert float(energies.sum()) == pytest.approx(expected.get_potential_energy(), abs=1e-4)
    assert torch.isfinite(virial).all()
