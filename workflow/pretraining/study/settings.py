"""What a training run is told: which run it is, the network, the procedure and the transforms.

The defaults are the paper's procedure. The same keys are documented in ``config/README.md``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.runtime.yaml_file import read_yaml

KINDS = ("pretrain", "direct", "finetune")
# How a run is carried out, not what it is: these may change between two attempts at it.
MACHINE_KEYS = (
    "device",
    "allow_cpu",
    "checkpoint_seconds",
    "neighbour_memory_gb",
    "workers",
    "threads",
    "compile",
    "pack",
)

# Compiling takes two to six minutes, once on a machine: not for work that takes less without (s).
WORTH_COMPILING = 600.0

CHOICES = {"device": ("auto", "cpu", "cuda"), "compile": ("auto", "always", "never")}


@dataclass(frozen=True)
class Training:
    """The training procedure.

    Attributes
    ----------
    batch_size, val_batch_size
        Structures a step, and a batch of validation.
    learning_rate
        Of Adam, constant.
    ema_decay
        Decay of the exponential moving average of the weights, which are those validated and kept.
    loss
        Weights of the mean squared errors of the energy an atom (``energy``) and of the force
        components (``forces``); only their ratio matters.
    max_epochs
        Most epochs.
    patience, min_delta
        Training stops when the validation force RMSE has not improved by `min_delta` (eV/Å) for
        `patience` epochs.
    divergence_factor
        A run has diverged when a loss is not finite, or when an epoch's training loss exceeds the
        lowest so far (or that of the first step) by this factor. The loss falls by a factor of a
        few thousand over a good run: only a run that is beyond help reaches the default.
    device, allow_cpu
        ``cpu``, ``cuda`` or ``auto`` (a GPU where there is one); whether a run that wants a GPU may
        fall back to the CPU.
    checkpoint_seconds
        How often the state is saved.
    neighbour_memory_gb
        Neighbour lists beyond this are made anew at each access.
    workers
        Processes that load data; of use only beyond `neighbour_memory_gb`.
    threads
        Threads of a run on the CPU. Sums depend on how they are shared out: only with one thread
        does a resumed run end exactly as an uninterrupted one.
    compile
        Whether the steps run in programs that are compiled once on a machine, with the same results
        up to rounding: ``always``, ``never``, or ``auto`` where that pays.
    pack
        How many runs share a GPU, and a job of a cluster: of use to the workflow only.
    """

    batch_size: int = 10
    val_batch_size: int = 20
    learning_rate: float = 0.01
    ema_decay: float = 0.99
    loss: dict[str, float] = field(default_factory=lambda: {"energy": 4.0, "forces": 1.0})
    max_epochs: int = 300
    patience: int = 40
    min_delta: float = 0.005
    divergence_factor: float = 1e4
    device: str = "auto"
    allow_cpu: bool = False
    checkpoint_seconds: float = 60.0
    neighbour_memory_gb: float = 8.0
    workers: int = 0
    threads: int = 1
    compile: str = "auto"
    pack: int = 1


@dataclass(frozen=True)
class Settings:
    """Settings of one run: its network, training procedure (of its kind) and the transforms."""

    network: dict[str, Any]
    training: Training
    transforms: dict[str, Any]

    def identity(self) -> dict[str, Any]:
        """Return all that decides what the run computes."""
        training = dataclasses.asdict(self.training)
        for key in MACHINE_KEYS:
            del training[key]
        return {"network": self.network, "training": training}


@dataclass(frozen=True)
class Request:
    """What one run is.

    Attributes
    ----------
    kind
        ``pretrain``, ``direct`` or ``finetune``.
    data
        Labelled store.
    n
        Train on the first `n` structures of its pool.
    seed
        Of the initial weights and of the order of batches.
    settings
        Settings file.
    out
        The run's folder.
    transform
        Name of the transform of structures.
    initial
        Model file that a fine-tuning starts from.
    machine
        Values of `MACHINE_KEYS` in place of those of the settings.
    """

    kind: str
    data: Path
    n: int
    seed: int
    settings: Path
    out: Path
    transform: str = "none"
    initial: Path | None = None
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the run is called in messages; the source of its labels is in its folder's path."""
        source = re.search(r"source~(?!none)([^/]+)", str(self.out))
        labels = source.groups() if source else ()
        return " ".join([self.kind, *labels, f"n {self.n}", f"seed {self.seed}"])

    def check(self) -> None:
        """Raise a `UserError` for a request that means nothing."""
        if self.kind not in KINDS:
            raise UserError(f"--kind: {self.kind!r} is not one of {', '.join(KINDS)}")
        if (self.initial is None) == (self.kind == "finetune"):
            raise UserError("--initial: needed for a fine-tuning, and for nothing else")
        if self.n < 1:
            raise UserError(f"--n: at least one structure is needed to train on, not {self.n}")
        if self.seed < 0:
            raise UserError(f"--seed: must not be negative, as {self.seed} is")
        for key in self.machine:
            if key not in MACHINE_KEYS:
                raise UserError(f"--machine: {key!r} is not one of {', '.join(MACHINE_KEYS)}")


