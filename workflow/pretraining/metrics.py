"""Errors of a network on a set of structures."""

from __future__ import annotations

import math
from typing import Any

import torch
from nequip.data import AtomicDataDict as Key
from nequip.train import EnergyForceMetrics

from pretraining.data import StructureDataset, make_loader

ENERGY = "energy_rmse_mev_per_atom"
FORCE = "force_rmse_ev_per_angstrom"
SHIFTED_ENERGY = "energy_rmse_after_median_shift_mev_per_atom"


def named_errors(energy: float, forces: float) -> dict[str, float | None]:
    """Name errors as the metrics files do; what is not finite becomes None, JSON's null.

    Parameters
    ----------
    energy
        RMSE of the energy an atom, eV.
    forces
        RMSE of the force components, eV/Å.
    """
    named = {ENERGY: 1000 * energy, FORCE: forces}
    return {name: value if math.isfinite(value) else None for name, value in named.items()}


def describe(errors: dict[str, float | None]) -> str:
    """Write errors for a person to read."""
    if errors[ENERGY] is None or errors[FORCE] is None:
        return "no finite errors"
    return f"{errors[ENERGY]:.2f} meV/atom {errors[FORCE]:.4f} eV/Å"


NO_ERRORS = named_errors(math.nan, math.nan)


def errors_of(
    model: torch.nn.Module, dataset: StructureDataset, batch_size: int, device: torch.device
) -> dict[str, Any]:
    """Compute a network's errors on a set; all None for an empty one.

    Parameters
    ----------
    model
        Network in evaluation mode, on `device`.
    dataset
        Labelled structures.
    batch_size
        Structures a batch, which does not change the result but for rounding.
    """
    if not len(dataset):
        return dict(NO_ERRORS)
    metrics = EnergyForceMetrics(coeffs={}).to(device)
    for batch in make_loader(dataset, batch_size):
        batch = Key.to_(batch, device)
        metrics(Key.detach_(model(batch)), batch)
    values = metrics.compute()
    return named_errors(
        float(values["per_atom_energy_rmse"]),
        float(values["forces_rmse"]),
    )
