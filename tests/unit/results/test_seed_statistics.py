"""Several pre-training seeds: a cell has the runs of every pair with a fine-tuning seed."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pandas as pd
import pytest

from pretraining.figures.learning_curves import learning_curves
from pretraining.figures.panels import Options
from pretraining.results.efficiency import efficiency, gains
from pretraining.results.runs_table import COLUMNS, normalise
from pretraining.results.seed_statistics import common_seeds, curve_points, describe_seeds
from pretraining.results.selection import Selection
from pretraining.results.selection import select as choose
from pretraining.results.table1 import table1
from pretraining.study.config import load_config
from pretraining.study.grid import grid_table, results_table, select

PRESEEDS, SEEDS = (7, 42), (1, 2, 3)
ERRORS = dict(zip(itertools.product(PRESEEDS, SEEDS), (50, 40, 60, 45, 55, 41), strict=True))


@pytest.fixture(scope="module")
def runs():
    """One size of one source, pre-trained twice and fine-tuned thrice each."""
    rows = [("direct", "T", "none", 0, 25, seed, 100.0 + seed, 1.0, "", "") for seed in SEEDS]
    for (preseed, seed), error in ERRORS.items():
        row = ("finetune", "T", "ace", 100, 25, seed, error, error / 100)
        rows.append((*row, "S", str(preseed)))
    for preseed, error in zip(PRESEEDS, (80.0, 90.0), strict=True):
        rows.append(("pretrain", "T", "ace", 100, 0, preseed, error, 1.2, "S", str(preseed)))
    columns = [*COLUMNS, "structures", "preseed"]
    return normalise(pd.DataFrame(rows, columns=columns), "runs")


def test_the_grid_multiplies_the_seeds(root):
    config = load_config(root / "config/config.yaml")
    config = copy.deepcopy(config)
    config["experiments"]["fig3"]["pretrain_seeds"] = [7, 42]
    grid = grid_table(config)
    mine = select(grid, "fig3")
    assert dict(mine["kind"].value_counts()) == {"finetune": 320, "direct": 40, "pretrain": 8}
    table = results_table(config, grid, ["fig3"])
    cell = table[(table["kind"] == "finetune") & (table["source"] == "ace") & (table["n"] == 25)]
    assert set(zip(cell["preseed"], cell["seed"], strict=True)) == set(
        itertools.product([7, 42], [1, 2, 3, 4, 42])
    )


def test_table1_has_the_spread_of_all(runs):
    cell = table1(choose(runs)).set_index("source").loc["ace"]
    errors = np.array(list(ERRORS.values()), dtype=float)
    assert cell["count"] == 6
    assert cell["mean"] == pytest.approx(errors.mean())
    assert cell["std"] == pytest.approx(errors.std(ddof=1))
    one = table1(choose(runs, Selection(preseed="7"))).set_index("source").loc["ace"]
    assert one["count"] == 3 and one["mean"] == pytest.approx(50.0)


def test_curves_are_the_best_of_all_and_say_so(runs):
    selected = choose(runs)
    tuned = selected.runs[selected.runs["kind"] == "finetune"]
    assert curve_points(tuned, "energy", "best")["value"].tolist() == [40.0]
    assert describe_seeds(tuned) == "2 × 3 seeds"
    figure = learning_curves([selected], Options(untuned=True))
    note = figure.texts[0].get_text()
    assert "direct: best of 3 seeds" in note and "fine-tuned: best of 2 × 3 seeds" in note
    lines = [line.get_ydata()[0] for line in figure.axes[0].lines if len(line.get_ydata()) == 2]
    assert lines == [80.0]
    mean = learning_curves([selected], Options(untuned=True, aggregate="mean"))
    lines = [line.get_ydata()[0] for line in mean.axes[0].lines if len(line.get_ydata()) == 2]
    assert lines == [85.0]


def test_efficiency_counts_all(runs):
    table = efficiency(runs)
    row = table[(table["metric"] == "energy") & (table["aggregate"] == "mean")].iloc[0]
    assert row["seeds_finetune"] == 6 and row["rmse_finetune"] == pytest.approx(48.5)
    assert row["rmse_untuned"] == 85.0
    best = gains(runs).set_index(["metric", "aggregate"]).loc[("energy", "best")]
    assert best["rmse_finetune"] == 40.0


def test_sizes_share_pairs_of_seeds(runs):
    more = runs[runs["kind"] == "finetune"].assign(npre=300)
    both = pd.concat([runs, more[more["preseed"] == "42"]])
    kept = common_seeds(both)
    kept = kept[kept["kind"] == "finetune"]
    assert set(kept["preseed"]) == {"42"} and len(kept) == 6
