"""From the metrics file of each run to the runs table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from pretraining.results.runs_table import (
    COLUMNS,
    IDENTITY,
    OPTIONAL,
    SHIFTED,
    TRAINED,
    describe,
    in_order,
)
from pretraining.runtime.errors import UserError, remake, whole
from pretraining.runtime.tables import read_table

GRID_COLUMNS = (*IDENTITY, "metrics")
ENERGY = "energy_rmse_mev_per_atom"
FORCE = "force_rmse_ev_per_angstrom"
SHIFTED_ENERGY = "energy_rmse_after_median_shift_mev_per_atom"
RECORDS = (
    "epochs",
    "best_epoch",
    "steps",
    "stopped_because",
    "wall_time_s",
    "train_time_s",
    "power_w_mean",
    "device",
    "device_name",
    "n_parameters",
    "avg_num_neighbors",
    "config_hash",
)


def read_metrics(path: Path) -> dict:
    """Read a run's metrics file.

    Raises
    ------
    UserError
        If it is not JSON, or has no test errors under the key ``test``.
    """
    with whole(path):
        metrics = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(metrics, dict):
        raise UserError(f"{path}: not a metrics file (no JSON object): {remake(path)}")
    for key in (ENERGY, FORCE):
        if _error_of(metrics, "test", key) is None:
            raise UserError(f"{path}: no number test.{key}: {remake(path)}")
    return metrics


def _error_of(metrics: Mapping, part: str, key: str) -> float | None:
    """One RMSE of one part of the data; NaN for the file's null, None where it says nothing."""
    errors = metrics.get(part)
    if not isinstance(errors, Mapping) or key not in errors:
        return None
    value = errors[key]
    if value is None:
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def row_of(identity: Mapping, metrics: Mapping) -> dict:
    """The row of one finished run."""
    row = {column: identity[column] for column in IDENTITY}
    for part in ("test", "val", "train"):
        for name, key in (("energy", ENERGY), ("force", FORCE)):
            value = _error_of(metrics, part, key)
            row[f"{part}_{name}_rmse"] = math.nan if value is None else value
    shifted = _error_of(metrics, "test", SHIFTED_ENERGY)
    row[SHIFTED] = math.nan if shifted is None else shifted
    row.update({record: metrics.get(record, "") for record in RECORDS})
    finite = math.isfinite(row["test_energy_rmse"]) and math.isfinite(row["test_force_rmse"])
    row["diverged"] = bool(metrics.get("diverged", False))
    row["status"] = "ok" if finite and not row["diverged"] else "diverged"
    return row


def _check_identity(identity: Mapping, metrics: Mapping, path: Path) -> None:
    """A metrics file must belong to the run that the grid wants it for."""
    if identity["kind"] not in TRAINED:
        # An evaluation of a model carries the model's identity, which is another run's.
        return
    for column in ("kind", "n", "seed"):
        if column in metrics and str(metrics[column]) != str(identity[column]):
            raise UserError(
                f"{path}: is of {column}={metrics[column]}, but the grid wants it for the run "
                f"{describe(identity)}"
            )


def collect(
    grid: pd.DataFrame, results: str | Path = ".", *, allow_missing: bool = False
) -> pd.DataFrame:
    """Gather one row for each row of the grid.

    Parameters
    ----------
    grid
        Columns :data:`GRID_COLUMNS`; ``metrics`` is a path, tried as it stands and then below
        `results`.
    allow_missing
        Keep a run without metrics file as a row of status ``missing`` with empty errors.

    Raises
    ------
    UserError
        Naming the first run without metrics file and how many there are, unless `allow_missing`.
    """
    rows, missing = [], []
    grid = grid[list(GRID_COLUMNS)].drop_duplicates()
    for identity in grid.to_dict("records"):
        path = Path(identity["metrics"])
        if not path.is_file() and (Path(results) / path).is_file():
            path = Path(results) / path
        if path.is_file():
            metrics = read_metrics(path)
            _check_identity(identity, metrics, path)
            rows.append(row_of(identity, metrics))
        else:
            missing.append((identity, path))
            known = {column: identity[column] for column in IDENTITY}
            rows.append({**known, "status": "missing", "diverged": False})
    if missing and not allow_missing:
        identity, path = missing[0]
        raise UserError(
            f"{path}: no result of the run {describe(identity)} ({len(missing)} of {len(rows)} "
            "missing); run the workflow to the end, or set allow_missing"
        )
    return tidy(rows)


def tidy(rows: Iterable[Mapping]) -> pd.DataFrame:
    """The rows as a table: first the eight columns, then status and the rest, in a fixed order."""
    extra = ["status", "diverged", *OPTIONAL, SHIFTED]
    extra += [f"{part}_{name}_rmse" for part in ("val", "train") for name in ("energy", "force")]
    table = pd.DataFrame(list(rows), columns=[*COLUMNS, *extra, *RECORDS])
    for column in ("npre", "n", "seed"):
        table[column] = pd.to_numeric(table[column])
    return in_order(table)


def read_grid(path: str | Path) -> pd.DataFrame:
    """Read the list of wanted results, one row a result."""
    grid = read_table(path, GRID_COLUMNS, "the grid of wanted results")
    if grid.empty:
        raise UserError(f"{path}: the grid wants no result at all")
    return grid


def grid_of(paths: Iterable[str | Path]) -> pd.DataFrame:
    """The grid that paths of finished runs speak of (``…/kind/target~T/…/seed~K/metrics.json``).

    A path that names a test set before the run (``evaluations/target~T/kind/…``) is of that run's
    model there.

    Raises
    ------
    UserError
        If a path does not have the form of a run's path.
    """
    rows = []
    for path in map(Path, paths):
        named = dict(part.split("~", 1) for part in path.parts if "~" in part)
        before = [part for part in path.parts[:-1] if "~" not in part]
        kind = {"imported": "pretrain"}.get(before[-1], before[-1]) if before else ""
        if kind not in ("direct", "finetune", "pretrain") or "seed" not in named:
            raise UserError(f"{path}: not the metrics file of a run (no kind or seed~ in its path)")
        defaults = dict.fromkeys(IDENTITY, "") | {"source": "none", "npre": "0", "n": "0"}
        if kind == "pretrain":
            defaults["preseed"] = named["seed"]
        targets = [part.split("~", 1)[1] for part in path.parts if part.startswith("target~")]
        if len(targets) > 1:
            kind, named = "transfer", {**named, "target": targets[0], "trained_on": targets[1]}
        rows.append({**defaults, "transform": "none", **named, "kind": kind, "metrics": str(path)})
    return pd.DataFrame(rows, columns=list(GRID_COLUMNS))
