"""Training times by model and number of structures, and how much faster fine-tuning is."""

from __future__ import annotations

import pandas as pd

from pretraining.results.cost import undisturbed_times
from pretraining.results.runs_table import MODEL, RMSE, TRAINED, unique_runs

CELL = ("target", *MODEL, "n")
TIMES = {"time_s": "mean", "fastest_s": "min", "slowest_s": "max"}
SPEED_UPS = ("speed_up", "speed_up_min", "speed_up_max")


def training_times(runs: pd.DataFrame) -> pd.DataFrame:
    """Return times and mean test errors of direct and fine-tuned runs, a row for each cell.

    Runs that shared their GPU are left out, and of each target those on other devices than most.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`CELL`, ``seeds`` (runs), ``time_s``, ``fastest_s`` and ``slowest_s`` (of the
        training steps and validations), ``energy`` and ``force`` (mean RMSEs of these runs) and
        ``device``.
    """
    runs = runs.assign(time=undisturbed_times(runs), device=_devices(runs))
    runs = unique_runs(runs[runs["kind"].isin(TRAINED)]).dropna(subset="time")
    counts = runs.groupby("target")["device"].agg(lambda names: names.mode().min())
    runs = runs[runs["device"] == runs["target"].map(counts)]
    statistics = {column: ("time", how) for column, how in TIMES.items()}
    errors = {metric: (column, "mean") for metric, column in RMSE.items()}
    cells = runs.groupby([*CELL, "device"], as_index=False)
    return cells.agg(seeds=("seed", "size"), **statistics, **errors)


def _devices(runs: pd.DataFrame) -> pd.Series:
    empty = pd.Series("", runs.index)
    device, name = (runs.get(column, empty).fillna("") for column in ("device", "device_name"))
    return (device.astype(str) + " " + name.astype(str)).str.strip()


def speed_ups(times: pd.DataFrame) -> pd.DataFrame:
    """Return how much faster fine-tuning is than direct training on as many structures.

    Returns
    -------
    pandas.DataFrame
        A row for each target and pre-training: ``speed_up``, the ratio of mean times,
        ``speed_up_min`` and ``_max``, of the fastest and the slowest seeds; each the mean over n.
    """
    direct = times["source"] == "none"
    pairs = times[~direct].merge(times[direct], on=["target", "n"], suffixes=("", "_direct"))
    ratios = {
        "speed_up": pairs["time_s_direct"] / pairs["time_s"],
        "speed_up_min": pairs["fastest_s_direct"] / pairs["slowest_s"],
        "speed_up_max": pairs["slowest_s_direct"] / pairs["fastest_s"],
    }
    names = [name for name in ("target", *MODEL) if name in times]
    return pairs.assign(**ratios).groupby(names, as_index=False)[list(SPEED_UPS)].mean()
