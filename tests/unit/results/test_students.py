"""Parity plots of models, and students beside their teachers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from pretraining.figures.parity import parity_figure
from pretraining.figures.source_vs_model import source_vs_model_figure
from pretraining.results.runs_table import COLUMNS, normalise
from pretraining.results.source_vs_model import source_vs_model
from pretraining.runtime.errors import UserError
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


def runs_of(sources=("ace", "edip")):
    rows = []
    for source, error in zip(sources, (1.0, 5.0), strict=False):
        rows.append(("source", "T", source, 0, 0, 0, 900.0, error, 40 * error, "", ""))
        rows.append(
            ("pretrain", "T", source, 100, 0, 42, 950.0, 1.2 * error, 50 * error, "S", "42")
        )
        for n in (25, 400):
            for seed in (1, 2):
                tuned = error**0.2 * n**-0.1 * (1 + seed / 10)
                row = ("finetune", "T", source, 100, n, seed, 60 * tuned, tuned)
                rows.append((*row, np.nan, "S", "42"))
    columns = [*COLUMNS, "test_energy_shifted_rmse", "structures", "preseed"]
    return normalise(pd.DataFrame(rows, columns=columns), "runs")


def test_students_beside_their_teachers():
    table = source_vs_model(runs_of(), at=500).set_index(["source", "metric"])
    assert len(table) == 4 and set(table["n"]) == {400} and set(table["npre"]) == {100}
    edip = table.loc[("edip", "force")]
    assert (edip["source_error"], edip["pretrained"]) == (5.0, 6.0)
    assert edip["finetuned"] == pytest.approx(5**0.2 * 400**-0.1 * 1.1)
    # The zero of energy of a source is not the target's: its error is the one after a shift.
    assert table.loc[("ace", "energy"), "source_error"] == 40.0
    assert table.loc[("ace", "energy"), "pretrained"] == 50.0
    assert table.loc[("ace", "energy"), "finetuned"] == pytest.approx(60 * 400**-0.1 * 1.1)
    mean = source_vs_model(runs_of(), "mean").set_index(["source", "metric"])
    assert mean.loc[("edip", "force"), "finetuned"] == pytest.approx(5**0.2 * 400**-0.1 * 1.15)


def test_students_are_drawn_with_open_and_filled_symbols():
    figure = source_vs_model_figure(
        source_vs_model(runs_of()), titles={"datasets": {"T": "the target"}}
    )
    energy, force = figure.axes
    assert energy.get_title("left") == "tested on the target"
    assert force.get_title("left") == "100 synthetic, 400 DFT structures"
    assert force.get_xlim() == force.get_ylim()
    symbols = [line for line in force.lines if line.get_linestyle() == "None"]
    assert [line.get_markerfacecolor() for line in symbols[::2]] == ["white", "white"]
    assert len(symbols) == 4


def test_without_sources_there_is_nothing_to_compare(tmp_path, root):
    runs = runs_of()
    with pytest.raises(UserError, match="no label source was tested"):
        source_vs_model(runs[runs["kind"] != "source"])


def test_the_programs(tmp_path, root, predictions):
    predictions.save(tmp_path / "p.npz")
    command = [sys.executable, root / "workflow/scripts/parity.py", "--title", "a; b"]
    command += ["--predictions", tmp_path / "p.npz", "--source", "ace", "--shifted"]
    subprocess.run([*command, "--out", tmp_path / "p.png"], check=True)
    runs_of().to_csv(tmp_path / "runs.csv", index=False)
    command = [sys.executable, root / "workflow/scripts/students.py", "--runs"]
    command += [tmp_path / "runs.csv", "--table", tmp_path / "s.csv", "--out", tmp_path / "s.png"]
    subprocess.run(command, check=True)
    assert (tmp_path / "p.png").stat().st_size > 10_000 < (tmp_path / "s.png").stat().st_size
    assert len(pd.read_csv(tmp_path / "s.csv")) == 4
