"""Errors of label sources against those of the models trained on their labels."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pretraining.figures.source_vs_model import source_vs_model, source_vs_model_figure
from pretraining.results.runs_table import COLUMNS, normalise
from pretraining.runtime.errors import UserError


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


def test_models_are_compared_with_their_sources():
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


def test_models_are_drawn_with_open_and_filled_symbols():
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


def test_without_sources_there_is_nothing_to_compare():
    runs = runs_of()
    with pytest.raises(UserError, match="no label source was tested"):
        source_vs_model(runs[runs["kind"] != "source"])


def test_the_script(tmp_path, script):
    runs_of().to_csv(tmp_path / "runs.csv", index=False)
    options = ["--runs", tmp_path / "runs.csv", "--table", tmp_path / "s.csv"]
    assert script("students", *options, "--out", tmp_path / "s.png") == (0, "")
    assert (tmp_path / "s.png").stat().st_size > 10_000
    assert len(pd.read_csv(tmp_path / "s.csv")) == 4
