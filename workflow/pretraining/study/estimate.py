"""Expected time of the runs of a grid, from published medians, measured speeds and finished runs.

The published medians (Gardner, Baker and Deringer 2023, one RTX A6000) are in
``resources/published/training-cost.csv``, and give the epochs and the times on a GPU. Times on a
CPU follow from the speeds in docs/performance.md, the network and the structures.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pretraining.study.queries import paths_of, split_sizes
from pretraining.study.settings import COMPILE_ABOVE_S, KINDS

# Measured on one core, compiled (docs/performance.md): time of an atom of the paper's network in a
# training step (s), the share of it in a validation, start and end of a run (s), and the bandwidth
# of a copy (bytes/s), which limits them.
ATOM_S, VALIDATION, START_S, BANDWIDTH = 0.32e-3, 1 / 3, 7.4, 36e9
UNCOMPILED = 7  # times as long
PAPER = {"num_layers": 4, "num_features": 32, "cutoff": 4.0, "l_max": 1}
PATIENCE, USUAL_ATOMS, USUAL_STRUCTURES = 40, 64, 1000  # the paper's; guesses for unread files


def published_costs(path: str | Path) -> pd.DataFrame:
    """Read the published medians: columns of the table of runs, and ``gpu_seconds_median``."""
    return pd.read_csv(path, keep_default_na=False)


def finished_seconds(grid: pd.DataFrame, results: str | Path) -> pd.Series:
    """Return the wall time of each run of the table, s; NaN for a run that has not finished."""

    def seconds(path: str) -> float:
        try:
            metrics = json.loads((Path(results) / path / "metrics.json").read_text())
        except (OSError, json.JSONDecodeError):
            return np.nan
        return float(metrics.get("wall_time_s") or np.nan)

    return grid["path"].map(seconds).astype(float)


def estimated_seconds(grid: pd.DataFrame, costs: pd.DataFrame) -> pd.Series:
    """Return the published wall time of each run, s.

    For other runs, the median is interpolated in the number of structures (log-log; proportional
    above the published range, constant below) among the published runs of the same kind, and of the
    same target if possible. `costs` is the table of :func:`published_costs`.
    """
    return _published(grid, costs, "gpu_seconds_median")


def expected_seconds(
    config: Mapping[str, Any], grid: pd.DataFrame, costs: pd.DataFrame, finished: pd.Series
) -> pd.Series:
    """Return the expected wall time of each run with this configuration on this machine, s.

    A run takes the published epochs, more with more patience, up to `max_epochs`. `finished` is the
    series of :func:`finished_seconds`: finished runs have their own time, and the median of its
    ratio to the estimate scales the other runs of their kind.
    """
    training = config["training"]
    each = {kind: training | training[kind] for kind in KINDS}
    of_kind = [each[kind] for kind in grid["kind"]]
    published = _published(grid, costs, "epochs_median")
    patience = pd.Series([t["patience"] - PATIENCE for t in of_kind], grid.index).clip(lower=0)
    epochs = (published + patience).clip(upper=[t["max_epochs"] for t in of_kind])
    if on_gpu(training):
        seconds = _published(grid, costs, "gpu_seconds_median") * epochs / published
        return _scaled(seconds, grid, finished)
    network = PAPER | {key: config["network"][key] for key in PAPER if key in config["network"]}
    powers = {"num_layers": 1, "num_features": 2, "cutoff": 3}
    size = np.prod([(network[key] / PAPER[key]) ** power for key, power in powers.items()])
    atom = ATOM_S * size * ((network["l_max"] + 1) / 2) ** 2
    if training["compile"] == "never":
        atom *= UNCOMPILED
    if finished.isna().all():
        atom *= BANDWIDTH / _bandwidth()
    sets = {name: _shape(config, name) for name in {*grid["target"], *grid["structures"]} - {""}}
    data = [sets[run.target or run.structures] for run in grid.itertuples()]
    seen = [
        atoms * (n + VALIDATION * n_val)
        for (atoms, n_val), n in zip(
            data, grid["n"].where(grid["n"] > 0, grid["npre"]), strict=True
        )
    ]
    return _scaled(START_S + epochs * atom * pd.Series(seen, grid.index), grid, finished)


def on_gpu(training: Mapping[str, Any]) -> bool:
    """Return whether trainings use a GPU, as far as this machine tells."""
    here = Path("/proc/driver/nvidia/gpus").is_dir()
    return training["device"] == "cuda" or (training["device"] == "auto" and here)


def hours_of(config: Mapping[str, Any], finished: bool) -> str:
    """Return in words where expected hours come from."""
    if on_gpu(config["training"]):
        basis = "published medians of one RTX A6000 with the paper's network, for these epochs"
    else:
        basis = "this network and these epochs on one core of this machine, without compiling"
    return f"Hours that are not measured: {basis}{', scaled to the finished runs' * finished}."


def _shape(config: Mapping[str, Any], name: str) -> tuple[float, int]:
    """Return the atoms of a structure of a dataset, and its number of validation structures."""
    dataset = config["datasets"][name]
    try:
        summary = Path(config["results"], "data", name, "summary.json").read_text(encoding="utf-8")
        content = json.loads(summary)
        every = content["groups"]["all"]
        return every["atoms"] / every["structures"], content["counts"]["val"]
    except (OSError, ValueError, KeyError):
        n_val = split_sizes(dataset.get("structures", USUAL_STRUCTURES), dataset["split"])[0]
        atoms = dataset.get("generate", {}).get("atoms") or _first_atoms(paths_of(dataset))
        return atoms or USUAL_ATOMS, n_val


def _first_atoms(paths: list[str]) -> float | None:
    """Return the mean number of atoms of the first structures of an extended XYZ file, if it is."""
    counts = []
    try:
        with (gzip.open if paths[0].endswith(".gz") else open)(paths[0], "rt") as handle:
            while len(counts) < 50 and (line := handle.readline()):
                counts.append(int(line))
                next(islice(handle, int(line), int(line) + 1), None)
    except (OSError, ValueError, IndexError):
        pass
    return float(np.mean(counts)) if counts else None


def _bandwidth() -> float:
    """Return the bandwidth of a copy on this core, bytes/s."""
    here, there = np.ones((2, 4_000_000))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(there, here)
        times.append(time.perf_counter() - began)
    return 2 * here.nbytes / min(times)


def _published(grid: pd.DataFrame, costs: pd.DataFrame, column: str) -> pd.Series:
    """Return a column of the published medians for each run, interpolated for other runs."""
    published = {_key(row): getattr(row, column) for row in costs.itertuples()}
    keys = [_key(run) for run in grid.itertuples()]
    # Runs that differ in the seed cost the same.
    one_of = dict(zip(keys, grid.itertuples(), strict=True))
    known = {
        key: published.get(key) or _interpolate(costs, run, column) for key, run in one_of.items()
    }
    return pd.Series([known[key] for key in keys], index=grid.index, dtype=float)


def _scaled(estimate: pd.Series, grid: pd.DataFrame, finished: pd.Series) -> pd.Series:
    """Return the times of finished runs, and the others scaled to them."""
    for kind in grid["kind"].unique():
        rows = grid["kind"] == kind
        ratio = (finished[rows] / estimate[rows]).median()
        if np.isfinite(ratio):
            estimate[rows] *= ratio
    return finished.fillna(estimate)


def _key(row: Any) -> tuple:
    return (row.kind, row.target, row.structures, row.transform, row.source, row.npre, row.n)


def _interpolate(costs: pd.DataFrame, run: Any, column: str) -> float:
    rows = costs[costs["kind"] == run.kind]
    if (rows["target"] == run.target).any():
        rows = rows[rows["target"] == run.target]
    axis = "npre" if run.kind == "pretrain" else "n"
    size = getattr(run, axis)
    known = rows.groupby(axis)[column].median()
    sizes, values = known.index.to_numpy(float), known.to_numpy(float)
    inside = np.clip(size, sizes[0], sizes[-1])
    value = float(np.exp(np.interp(np.log(inside), np.log(sizes), np.log(values))))
    # Below the published range, start-up dominates and the time no longer falls.
    return value * (max(1.0, size / inside) if column == "gpu_seconds_median" else 1.0)


def summarise(
    config: Mapping[str, Any], grid: pd.DataFrame, seconds: pd.Series, finished: pd.Series
) -> str:
    """Return the grid as text: runs and hours by kind, target or structures, source and sizes."""
    table = grid.assign(hours=seconds / 3600)
    left = table.loc[finished.isna(), "hours"].sum()
    unit = "GPU h" if on_gpu(config["training"]) else "h"
    lines = [
        f"{len(table)} training runs, {finished.notna().sum()} finished, about "
        f"{table['hours'].sum():.2f} {unit} of training in all, {left:.2f} {unit} of it left",
        hours_of(config, bool(finished.notna().any())),
        "",
    ]
    order = {name: i for i, name in enumerate(["none", *config["sources"]])}
    for kind, runs in table.groupby("kind", sort=False):
        lines.append(f"{kind}: {_count(runs)}")
        sizes = {"pretrain": ["npre"], "direct": ["n"], "finetune": ["n", "npre"]}[kind]
        where = "structures" if kind == "pretrain" else "target"
        groups = runs.groupby([where, "source", "transform"], sort=False)
        for (name, source, transform), part in sorted(
            groups, key=lambda item: (item[0][0], item[0][2], order.get(item[0][1], 99))
        ):
            label = " ".join(word for word in (name, source, transform) if word != "none")
            axes = [
                f"{axis} {', '.join(f'{value:,}' for value in sorted(part[axis].unique()))}"
                for axis in sizes
            ]
            axes.append(f"seeds {', '.join(str(seed) for seed in sorted(part['seed'].unique()))}")
            lines.append(f"  {label:<34} {_count(part)}   {'; '.join(axes)}")
        lines.append("")
    return "\n".join(lines)


def _count(runs: pd.DataFrame) -> str:
    return f"{len(runs):>4} runs {runs['hours'].sum():>8.2f} h"


def compile_choice(training: dict[str, Any], grid: pd.DataFrame, seconds: pd.Series) -> str:
    """Return ``always`` in place of ``auto`` if a grid is long; else each job decides for itself.

    All trainings share the compiled functions, so their sum is compared with `COMPILE_ABOVE_S`.
    `seconds` is the expected wall time of each run: that of a published one, which had 300 epochs.
    """
    if training["compile"] != "auto":
        return training["compile"]
    epochs = {kind: training[kind].get("max_epochs", training["max_epochs"]) for kind in KINDS}
    expected = (seconds * grid["kind"].map(epochs).clip(upper=300) / 300)[~grid["imported"]]
    return "always" if expected.sum() > COMPILE_ABOVE_S else "auto"
