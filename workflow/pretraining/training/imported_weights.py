"""Published weights in place of a pre-training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256, write_json
from pretraining.study.settings import Settings
from pretraining.training.network.builders import (
    copy_parameters,
    count_parameters,
    network_config,
)
from pretraining.training.network.checkpoint import make_module, network_of, save_model, set_weights
from pretraining.training.network.paper import read_published
from pretraining.training.predictions import NO_ERRORS


def import_weights(
    path: Path,
    out: Path,
    *,
    avg_num_neighbors: float,
    settings: Settings,
    transform: Transform,
    elements: Sequence[str] = ("C",),
    sha256: str | None = None,
) -> None:
    """Import published weights as the folder of a pre-training run.

    Parameters
    ----------
    path
        Published weights (``.pth``).
    out
        The run's folder, for ``model.ckpt`` and a ``metrics.json`` without errors.
    avg_num_neighbors
        Average number of neighbours in their training set.
    settings
        Settings of a pre-training with their network.
    transform
        Transform of their training structures: renames `elements`, and may set the cut-off.
    elements
        Elements of their training structures before the transform.
    sha256
        Expected checksum of the file.

    Raises
    ------
    UserError
        If the file has another checksum, or its weights do not fit the network.
    """
    if not path.is_file():
        raise UserError(f"no published weights at {path}")
    found = file_sha256(path)
    if sha256 is not None and found != sha256:
        raise UserError(f"{path} has SHA-256 {found}, not {sha256}: fetch it again")
    config = network_config(
        settings.network,
        type_names=sorted({transform.elements.get(element, element) for element in elements}),
        avg_num_neighbors=avg_num_neighbors,
        seed=0,
        cutoff=transform.cutoff,
    )
    metrics = {
        "kind": "pretrain",
        "imported": path.name,
        "sha256": found,
        "avg_num_neighbors": avg_num_neighbors,
        "cutoff": config["r_max"],
        "elements": config["type_names"],
        **{part: NO_ERRORS for part in ("val", "test", "train")},
    }
    module = make_module(config, settings.training, about=metrics)
    copy_parameters(read_published(path), network_of(module), str(path))
    set_weights(module, list(module.model.parameters()))
    metrics["n_parameters"] = count_parameters(module.model)
    out.mkdir(parents=True, exist_ok=True)
    save_model(module, out / "model.ckpt")
    write_json(out / "metrics.json", metrics)
