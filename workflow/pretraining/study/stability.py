"""Tests of MD stability: the section `dynamics` of a configuration.

A *test* drives the same structure with several models of the grid; replicas differ in their initial
velocities.
Imported in every job of Snakemake: only pandas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pretraining.runtime.errors import UserError
from pretraining.study.generation import TOLERANCE, duration_ps, stage_problems
from pretraining.study.queries import unknown

if TYPE_CHECKING:
    import pandas as pd

TORCH_SIM = "torch-sim"  # the engine that moves several replicas together


def models(config: Mapping[str, Any], grid: pd.DataFrame, name: str) -> list[str]:
    """Return the models of a test, by the path of their runs after ``runs/``.

    Raises
    ------
    UserError
        If an entry selects no run of the grid, or has a value that no run has.
    """
    chosen: dict[str, None] = {}
    for index, entry in enumerate(config["dynamics"][name]["models"]):
        where = f"dynamics.{name}.models[{index}]"
        rows = grid[[entry["experiment"] in names.split(",") for names in grid["experiments"]]]
        rows = rows[rows["kind"].isin(entry["kinds"])]
        for key in ("n", "npre", "source", "transform", "seed"):
            if key not in entry:
                continue
            # Direct training has no pre-training to choose, a pre-training no fine-tuning.
            free = rows["kind"] == ("pretrain" if key == "n" else "direct")
            if key == "seed":
                free &= False
            for value in entry[key]:
                if not (~free & (rows[key] == value)).any():
                    known = ", ".join(str(v) for v in sorted(rows.loc[~free, key].unique()))
                    raise UserError(
                        f"{where}.{key}: no such run has {key} {value}; known: {known or 'none'}"
                    )
            rows = rows[free | rows[key].isin(entry[key])]
        if rows.empty:
            raise UserError(f"{where}: selects no run of experiment '{entry['experiment']}'")
        chosen |= dict.fromkeys(path.removeprefix("runs/") for path in rows["path"])
    return list(chosen)


def batches(test: Mapping[str, Any]) -> list[list[int]]:
    """Return the replicas of each torch-sim job of a test."""
    numbers, size = list(range(1, test["replicas"] + 1)), test["batch"]
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def problems(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the broken rules between keys of the test `name`."""
    test = config["dynamics"][name]
    where = f"dynamics.{name}"
    for index, entry in enumerate(test["models"]):
        key = f"{where}.models[{index}].experiment"
        yield from unknown(config, key, entry["experiment"], "experiments")
    start = test["start"]
    if "dataset" in start:
        yield from unknown(config, f"{where}.start.dataset", start["dataset"], "datasets")
        for key in start["nearest"]:
            if key not in config["datasets"][start["dataset"]]["keep"]:
                yield (
                    f"{where}.start.nearest: '{key}' is not kept; add it to "
                    f"datasets.{start['dataset']}.keep"
                )
    yield from stage_problems(where, test)
    ratio = test["frame_every_ps"] / test["log_every_ps"]
    steps = 1000 * test["log_every_ps"] / test["timestep_fs"]
    for value, what in ((ratio, "frame_every_ps"), (steps, "timestep_fs")):
        if round(value) < 1 or abs(value - round(value)) > TOLERANCE * value:
            relation = "divide" if what == "frame_every_ps" else "be a multiple of"
            yield (
                f"{where}.log_every_ps: {test['log_every_ps']:g} ps must {relation} {what}, "
                f"{test[what]:g}"
            )
    for time in test["snapshots"]:
        if time > duration_ps(test) + TOLERANCE:
            yield f"{where}.snapshots: {time:g} ps is after the end at {duration_ps(test):g} ps"
