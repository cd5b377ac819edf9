"""Which runs are exported, and what the model card says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from pretraining.operations.export import best_cell, cell_of_run, export, finished_runs
from pretraining.operations.model_card import model_card
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_json
from pretraining.runtime.records import write_record
from pretraining.study.grid import Run
from pretraining.training.predictions import named_errors

PARENT = Run.pretrain("melts", "none", "emt", 12, 1)
RUNS = {  # validation errors of forces
    **{Run.direct("Cu", 8, seed): error for seed, error in ((1, 0.1), (2, 0.9))},
    **{PARENT.finetune("Cu", 8, seed): error for seed, error in ((1, 0.5), (2, 0.3))},
    PARENT.finetune("Cu", 4, 1): 0.6,
    PARENT.finetune("Cu", 8, 3): float("nan"),
}
CONFIG = {
    "results": "results/copper",
    "network": {"model": "paper"},
    "datasets": {
        "Cu": {"title": "Copper", "about": {"theory": "PBE", "licence": "CC0"}},
        "melts": {},
    },
    "sources": {"emt": {"title": "EMT", "calculator": "ase.calculators.emt.EMT"}},
}


@pytest.fixture
def runs(tmp_path) -> pd.DataFrame:
    """Finished runs; one of them has diverged, and one not finished."""
    for run, error in RUNS.items():
        folder = tmp_path / run.path
        folder.mkdir(parents=True)
        (folder / "model.ckpt").write_bytes(b"model")
        errors = {part: named_errors(error / 10, error) for part in ("val", "test")}
        about = {"elements": ["Cu", "Si"], "n_parameters": 10, "cutoff": 4.0, "versions": {"a": 1}}
        write_record(folder / "metrics.json", errors | about)
    grid = [vars(run) | {"path": run.path} for run in (*RUNS, Run.direct("Cu", 16, 1))]
    return finished_runs(pd.DataFrame(grid), tmp_path)


def test_the_best_cell_has_the_lowest_mean_validation_error(runs):
    cell = best_cell(runs, "Cu")
    # The best single model is of another cell.
    assert list(cell["kind"]) == ["finetune"] * 2 and list(cell["seed"]) == [2, 1]


@pytest.mark.parametrize("below", [True, False])
def test_a_run_brings_its_other_seeds(runs, tmp_path, below):
    path = Path(Run.direct("Cu", 8, 2).path)
    cell = cell_of_run(runs, path if below else tmp_path / path, tmp_path)
    assert list(cell["kind"]) == ["direct"] * 2 and list(cell["seed"]) == [1, 2]


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda runs, here: best_cell(runs, "Ag"), "target 'Ag' .targets with runs: Cu"),
        (lambda runs, here: cell_of_run(runs, here / "else", here), "--run .*no such run"),
        (
            lambda runs, here: cell_of_run(runs, Path(PARENT.finetune("Cu", 8, 3).path), here),
            "no such run that has finished",
        ),
        (lambda runs, here: export(CONFIG, here, runs, runs, here), "--out: .* is not empty"),
    ],
    ids=["target", "run", "diverged", "folder"],
)
def test_what_is_not_there_is_named(runs, tmp_path, choose, message):
    with pytest.raises(UserError, match=message):
        choose(runs, tmp_path)


def test_the_model_card(runs, tmp_path):
    pool = {"structures": 9, "composition": {"Cu": 1.0}, "density_g_cm3": {"min": 8, "max": 9}}
    summary = {"energy_reference": {"kind": "least_squares"}, "groups": {"train": pool}}
    write_json(tmp_path / "data" / "Cu" / "summary.json", summary)
    members = {f"seed{row['seed']}": row for row in best_cell(runs, "Cu").to_dict("records")}
    card = re.sub(" +", " ", model_card(CONFIG, tmp_path, runs, members, {"Cu": -3.5}, "cpu"))
    for text in (
        "# Copper",
        "seed2, seed1",
        "| Cu | 9 | Cu | 8.00 to 9.00 |",
        "(least squares: Cu -3.500000 eV)",
        "**None is known of Si",
        "| 4 | 60.0 | – | 0.600 | – | 1 |",
        "| 8 | 40.0 | 14.1 | 0.400 | 0.141 | 2 |",
        "| dataset `Cu` | Copper | | PBE | CC0 | – |",
        "| source `emt` | EMT | ase.calculators.emt.EMT | – | – | – |",
        f"--run results/copper/{members['seed2']['path']}",
    ):
        assert text in card, text
