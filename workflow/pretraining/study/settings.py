"""Settings of a training run: network, procedure and transforms.

The defaults, those of the configuration's schema, are the paper's procedure.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml
from pretraining.study.config import validate_sections

KINDS = ("pretrain", "direct", "finetune")
# Keys of `training` without influence on the result: they may change when a run resumes.
RUNTIME_OPTIONS = (
    "device",
    "allow_cpu",
    "checkpoint_seconds",
    "neighbour_memory_gb",
    "workers",
    "threads",
    "compile",
)
# `compile: auto` compiles work that would take longer without, s. Compiling takes 2 to 6 minutes.
COMPILE_ABOVE_S = 600.0


@dataclass(frozen=True)
class Training:
    """The training procedure: the keys of ``training``, which config/README.md explains.

    Attributes
    ----------
    loss
        Weights of the mean squared errors of the energy per atom (``energy``) and of the force
        components (``forces``). Only their ratio matters.
    patience, min_delta
        Training stops when the validation force RMSE has not improved by `min_delta` (eV/Å) for
        `patience` epochs.
    divergence_factor
        A run has diverged when a loss is not finite, or when an epoch's training loss exceeds the
        lowest so far (or that of the first step) by this factor. A good run lowers the loss by a
        factor of a few thousand: only a hopeless run reaches the default.
    """

    batch_size: int
    val_batch_size: int
    learning_rate: float
    ema_decay: float
    loss: dict[str, float]
    max_epochs: int
    patience: int
    min_delta: float
    divergence_factor: float
    device: str
    allow_cpu: bool
    checkpoint_seconds: float
    neighbour_memory_gb: float
    workers: int
    threads: int
    compile: str


@dataclass(frozen=True)
class Settings:
    """Settings of one run: its network, training procedure (of its kind) and the transforms."""

    network: dict[str, Any]
    training: Training
    transforms: dict[str, Any]

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide the result."""
        training = dataclasses.asdict(self.training).items()
        decisive = {key: value for key, value in training if key not in RUNTIME_OPTIONS}
        return {"network": self.network, "training": decisive}


@dataclass(frozen=True)
class Request:
    """One run to be carried out.

    Attributes
    ----------
    kind
        ``pretrain``, ``direct`` or ``finetune``.
    data, n
        Labelled store; the run trains on the first `n` structures of its pool.
    seed
        Of the initial weights and of the order of batches.
    settings, out
        Settings file; the run's folder.
    initial
        Model file that a fine-tuning starts from.
    runtime
        Runtime options that take precedence over the settings file.
    trust
        As in :func:`pretraining.training.network.checkpoint.load_model`, beside the code that the
        settings name.
    """

    kind: str
    data: Path
    n: int
    seed: int
    settings: Path
    out: Path
    transform: str = "none"
    initial: Path | None = None
    runtime: dict[str, Any] = field(default_factory=dict)
    trust: bool | Sequence[str] = False

    @property
    def name(self) -> str:
        """The run's name in messages, with the label source that its folder's path names."""
        source = re.search(r"source~(?!none)([^/]+)", str(self.out))
        labels = source.groups() if source else ()
        return " ".join([self.kind, *labels, f"n {self.n}", f"seed {self.seed}"])

    def check(self) -> None:
        """Raise a `UserError` if an argument is invalid."""
        if (self.initial is None) == (self.kind == "finetune"):
            raise UserError("--initial: needed for a fine-tuning, and for nothing else")
        check_runtime(self.runtime)


def check_runtime(given: dict[str, Any], allowed: Sequence[str] = RUNTIME_OPTIONS) -> None:
    """Raise a `UserError` if the argument ``--machine`` has an unknown key or a wrong value."""
    for key in given:
        if key not in allowed:
            raise UserError(f"--machine: {key!r} is not one of {', '.join(allowed)}")
    try:
        validate_sections({"training": given}, ("training",))
    except UserError as error:
        raise UserError(f"--machine: {error}") from None


def load_settings(
    path: str | Path, kind: str = "direct", runtime: dict[str, Any] | None = None
) -> Settings:
    """Read the settings file of a run.

    Raises a `UserError` if the file cannot be read or does not fit the configuration's schema.

    Parameters
    ----------
    path
        YAML with the sections ``network``, ``training`` and ``transforms`` of a configuration, all
        optional.
    kind
        ``pretrain``, ``direct`` or ``finetune``: a section of that name in ``training`` takes
        precedence.
    runtime
        Entries of ``training`` that take precedence over the file's.
    """
    content = read_yaml(path)
    try:
        return settings_of(content, kind, runtime)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def settings_of(
    content: dict[str, Any], kind: str, runtime: dict[str, Any] | None = None
) -> Settings:
    """Return the settings of a run from the content of a settings file; see `load_settings`."""
    if runtime:
        content = content | {"training": content.get("training", {}) | runtime}
    valid = validate_sections(content, ("network", "training", "transforms"))
    training = valid["training"]
    own = {name: training.pop(name) for name in KINDS}[kind]
    if not sum(training["loss"].values()):
        raise UserError("training.loss: at least one weight must be positive")
    return Settings(valid["network"], Training(**training | own), valid["transforms"])


def import_identity(
    weights: str, avg_num_neighbors: float, settings: Settings, transform: dict[str, Any]
) -> dict[str, Any]:
    """Return everything that decides imported weights, by the SHA-256 of their file."""
    return {
        "weights": weights,
        "avg_num_neighbors": float(avg_num_neighbors),
        "network": settings.network,
        "transform": transform,
    }


def run_identity(
    run: tuple[str, int, int],
    settings: Settings,
    transform: dict[str, Any],
    data: str,
    initial: str | None,
) -> dict[str, Any]:
    """Return everything that decides a run's result; its digest is the run's ``config_hash``.

    Parameters
    ----------
    run
        Kind, number of structures, seed.
    transform
        Fields of its :class:`pretraining.data.transforms.Transform`.
    data
        Checksum of the labelled store.
    initial
        SHA-256 of the model file that a fine-tuning starts from.
    """
    return {
        "run": dict(zip(("kind", "n", "seed"), run, strict=True)),
        "settings": settings.identity(),
        "transform": transform,
        "data": data,
        "initial": initial,
    }
