"""Small labelled sets and settings for the tests of training: seconds, not minutes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from pretraining.data.store import Store

# Compiled in seconds. Tests that compile use the same network, so that it is compiled once.
NETWORK = {"num_layers": 1, "num_features": 2, "num_bessels": 4}
# Few steps, so large ones; a state after each.
TRAINING = {
    "device": "cpu",
    "compile": "never",
    "learning_rate": 0.03,
    "max_epochs": 8,
    "checkpoint_seconds": 0,
}
# An MD stability test of 120 steps.
MD_TEST = {
    "seed": 42,
    "stages": [{"from": 100, "to": 300, "ps": 0.03}, {"temperature": 300, "ps": 0.03}],
    "timestep_fs": 0.5,
    "thermostat": "nose-hoover",
    "damping_fs": 50.0,
    "engine": "ase",
    "frame_every_ps": 0.01,
    "log_every_ps": 0.005,
    "radius": 1.85,
    "limits": {
        "temperature_factor": 20.0,
        "energy_per_atom": 50.0,
        "min_distance": 0.2,
        "zero_fold": 1.0,
        "eight_fold": 1.0,
    },
}


def rattled_cells(n: int, seed: int = 0, symbol: str = "C") -> Iterator[Atoms]:
    """Rattled simple cubic cells of eight atoms, labelled by a Lennard-Jones potential."""
    generator = np.random.default_rng(seed)
    for _ in range(n):
        atoms = bulk(symbol, "sc", a=1.65 * generator.uniform(0.98, 1.02)) * (2, 2, 2)
        atoms.positions += generator.normal(0, 0.04, atoms.positions.shape)
        yield labelled(atoms)


def labelled(atoms: Atoms) -> Atoms:
    """Return the structure with the labels of a Lennard-Jones potential."""
    atoms.calc = LennardJones(sigma=1.5, epsilon=0.5, rc=4.0)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def write_store(path: Path, n: int = 45, n_val: int = 5, n_test: int = 10, **kwargs: Any) -> Path:
    """Write a labelled store of `n` structures."""
    Store.write(path, rattled_cells(n, **kwargs), n_val=n_val, n_test=n_test)
    return path


def write_settings(path: Path, network: dict | None = None, **training: Any) -> Path:
    """Write a settings file with a tiny network."""
    settings = {
        "network": NETWORK | (network or {}),
        "training": TRAINING | training,
        "transforms": {"Si": {"elements": {"C": "Si"}, "scale": 1.5, "cutoff": 5.0}},
    }
    path.write_text(yaml.safe_dump(settings))
    return path
