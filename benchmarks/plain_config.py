"""A configuration of plain ``nequip-train`` with this project's procedure."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plain_config(
    model: dict[str, Any], train: Path, val: Path, epochs: int, *, learning_rate: float, seed: int
) -> dict[str, Any]:
    """Return what ``nequip-train`` reads, for a CPU and without outputs.

    Parameters
    ----------
    model
        Network, as of :func:`pretraining.training.network.builders.network_config`.
    train, val
        Structures of one element, extended XYZ.
    epochs
        Their number, without early stopping.
    learning_rate
        Of Adam.
    seed
        Of the order of batches.
    """
    loader = {"_target_": "torch.utils.data.DataLoader"}
    types = {
        "_target_": "nequip.data.transforms.ChemicalSpeciesToAtomTypeMapper",
        "model_type_names": model["type_names"],
    }
    neighbours = {
        "_target_": "nequip.data.transforms.NeighborListTransform",
        "r_max": model["r_max"],
    }
    return {
        "run": ["train"],
        "data": {
            "_target_": "nequip.data.datamodule.ASEDataModule",
            "seed": seed,
            "train_file_path": str(train),
            "val_file_path": str(val),
            "transforms": [types, neighbours],
            "train_dataloader": loader | {"batch_size": 10, "shuffle": True},
            "val_dataloader": loader | {"batch_size": 20},
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": epochs,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "ema_decay": 0.99,
            "loss": {
                "_target_": "nequip.train.EnergyForceLoss",
                "per_atom_energy": True,
                "coeffs": {"total_energy": 4.0, "forces": 1.0},
            },
            "val_metrics": {
                "_target_": "nequip.train.EnergyForceMetrics",
                "coeffs": {"per_atom_energy_rmse": None, "forces_rmse": 1.0},
            },
            "optimizer": {"_target_": "torch.optim.Adam", "lr": learning_rate},
            "model": model,
        },
    }
