"""Trained models as files that NequIP's own tools open, also from published weights.

A run's ``model.ckpt`` holds the network's configuration and weights (the moving average of the best
epoch), but no optimiser. ``nequip.model.ModelFromCheckpoint``, ``nequip-compile`` and NequIP's
calculators read it wherever this package can be imported.
"""

from __future__ import annotations

import dataclasses
import logging
import pickle
import warnings
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from ase import Atoms
from nequip.data import AtomicDataDict as Key
from nequip.model.saved_models.load_utils import load_saved_model
from nequip.model.utils import override_model_compile_mode
from nequip.nn import GraphModel
from nequip.train import EMALightningModule
from nequip.utils import get_current_code_versions
from nequip.utils.global_state import get_latest_global_state, set_global_state

from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError, remake
from pretraining.runtime.files import digest, file_sha256, write_atomically
from pretraining.runtime.records import check_output, write_record
from pretraining.study.queries import code_in
from pretraining.study.settings import Settings, Training, import_identity
from pretraining.training.network.builders import (
    BUILDERS,
    build_network,
    building,
    copy_parameters,
    count_parameters,
    network_config,
)
from pretraining.training.network.graphs import graph_of
from pretraining.training.network.paper import PUBLISHED_SUFFIX, read_published
from pretraining.training.predictions import NO_ERRORS

SOLE_MODEL = "sole_model"  # NequIP's name for the model of a module that has only one
# What a model file may name without being trusted: these run no code that the file chooses.
SAFE_TARGETS = (
    *BUILDERS.values(),
    "nequip.nn.pair_potential.LennardJones",
    "nequip.nn.pair_potential.SimpleLennardJones",
    "nequip.nn.pair_potential.ZBL",
)


def silence_lightning() -> None:
    """Silence messages of Lightning and NequIP about a normal run."""
    for name in ("lightning.pytorch", "lightning.fabric", "nequip"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*is deprecated.*",
        ".*GPU available but not used.*",
        ".*`srun` command is available.*",
        ".*requires_grad=True to a scalar.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def make_module(
    model: dict[str, Any], training: Training, about: dict[str, Any]
) -> EMALightningModule:
    """Build NequIP's training module with a new network.

    Parameters
    ----------
    model
        Of :func:`pretraining.training.network.builders.network_config`.
    about
        Description of the run for the model file.
    """
    silence_lightning()
    config = {
        "model": model,
        "ema_decay": training.ema_decay,
        "loss": {
            "_target_": "nequip.train.EnergyForceLoss",
            "per_atom_energy": True,
            "coeffs": {
                "total_energy": training.loss["energy"],
                "forces": training.loss["forces"],
            },
        },
        "val_metrics": {
            "_target_": "nequip.train.EnergyForceMetrics",
            "coeffs": {"per_atom_energy_rmse": None, "forces_rmse": 1.0},
        },
        "optimizer": {
            "_target_": "torch.optim.Adam",
            "lr": training.learning_rate,
            "fused": True,  # one pass over the weights
        },
        "num_datasets": {"train": 1, "val": 1, "test": 0, "predict": 0},
    }
    with building(model):
        info = {
            "versions": get_current_code_versions(verbose=False),
            "training_module": {"_target_": "nequip.train.EMALightningModule", **config},
            # The example structure of nequip-compile.
            "data": {
                "_target_": "pretraining.training.network.checkpoint.ExampleData",
                "type_names": model["type_names"],
                "cutoff": model["r_max"],
            },
            "trainer": {},
            "global_options": dict(get_latest_global_state()),
            "runs": ["train"],
            "about": about,
        }
        return EMALightningModule(**config, info_dict=info)


def network_of(module: EMALightningModule) -> GraphModel:
    """Return the network that a training module trains."""
    return module.model[SOLE_MODEL]


def set_weights(module: EMALightningModule, weights: Sequence[torch.Tensor]) -> None:
    """Set the weights and their moving average, in the order of ``parameters()``."""
    with torch.no_grad():
        for own in (module.model.parameters(), module.ema.ema_weights):
            for old, new in zip(own, weights, strict=True):
                old.copy_(new)


def save_model(module: EMALightningModule, path: Path) -> None:
    """Write a training module as a model file, without optimiser."""
    trainer = lightning.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False
    )
    trainer.strategy.connect(module.cpu())
    write_atomically(path, lambda tmp: trainer.save_checkpoint(tmp, weights_only=True))


