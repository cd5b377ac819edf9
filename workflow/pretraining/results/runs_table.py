"""The runs table: one row per result, collected from the metrics files.

Energies are RMSEs per atom in meV/atom, forces RMSEs per component in eV/Å, both on the whole test
set of the row's target. A row of kind ``transfer`` tests a model on another dataset than the one it
was trained on (`trained_on`). Without pre-training, the source is ``none``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from pretraining.runtime.errors import UserError, remake
from pretraining.runtime.records import read_record
from pretraining.runtime.tables import NO_VALUE, numbers, read_table, truths
from pretraining.study.grid import grid_table, results_table, select
from pretraining.training.predictions import (
    ENERGY,
    FORCE,
    MEAN_SHIFTED_ENERGY,
    SHIFTED_ENERGY,
)

KINDS = ("source", "pretrain", "direct", "finetune", "transfer")
TRAINED = ("direct", "finetune")
RMSE = {"energy": "test_energy_rmse", "force": "test_force_rmse"}
SHIFTED = "test_energy_shifted_rmse"
# After a mean shift, as published for label sources and models without fine-tuning.
MEAN_SHIFTED = "test_energy_mean_shifted_rmse"
# Energies after a median shift, to compare methods with different zeros of energy.
FREE = RMSE | {"energy": SHIFTED}
WHOLE = ("npre", "n", "seed")
COLUMNS = ("kind", "target", "source", *WHOLE, *RMSE.values())
MODEL = ("structures", "transform", "source", "npre")  # of a pre-trained model
KEY = ("kind", "target", *MODEL, "preseed", "n", "seed")
IDENTITY = (*KEY, "trained_on")
# Optional columns and their defaults.
OPTIONAL = {"structures": "", "transform": "none", "preseed": "", "trained_on": ""}
DEFAULTS = OPTIONAL | {"status": "ok", "diverged": "false", SHIFTED: "nan", MEAN_SHIFTED: "nan"}
DEFAULTS |= dict.fromkeys(("wall_time_s", "train_time_s", "threads", "power_w_mean"), "nan")
# A run that ends at max_epochs with its best epoch after this share of them is unconverged.
CONVERGED_BY = 0.9
GRID_COLUMNS = (*IDENTITY, "metrics")
# Columns, and their names in a metrics file.
ERRORS = {
    f"{part}_{metric}_rmse": (part, key)
    for part in ("test", "val", "train")
    for metric, key in (("energy", ENERGY), ("force", FORCE))
} | {SHIFTED: ("test", SHIFTED_ENERGY), MEAN_SHIFTED: ("test", MEAN_SHIFTED_ENERGY)}
RECORDS = (
    "epochs",
    "best_epoch",
    "steps",
    "stopped_because",
    "wall_time_s",
    "train_time_s",
    "threads",
    "gpu_use",
    "power_w_mean",
    "device",
    "device_name",
    "n_parameters",
    "avg_num_neighbors",
    "config_hash",
)


def read_runs(path: str | Path) -> pd.DataFrame:
    """Read and normalise a runs table; the eight columns of :data:`COLUMNS` are enough."""
    return normalise(read_table(path, COLUMNS, "a runs table"), path)


def normalise(table: pd.DataFrame, path: str | Path) -> pd.DataFrame:
    """Turn a runs table of text into a typed one.

    Absent columns get their :data:`DEFAULTS`. Rows of direct training get source ``none`` and npre
    0. Raises a `UserError` naming `path`, the column and the line.
    """
    if table.empty:
        raise UserError(f"{path}: the runs table has no rows")
    # Text keeps NaN as it is.
    table = table.astype(str).fillna("")
    for column, default in DEFAULTS.items():
        table[column] = table.get(column, default)
    table["kind"] = table["kind"].str.lower()
    unknown = table.loc[~table["kind"].isin(KINDS), "kind"]
    if len(unknown):
        raise UserError(
            f"{path}: column kind, line {unknown.index[0] + 2}: {unknown.iloc[0]!r} is none of "
            + ", ".join(KINDS)
        )
    direct = table["kind"] == "direct"
    table.loc[direct & table["source"].str.lower().isin(NO_VALUE), "source"] = "none"
    table.loc[direct & table["npre"].str.lower().isin(NO_VALUE), "npre"] = "0"
    for column in WHOLE:
        table[column] = numbers(table[column], path, whole=True)
    nowhere = table["source"].str.lower().isin(NO_VALUE)
    pretrained = table["kind"].isin(("pretrain", "finetune"))
    for wrong, rule in (
        (
            direct & ((table["source"] != "none") | (table["npre"] != 0)),
            "direct training has the source 'none' and npre 0",
        ),
        (
            (pretrained | (table["kind"] == "source")) & nowhere,
            "without a label source it is direct training; name the source, or correct the kind",
        ),
        (pretrained & (table["npre"] < 1), "pre-training has an npre of 1 or more"),
        (table["kind"].isin(TRAINED) & (table["n"] < 1), "training has an n of 1 or more"),
        (
            # The cost counts pre-trainings, which have no target.
            (table["kind"] != "pretrain") & table["target"].str.lower().isin(NO_VALUE),
            "column target is empty; name the dataset that was tested on",
        ),
    ):
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise UserError(f"{path}: line {row + 2}: {rule}")
    for column in table.columns:
        if DEFAULTS.get(column) == "nan" or column.endswith("_rmse"):
            table[column] = numbers(table[column], path)
            if (table[column] < 0).any():
                raise UserError(f"{path}: column {column} has a negative value")
    for column, default in OPTIONAL.items():
        table.loc[table[column].str.lower().isin(NO_VALUE), column] = default
    table["diverged"] = truths(table["diverged"], path)
    table["status"] = table["status"].str.lower()
    return table.assign(unconverged=unconverged(table))


def unconverged(table: pd.DataFrame) -> pd.Series:
    """Whether each trained model was still improving at max_epochs; false where that is unknown."""
    absent = pd.Series("", table.index)
    epochs, best = (
        pd.to_numeric(table.get(name, absent), errors="coerce") for name in ("epochs", "best_epoch")
    )
    late = (table.get("stopped_because", absent) == "max_epochs") & (best > CONVERGED_BY * epochs)
    # A model is the same on a further test set.
    trained_on = table["trained_on"].where(table["kind"] == "transfer", table["target"])
    model = [trained_on, *(table[name].astype(str) for name in (*MODEL, "preseed", "n", "seed"))]
    return table["kind"].isin((*TRAINED, "transfer")) & late.groupby(model).transform("any")


def unique_runs(runs: pd.DataFrame, path: str | Path = "runs table") -> pd.DataFrame:
    """Keep one row per run: one with a result rather than one of status ``missing``.

    Raises a `UserError` if two rows of the same run disagree on an RMSE.
    """
    key = [column for column in IDENTITY if column in runs]
    found = runs["status"] != "missing"
    results = runs[found].drop_duplicates([*key, *RMSE.values()])
    clash = results.duplicated(key)
    if clash.any():
        row = results[clash].iloc[0]
        raise UserError(
            f"{path}: the run {describe(row)} is listed twice with different results; keep one of "
            "the rows (or add the column structures, transform or preseed in which they differ)"
        )
    absent = runs[~found].drop_duplicates(key)
    return pd.concat([results, absent]).drop_duplicates(key)


def tested_on(
    runs: pd.DataFrame, kind: str, target: str, model: Mapping[str, object]
) -> pd.DataFrame:
    """Rows of `kind` (``pretrain`` or ``source``) on a target, each once.

    Parameters
    ----------
    model
        Wanted value of some columns; empty cells, those of an absent column, match as well.
    """
    rows = runs[(runs["kind"] == kind) & (runs["target"] == target)]
    for column, value in model.items():
        rows = rows[(rows[column] == value) | (rows[column] == "")]
    return unique_runs(rows)


def describe(row: Mapping) -> str:
    """Name a run in a message, e.g. ``finetune target=C-GAP-17 source=ace n=25 seed=1``."""
    parts = [str(row["kind"])]
    for column in IDENTITY[1:]:
        value = str(row.get(column, ""))
        if value not in ("", "nan") and (column, value) != ("transform", "none"):
            parts.append(f"{column}={value}")
    return " ".join(parts)


def read_grid(path: str | Path) -> pd.DataFrame:
    """Read the table of required results, a row each."""
    grid = read_table(path, GRID_COLUMNS, "the table of required results")
    if grid.empty:
        raise UserError(f"{path}: the table of required results has no rows")
    return grid


def collect(
    grid: pd.DataFrame, results: str | Path = ".", *, allow_missing: bool = False
) -> pd.DataFrame:
    """Read the metrics file of each row of the grid.

    Raises a `UserError` naming the first run without metrics file and their number.

    Parameters
    ----------
    grid
        Columns :data:`GRID_COLUMNS`; ``metrics`` is a path, absolute, relative to the working
        directory or relative to `results`.
    results
        A folder, or a table that holds collected runs (``.csv``): then no metrics file is read.
    allow_missing
        Give a run without metrics file a row of status ``missing``.

    Returns
    -------
    pandas.DataFrame
        Sorted by kind (in the order of :data:`KINDS`) and then by run.
    """
    rows, missing = [], []
    shipped = None
    if Path(results).suffix == ".csv":
        table = unique_runs(read_runs(results), results)
        shipped = {_key(row): row for row in table.to_dict("records")}
    for identity in grid[list(GRID_COLUMNS)].drop_duplicates().to_dict("records"):
        path = Path(identity.pop("metrics"))
        if not path.is_file() and (Path(results) / path).is_file():
            path = Path(results) / path
        if shipped is not None and _key(identity) in shipped:
            rows.append(shipped[_key(identity)])
        elif path.is_file() and shipped is None:
            rows.append(_row_of(identity, read_metrics(path), path))
        else:
            missing.append((identity, path))
            rows.append({**identity, "status": "missing", "diverged": False})
    if missing and not allow_missing:
        identity, path = missing[0]
        raise UserError(
            f"{path}: no result of the run {describe(identity)} ({len(missing)} of {len(rows)} "
            "missing); run the workflow to the end, or set allow_missing"
        )
    first = [*COLUMNS, "status", "diverged", *OPTIONAL, SHIFTED]
    table = pd.DataFrame(rows, columns=list(dict.fromkeys([*first, *ERRORS, *RECORDS])))
    table.insert(len(COLUMNS) + 2, "unconverged", unconverged(table))
    for column in (*WHOLE, *ERRORS):
        table[column] = pd.to_numeric(table[column])
    return sort_by_kind(table, IDENTITY, KINDS)


def finished_runs(config: Mapping) -> pd.DataFrame:
    """Collect all results of a study that are there, and the pre-trainings for the cost.

    Raises a `UserError` if there is no result.

    Returns
    -------
    pandas.DataFrame
        As :func:`collect`; a pre-training has no target.
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


