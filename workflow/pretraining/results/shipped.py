"""The finished runs of a study as one table: all that its tables and figures are drawn from."""

from __future__ import annotations

from typing import Any

import pandas as pd

from pretraining.results.runs_table import GRID_COLUMNS, collect
from pretraining.runtime.errors import UserError
from pretraining.study.grid import grid_table, results_table, select


def finished_runs(config: dict[str, Any]) -> pd.DataFrame:
    """Collect all results of a study that are there, and the pre-trainings for the cost.

    Returns
    -------
    pandas.DataFrame
        As :func:`.runs_table.collect`; a pre-training has no target.

    Raises
    ------
    UserError
        If there is no result.
    """
    grid = grid_table(config)
    trainings = select(grid, kind="pretrain", imported=False)
    paths = [f"{config['results']}/{path}/metrics.json" for path in trainings["path"]]
    trainings = trainings.assign(trained_on="", metrics=paths)
    wanted = results_table(config, grid, config["experiments"])
    wanted = pd.concat([trainings[list(GRID_COLUMNS)], wanted], ignore_index=True)
    runs = collect(wanted, allow_missing=True)
    runs = runs[runs["status"] != "missing"]
    if runs.empty:
        raise UserError(f"{config['results']}: no run of the study has finished there")
    return runs