def load_settings(
    path: str | Path, kind: str = "direct", machine: dict[str, Any] | None = None
) -> Settings:
    """Read the settings file of a run.

    Parameters
    ----------
    path
        YAML with the keys ``network``, ``training`` and ``transforms``, all optional.
    kind
        ``pretrain``, ``direct`` or ``finetune``; ``training`` may hold a section of that name,
        which takes precedence.
    machine
        Entries of ``training`` that take precedence over the file's.

    Raises
    ------
    UserError
        If the file cannot be read or an entry means nothing.
    """
    content = read_yaml(path)
    try:
        return settings_of(content, kind, machine)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def settings_of(
    content: dict[str, Any], kind: str, machine: dict[str, Any] | None = None
) -> Settings:
    """Return the settings of a run of one kind from what a settings file holds."""
    for key in content:
        if key not in ("network", "training", "transforms"):
            raise UserError(f"unknown key {key!r}; known are network, training, transforms")
    return Settings(
        network=dict(content.get("network") or {}),
        training=training_of_kind((content.get("training") or {}) | (machine or {}), kind),
        transforms=dict(content.get("transforms") or {}),
    )


def training_of_kind(options: dict[str, Any], kind: str) -> Training:
    """Fill in the defaults, then what is given for all runs, then what is given for this kind."""
    given = {key: value for key, value in options.items() if key not in KINDS}
    given |= options.get(kind) or {}
    fields = {f.name: f for f in dataclasses.fields(Training)}
    for key, value in given.items():
        if key not in fields:
            raise UserError(f"training.{key}: unknown; known are {', '.join(fields)}")
        _check(key, value)
    if "loss" in given:
        given["loss"] = Training().loss | given["loss"]
        if sum(given["loss"].values()) <= 0:
            raise UserError("training.loss: at least one weight must be positive")
    return Training(**given)


def _check(key: str, value: Any) -> None:
    """Raise a `UserError` for a value of the wrong type or beyond its range."""
    default = getattr(Training(), key)
    if key == "loss":
        if not isinstance(value, dict) or set(value) - {"energy", "forces"}:
            raise UserError("training.loss: must hold `energy` and `forces`")
        if not all(type(weight) in (int, float) and weight >= 0 for weight in value.values()):
            raise UserError(f"training.loss: weights must be numbers of at least 0, not {value}")
        return
    if key in CHOICES:
        if value not in CHOICES[key]:
            known = ", ".join(CHOICES[key])
            raise UserError(f"training.{key}: {value!r} is not one of {known}")
        return
    if type(value) not in ((int, float) if type(default) is float else (type(default),)):
        raise UserError(f"training.{key}: must be of type {type(default).__name__}, not {value!r}")
    may_be_zero = key in (
        "min_delta",
        "checkpoint_seconds",
        "neighbour_memory_gb",
        "workers",
        "threads",
    )
    if type(default) is not bool and (value < 0 or (value == 0 and not may_be_zero)):
        raise UserError(f"training.{key}: must be {'at least' if may_be_zero else 'above'} 0")
    if key == "ema_decay" and value >= 1:
        raise UserError("training.ema_decay: must be below 1")


def run_identity(
    run: tuple[str, int, int],
    settings: Settings,
    transform: dict[str, Any],
    data: str,
    initial: str | None,
) -> dict[str, Any]:
    """Return all that decides what a run computes, of which its record keeps the digest.

    Parameters
    ----------
    run
        Kind, number of structures, seed.
    settings
        Settings of the run.
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


def digest(content: Any) -> str:
    """Return a short hash of something that can be written as JSON, whatever the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