def check_sums(path: str | Path) -> None:
    """Raise `zipfile.BadZipFile` if a file of PyTorch is damaged; PyTorch checks no checksums."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")


def load_model(
    path: str | Path,
    *,
    avg_num_neighbors: float | None = None,
    type_names: Sequence[str] = ("C",),
    device: str | torch.device = "cpu",
    trust: bool | Collection[str] = False,
) -> GraphModel:
    """Load a network for prediction, in evaluation mode.

    Weights and plain settings are read, which runs no code of the file. Raises a `UserError` if the
    file cannot be opened or is not trusted, is not that of the ``metrics.json`` beside it, or
    `avg_num_neighbors` is missing or superfluous.

    Parameters
    ----------
    path
        A run's ``model.ckpt``, or published weights of the paper's network (``.pth``).
    avg_num_neighbors
        For published weights only, whose file lacks it: average number of neighbours in their
        training set.
    type_names
        Chemical symbols of the atom types of published weights.
    trust
        Import paths of code that the file may name, such as a network builder of the user's own.
        True opens any file that NequIP opens, and with it runs any code in the file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no model at {path}")
    check_output(path, path.with_name("metrics.json"))
    silence_lightning()
    set_global_state(allow_tf32=False)
    if path.suffix == PUBLISHED_SUFFIX:
        if avg_num_neighbors is None:
            raise UserError(
                f"{path} does not hold the average number of neighbours that it was trained with: "
                "give it with --avg-num-neighbors (C-SYNTH-23M at 4 Å: about 31)"
            )
        model = build_network(
            network_config({}, type_names=type_names, avg_num_neighbors=avg_num_neighbors, seed=0)
        )
        copy_parameters(read_published(path), model, str(path))
    elif avg_num_neighbors is not None:
        raise UserError(f"{path} knows its average number of neighbours: do not give another")
    else:
        try:
            with warnings.catch_warnings():
                # The file itself holds the versions that made it.
                warnings.filterwarnings("ignore", message=".*versions differ between.*")
                check_sums(path)
                model = load_saved_model(str(path)) if trust is True else _own_model(path, trust)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{path} cannot be opened as a NequIP model ({type(error).__name__}: {error}): "
                f"if it is a run's, {remake(path)}; else give a run's model.ckpt or published "
                "weights (.pth)"
            ) from error
    return model.eval().to(device)


def read_plain(path: str | Path) -> dict[str, Any]:
    """Read weights and plain settings on the CPU; anything else, such as code, is an error."""
    check_sums(path)
    with warnings.catch_warnings(action="ignore"):
        return torch.load(path, map_location="cpu", weights_only=True)


def _own_model(path: Path, trusted: Collection[str] | bool) -> GraphModel:
    """Build a run's network and set its weights; nothing that the file names is run unchecked."""
    try:
        content = read_plain(path)
        hyperparameters = content["hyper_parameters"]
        hyperparameters["info_dict"]["about"]
    except (pickle.UnpicklingError, RuntimeError, KeyError) as error:
        raise UserError(
            f"{path} is not a run's model.ckpt, which holds weights and plain settings "
            f"({type(error).__name__}): if it is a run's, {remake(path)}; any other file of NequIP "
            "can run code when it is opened: add --trust if you trust whoever made it"
        ) from error
    config = hyperparameters["model"]
    for name in code_in(config):
        if name not in (*SAFE_TARGETS, *(trusted or ())):
            which = f" {name}" if name.replace(".", "").isidentifier() else ""
            raise UserError(
                f"{path} names code of its own, {name!r}: add --trust{which} if you trust whoever "
                "made the file"
            )
    with override_model_compile_mode("eager"):
        model = build_network(config)
    prefix = f"model.{SOLE_MODEL}."
    weights = content["state_dict"].items()
    model.load_state_dict({k.removeprefix(prefix): v for k, v in weights if k.startswith(prefix)})
    return model


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

    Raises a `UserError` if the file has another checksum, or its weights do not fit the network.

    Parameters
    ----------
    path
        Published weights (``.pth``).
    out
        The run's folder, for ``model.ckpt`` and a ``metrics.json`` without errors.
    avg_num_neighbors, elements, transform
        Of the structures that they were trained on; the elements are those before the transform,
        which may set the cut-off.
    settings
        Of a pre-training with their network.
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
    changes = dataclasses.asdict(transform)
    made = import_identity(found, avg_num_neighbors, settings, changes)
    metrics = {
        "kind": "pretrain",
        "imported": path.name,
        "sha256": found,
        "config_hash": digest(made),
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
    write_record(out / "metrics.json", metrics, out / "model.ckpt")


def network_config_of(path: str | Path) -> dict[str, Any] | None:
    """Return the network's configuration in a run's ``model.ckpt``; None for other files."""
    try:
        return read_plain(path)["hyper_parameters"]["model"]
    except Exception:
        return None


def zero_in(path: str | Path) -> dict[str, float]:
    """Return the energy of an atom by element, eV, to which a run's ``model.ckpt`` is relative.

    A UserError says that the file does not hold it, as published weights do not.
    """
    try:
        return read_plain(path)["hyper_parameters"]["info_dict"]["about"]["energy_zero"]
    except Exception:
        raise UserError(
            f"{path} does not hold the zero of its energies, so they cannot be made absolute: add "
            "--relative"
        ) from None


def cutoff_of(model: GraphModel) -> float:
    """Return a network's cut-off, Å."""
    return float(model.metadata["r_max"])


def type_names_of_model(model: GraphModel) -> list[str]:
    """Return the chemical symbols of a network's atom types."""
    return model.metadata["type_names"].split(" ")


class ExampleData(lightning.LightningDataModule):
    """Data module with one example structure, for NequIP's tools that trace a network."""

    def __init__(self, type_names: Sequence[str], cutoff: float, **_: Any) -> None:
        super().__init__()
        self.n_types = len(type_names)
        self.cutoff = cutoff

    def train_dataloader(self) -> list[Key.Type]:
        """Return one batch of one structure: a rattled simple cubic lattice of 27 atoms."""
        generator = np.random.default_rng(0)
        edge = 0.45 * self.cutoff
        sites = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3)
        positions = edge * (sites + generator.uniform(-0.1, 0.1, sites.shape))
        atoms = Atoms(positions=positions, cell=3 * edge * np.eye(3), pbc=True)
        graph = graph_of(atoms, np.arange(len(sites)) % self.n_types, self.cutoff)
        return [Key.batched_from_list([graph])]
