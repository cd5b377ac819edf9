"""Errors of a network on a set of structures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from nequip.data import AtomicDataDict as Key

from pretraining.training.compiled.loss_and_gradient import Functions
from pretraining.training.network.graphs import to_device

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
    functions: Functions,
    weights: Sequence[torch.Tensor],
    batches: Iterable[Key.Type],
    device: torch.device,
) -> tuple[float, float]:
    """Compute a network's errors on a set.

    Parameters
    ----------
    functions
        Those of the network.
    weights
        Its weights, on `device`.
    batches
        Labelled structures. How they are shared out changes the result but for rounding.

    Returns
    -------
    tuple
        RMSE of the energy an atom, eV, and of the force components, eV/Å; not numbers for an empty
        set.
    """
    squares = torch.zeros(2, dtype=torch.float64, device=device)
    n_structures, n_components = 0, 0
    for batch in batches:
        batch = to_device(batch, device)
        energies, forces = functions.predict(batch, weights)
        n_atoms = batch[Key.NUM_NODES_KEY].view(-1, 1)
        squares[0] += ((energies - batch[Key.TOTAL_ENERGY_KEY]) / n_atoms).double().square().sum()
        squares[1] += (forces - batch[Key.FORCE_KEY]).double().square().sum()
        n_structures += len(n_atoms)
        n_components += forces.numel()
    energy, force = squares.tolist()
    if not n_structures:
        return math.nan, math.nan
    return math.sqrt(energy / n_structures), math.sqrt(force / n_components)
