"""Whether training runs, and weights in place of them, fit the configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pretraining.data.transforms import Transform
from pretraining.operations.compare import present, record_for, sha256
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import digest
from pretraining.study.queries import label_source
from pretraining.study.settings import Settings, import_identity, run_identity, settings_of
from pretraining.study.views import config_view


def check_run(
    row: Any, config: dict[str, Any], store: Callable[[Path], tuple[str, dict[str, Any]]]
) -> None:
    """Raise a `UserError` if the run of a row of the grid does not fit.

    `store` returns the checksum of a set of structures, and what it was made with.
    """
    results = Path(config["results"])
    folder = results / row.path
    made = record_for(folder / "metrics.json", folder / "model.ckpt")
    is_pretrained = row.kind == "pretrain"
    # Only the structures of a pre-training are transformed.
    name = row.transform if is_pretrained else "none"
    view = f"pretrain~{name}" if is_pretrained else row.kind
    settings = settings_of(config_view(config, view), row.kind)
    transform = dataclasses.asdict(Transform.from_settings(name, settings.transforms))
    if row.imported:
        _check_imported(row, config, made, settings, transform)
        return
    data = _training_set(row, config)
    checksum = store(data)[0]
    if made["data_checksum"] != checksum:
        raise UserError(f"it was trained on other data than {data}")
    initial = present(results / row.parent / "model.ckpt") if row.parent else None
    identity = run_identity(
        (row.kind, row.npre if is_pretrained else row.n, row.seed),
        settings,
        transform,
        checksum,
        initial and sha256(initial),
    )
    if made["config_hash"] != digest(identity):
        cause = "settings or from another model" if initial else "settings"
        raise UserError(f"it was trained with other {cause}")


def _training_set(row: Any, config: dict[str, Any]) -> Path:
    results = Path(config["results"])
    labels = results / "labels"
    if row.kind == "pretrain":
        return labels / row.structures / row.source / f"npre~{row.npre}.h5"
    source = label_source(config["datasets"][row.target])
    if source is None:
        return results / "data" / row.target / "prepared.h5"
    return labels / row.target / source / f"n~{row.n}.h5"


def _check_imported(
    row: Any,
    config: dict[str, Any],
    made: dict[str, Any],
    settings: Settings,
    transform: dict[str, Any],
) -> None:
    keys = ("structures", "source", "transform", "npre", "seed")
    entries = config["pretrained_weights"]
    weights = next(w for w in entries if all(w[key] == getattr(row, key) for key in keys))
    file, wanted = Path(weights["file"]), weights.get("sha256")
    if wanted is None and file.is_file():
        wanted = sha256(file)
    if made["imported"] != file.name or made["sha256"] != (wanted or made["sha256"]):
        raise UserError(f"it holds other published weights than {file}")
    neighbours = weights["avg_num_neighbors"]
    identity = import_identity(made["sha256"], neighbours, settings, transform)
    if made["config_hash"] != digest(identity):
        raise UserError("it was imported with other settings")
