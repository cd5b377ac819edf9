"""How far label chunks and trajectories have come, from their files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from pretraining.runtime.lease import running, worker
from pretraining.study import stability as robustness
from pretraining.study.generation import trajectory_files
from pretraining.study.queries import label_source


def other_jobs(config: dict[str, Any], grid: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each set of label chunks and of trajectories.

    Parameters
    ----------
    config
        A validated configuration.
    grid
        Table of :func:`pretraining.study.grid.grid_table`.
    """
    results = Path(config["results"])
    for (dataset, source), count in _chunks(config, grid[~grid["imported"]]).items():
        folder = results / "labels" / dataset / source / "chunks"
        files = [folder / f"{name}.extxyz" for name in _chunk_names(count)]
        yield _line(f"labels of {dataset} by {source}", "chunks", files)
    for name, dataset in config["datasets"].items():
        if "generate" in dataset and name in set(grid["structures"]) | set(grid["target"]):
            files = [Path(file) for file in trajectory_files(config, name)]
            yield _line(f"structures {name}", "trajectories", files)
    for name, test in config["dynamics"].items():
        folders = [
            results / "dynamics" / name / model / f"replica~{replica}"
            for model in robustness.models(config, grid, name)
            for replica in range(1, test["replicas"] + 1)
        ]
        files = [folder / "outcome.json" for folder in folders]
        yield _line(f"dynamics {name}", "trajectories", files, folders=True)


def _chunks(config: dict[str, Any], runs: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Return how many training chunks of each dataset each source labels."""
    size = config["labelling"]["chunk_size"]
    wanted: dict[tuple[str, str], int] = {}
    for (dataset, source), npre in runs.groupby(["structures", "source"])["npre"].max().items():
        if "calculator" in config["sources"].get(source, {}):
            wanted[dataset, source] = math.ceil(npre / size)
    for target, n in runs[runs["target"] != ""].groupby("target")["n"].max().items():
        source = label_source(config["datasets"][target])
        if source is not None:
            count = max(wanted.get((target, source), 0), math.ceil(n / size))
            wanted[target, source] = count
    return wanted


def _chunk_names(count: int) -> list[str]:
    return ["eval", *(f"{number:05d}" for number in range(count))]


def _line(what: str, unit: str, files: Iterable[Path], folders: bool = False) -> str:
    """Count finished files, and those that are being made by who says so beside them."""
    files = list(files)
    missing = [file for file in files if not file.is_file()]
    leases = [file.with_name("running.json") if folders else running(file) for file in missing]
    under_way = sum(worker(lease) is not None for lease in leases)
    parts = [f"{len(files) - len(missing):,} of {len(files):,} {unit}"]
    parts += [f"{under_way:,} running"] * bool(under_way)
    return f"{what}: {', '.join(parts)}"
