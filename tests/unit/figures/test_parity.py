"""Parity plots of models."""

from __future__ import annotations

import numpy as np
import pytest

from pretraining.figures.parity import parity_figure
from pretraining.training.predictions import Predictions


@pytest.fixture(scope="module")
def predictions():
    """Energies that are 2 eV/atom and 30 meV/atom off, forces that are 0.1 eV/Å off."""
    rng = np.random.default_rng(0)
    n_atoms = rng.integers(2, 9, size=40)
    forces = rng.normal(size=(n_atoms.sum(), 3))
    energy = n_atoms * rng.normal(-7, 0.5, size=40)
    off = np.where(np.arange(40) % 2, 2.03, 1.97)
    wrong = np.where(rng.random(forces.shape) < 0.5, 0.1, -0.1)
    return Predictions(
        np.arange(40), n_atoms, energy, energy + off * n_atoms, forces, forces + wrong
    )


def notes(figure):
    return [axes.texts[-1].get_text() for axes in figure.axes]


def test_errors_are_written_into_the_panels(predictions):
    figure = parity_figure(predictions, "a model; a set", shifted=True)
    energy, force = notes(figure)
    assert energy == "RMSE 30.0 meV/atom\nafter a shift of −2000 meV/atom\n40 structures"
    assert force == f"RMSE 0.100 eV/Å\n{predictions.forces.size} components"
    assert figure.get_suptitle() == "a model\na set"
    assert figure.axes[0].get_ylabel() == "prediction, shifted (eV/atom)"
    counted = figure.axes[1].collections[0].get_array().sum()
    assert counted <= predictions.forces.size


def test_unshifted_energies_that_are_off_are_at_the_edge_and_counted(predictions):
    figure = parity_figure(predictions, "")
    assert notes(figure)[0].startswith("RMSE 2000.2 meV/atom\n40 structures")
    assert "beyond" in figure.axes[0].texts[0].get_text()


def test_a_prediction_that_is_not_finite_is_no_crash(predictions):
    broken = Predictions(**{**vars(predictions), "predicted_forces": predictions.forces * np.nan})
    assert "nan" in notes(parity_figure(broken, ""))[1]


def test_the_script(tmp_path, script, predictions):
    predictions.save(tmp_path / "p.npz")
    options = ["--predictions", tmp_path / "p.npz", "--source", "ace", "--title", "a; b"]
    assert script("parity", *options, "--shifted", "--out", tmp_path / "p.png") == (0, "")
    assert (tmp_path / "p.png").stat().st_size > 10_000
