"""Tests of robustness in molecular dynamics, as the configuration's `dynamics` say them.

A *test* drives the same structure with several models of the grid, each a number of times with
other initial velocities. What decides a trajectory, which are wanted, and what is drawn of them
are told apart, so that another replica or snapshot runs nothing again.

Snakemake executes this in every job: it imports nothing but pandas.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pretraining.runtime.errors import UserError
from pretraining.study.generation import TOLERANCE, Stage, stage_problems, stages

if TYPE_CHECKING:
    import pandas as pd

# What is looked up for the list of trajectories, for their start, and for the figure.
APART = ("title", "models", "replicas", "batch", "start", "snapshots")
TORCH_SIM = "torch-sim"  # the engine that moves several replicas together


def test_stages(test: Mapping[str, Any]) -> list[Stage]:
    """Return the temperatures of a test."""
    return stages(test, None)


def duration_ps(test: Mapping[str, Any]) -> float:
    """Return how long a trajectory of a test is, ps."""
    return sum(stage["ps"] for stage in test["stages"])


def models(config: Mapping[str, Any], grid: pd.DataFrame, name: str) -> list[str]:
    """Return the models of a test, by the path of their runs after ``runs/``.

    Raises
    ------
    UserError
        If an entry selects no run of the grid, or asks for a value that no run has.
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
                        f"{where}.{key}: no such run has {key} {value}; there are: "
                        f"{known or 'none'}"
                    )
            rows = rows[free | rows[key].isin(entry[key])]
        if rows.empty:
            raise UserError(f"{where}: selects no run of experiment '{entry['experiment']}'")
        chosen |= dict.fromkeys(path.removeprefix("runs/") for path in rows["path"])
    return list(chosen)


def batches(test: Mapping[str, Any]) -> list[list[int]]:
    """Return the replicas of a test that torch-sim moves together, a job for each list."""
    numbers, size = list(range(1, test["replicas"] + 1)), test["batch"]
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def protocol_part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what decides a trajectory of a test beside its model, start and replica."""
    test = config["dynamics"][name]
    return {"dynamics": {key: value for key, value in test.items() if key not in APART}}


def start_part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what decides the structure that a test starts from."""
    return {"start": config["dynamics"][name]["start"]}


def problems(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the test `name` of a configuration, beyond its schema."""
    test = config["dynamics"][name]
    where = f"dynamics.{name}"
    for index, entry in enumerate(test["models"]):
        if entry["experiment"] not in config["experiments"]:
            allowed = ", ".join(config["experiments"])
            yield (
                f"{where}.models[{index}].experiment: '{entry['experiment']}' is not one of the "
                f"configured experiments; allowed: {allowed}"
            )
    start = test["start"]
    if "dataset" in start:
        if start["dataset"] not in config["datasets"]:
            allowed = ", ".join(config["datasets"])
            yield (
                f"{where}.start.dataset: '{start['dataset']}' is not one of the configured "
                f"datasets; allowed: {allowed}"
            )
            return
        keep = config["datasets"][start["dataset"]]["keep"]
        for key in start["nearest"]:
            if key not in keep:
                yield (
                    f"{where}.start.nearest: '{key}' is not carried along; add it to "
                    f"datasets.{start['dataset']}.keep"
                )
    for key, fault in stage_problems(test):
        yield f"{where}.{key}: {fault}"
    ratio = test["frame_every_ps"] / test["log_every_ps"]
    steps = 1000 * test["log_every_ps"] / test["timestep_fs"]
    for value, what in ((ratio, "frame_every_ps"), (steps, "timestep_fs")):
        if round(value) < 1 or abs(value - round(value)) > TOLERANCE * value:
            relation = "divide" if what == "frame_every_ps" else "be a multiple of"
            yield (
                f"{where}.log_every_ps: {test['log_every_ps']:g} ps must {relation} {what}, "
                f"{test[what]:g}"
            )
            return
    for time in test["snapshots"]:
        if time > duration_ps(test) + TOLERANCE:
            yield f"{where}.snapshots: {time:g} ps is after the end at {duration_ps(test):g} ps"