def _key(row: Mapping) -> tuple:
    return tuple(str(row[column]) for column in IDENTITY)


def read_metrics(path: Path) -> dict:
    """Read a run's metrics; a UserError if they were changed or have no test errors."""
    metrics = read_record(path)
    for key in (ENERGY, FORCE):
        if _error_of(metrics, "test", key) is None:
            raise UserError(f"{path}: no number test.{key}: {remake(path)}")
    return metrics


def _error_of(metrics: Mapping, part: str, key: str) -> float | None:
    """One RMSE; NaN for null (JSON has no NaN), None if absent or no number."""
    errors = metrics.get(part)
    if not isinstance(errors, Mapping) or key not in errors:
        return None
    try:
        return math.nan if errors[key] is None else float(errors[key])
    except (TypeError, ValueError):
        return None


def _row_of(identity: Mapping, metrics: Mapping, path: Path) -> dict:
    """The row of a finished run; metrics of another run raise a UserError."""
    # Evaluations carry the identity of the model's run.
    for column in ("kind", "n", "seed") if identity["kind"] in TRAINED else ():
        if column in metrics and str(metrics[column]) != str(identity[column]):
            raise UserError(
                f"{path}: is of {column}={metrics[column]}, not of the run {describe(identity)}"
            )
    errors = {column: _error_of(metrics, *place) for column, place in ERRORS.items()}
    finite = all(math.isfinite(errors[column]) for column in RMSE.values())
    diverged = bool(metrics.get("diverged", False))
    status = "ok" if finite and not diverged else "diverged"
    records = {record: metrics.get(record, "") for record in RECORDS}
    records["gpu_use"] = json.dumps(records["gpu_use"]) if records["gpu_use"] else ""
    return {**identity, **errors, **records, "diverged": diverged, "status": status}


def sort_by_kind(table: pd.DataFrame, by: Sequence[str], kinds: Sequence[str]) -> pd.DataFrame:
    """Sort a table by some columns, the column ``kind`` in the order of `kinds`."""

    def rank(column: pd.Series) -> pd.Series:
        return column.map(kinds.index) if column.name == "kind" else column

    return table.sort_values(list(by), key=rank, kind="stable", ignore_index=True)
