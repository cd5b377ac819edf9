"""Angles between predicted and DFT forces."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pretraining.figures.angles import angles_of
from pretraining.training.predictions import Predictions

FORCES = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 1e-3], [0, 3.0, 0]])


def predictions(predicted) -> Predictions:
    one = np.ones(1)
    return Predictions(one, 4 * one, one, one, FORCES, np.array(predicted, dtype=float))


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (7 * FORCES, [0, 0, 0]),
        (-FORCES, [180, 180, 180]),
        ([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]], [45, 90, 90]),
    ],
)
def test_angles_are_of_atoms_with_a_dft_force(predicted, expected):
    angles, norms = angles_of(predictions(predicted))
    assert angles.tolist() == pytest.approx(expected, abs=1e-5)
    assert norms.tolist() == [1, 2, 3]


def test_the_script_draws_before_and_after_fine_tuning(tmp_path, script, root):
    styles = tmp_path / "styles.yaml"
    datasets = "datasets: {carbon: {title: carbon, published_as: C-GAP-17}}"
    styles.write_text(f"sources: {{ace: {{title: C-ACE, kind: ml}}}}\n{datasets}\n")
    files = []
    for n, forces in ((0, -FORCES), (25, np.roll(FORCES, 1, axis=1)), (50, FORCES)):
        name = f"n~{n}/seed~1.npz" if n else "seed~42.npz"
        files.append(tmp_path / f"target~carbon/source~ace/npre~10000/{name}")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        predictions(forces).save(files[-1])
    options = ["--predictions", *files, "--styles", styles, "--out", tmp_path / "a.svg"]
    options += ["--published", root / "resources/published/headline.csv"]
    assert script("angles", *options, "--table", tmp_path / "a.csv") == (0, "")
    table = pd.read_csv(tmp_path / "a.csv")
    assert table["mean"].tolist() == pytest.approx([180, 90, 0])
    assert table["n"].tolist() == [0, 25, 50]
    drawn = (tmp_path / "a.svg").read_text()
    for text in ("not tuned: 180° (published 21°)", "n = 25: 90° (published 21°)", "n = 50: 0°"):
        assert f"<!-- {text} -->" in drawn
