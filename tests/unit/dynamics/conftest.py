"""A small trained model and a start structure for all tests of MD stability."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.io import write

from pretraining.training.run import Request, train
from toy import rattled_cells, write_settings, write_store


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """Model of a short training."""
    folder = tmp_path_factory.mktemp("model")
    data = write_store(folder / "data.h5")
    settings = write_settings(folder / "settings.yaml", max_epochs=12)
    train(Request("direct", data, 30, 1, settings, folder / "run"))
    return folder / "run" / "model.ckpt"


@pytest.fixture(scope="session")
def start(tmp_path_factory) -> Path:
    """Sixteen atoms."""
    atoms = next(rattled_cells(1, seed=9)).repeat((2, 1, 1))
    atoms.calc = None
    path = tmp_path_factory.mktemp("start") / "start.extxyz"
    write(path, atoms)
    return path
