"""Labels of a set beside a model's predictions, as one file, and the errors between them.

The file is a compressed NumPy archive, from which figures are drawn without the network::

    index             (n,) int64     position of the structure in the raw dataset
    n_atoms           (n,) int64     atoms of each structure
    energy            (n,) float64   label, eV per structure, relative to the set's energy reference
    predicted_energy  (n,) float64   likewise
    forces            (N, 3) float64 labels of all atoms, structure after structure, eV/Å
    predicted_forces  (N, 3) float64
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pretraining.runtime.errors import UserError, remake

ENERGY = "energy_rmse_mev_per_atom"
FORCE = "force_rmse_ev_per_angstrom"
SHIFTED_ENERGY = "energy_rmse_after_median_shift_mev_per_atom"
MEAN_SHIFTED_ENERGY = "energy_rmse_after_mean_shift_mev_per_atom"


def named_errors(energy: float, forces: float) -> dict[str, float | None]:
    """Name the RMSEs of the energy per atom (eV) and force components (eV/Å) as in metrics files.

    Values that are not finite become None, JSON's null.
    """
    named = {ENERGY: 1000 * energy, FORCE: forces}
    return {name: value if math.isfinite(value) else None for name, value in named.items()}


NO_ERRORS = named_errors(math.nan, math.nan)


def describe(errors: dict[str, float | None]) -> str:
    """Write errors for a person to read."""
    if errors[ENERGY] is None or errors[FORCE] is None:
        return "no finite errors"
    return f"{errors[ENERGY]:.2f} meV/atom {errors[FORCE]:.4f} eV/Å"


@dataclass(frozen=True)
class Predictions:
    """Labels and predictions of n structures, N atoms in all; the fields are the file's."""

    index: np.ndarray
    n_atoms: np.ndarray
    energy: np.ndarray
    predicted_energy: np.ndarray
    forces: np.ndarray
    predicted_forces: np.ndarray

    @property
    def per_atom(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels and predictions of the energy per atom, eV, each of shape (n,)."""
        return self.energy / self.n_atoms, self.predicted_energy / self.n_atoms

    @property
    def median_shift(self) -> float:
        """Median over the structures of prediction minus label, eV per atom."""
        labels, predicted = self.per_atom
        return float(np.median(predicted - labels))

    def energy_rmse(self, shift: float = 0.0) -> float:
        """RMSE of the energy per atom, eV, after subtracting `shift` from the predictions."""
        labels, predicted = self.per_atom
        return _rms(predicted - shift - labels)

    def force_rmse(self) -> float:
        """RMSE of the force components, eV/Å."""
        return _rms(self.predicted_forces - self.forces)

    def errors(self, part: str = "test") -> dict[str, Any]:
        """Return the errors of a part, as in a run's metrics, and its number of structures.

        A model and labels of different methods may differ by a constant energy per atom: without
        the median or the mean difference on these structures (the published errors of label sources
        have the latter), the shifted energy error is a lower bound.
        """
        shift = self.median_shift
        errors: dict[str, Any] = named_errors(self.energy_rmse(), self.force_rmse())
        errors[SHIFTED_ENERGY] = named_errors(self.energy_rmse(shift), 0.0)[ENERGY]
        labels, predicted = self.per_atom
        mean = float(np.mean(predicted - labels))
        errors[MEAN_SHIFTED_ENERGY] = named_errors(self.energy_rmse(mean), 0.0)[ENERGY]
        errors["median_shift_ev_per_atom"] = shift if math.isfinite(shift) else None
        return {part: errors, f"n_{part}": len(self.index)}

    def save(self, path: Path) -> None:
        """Write the file."""
        with open(path, "wb") as handle:
            np.savez_compressed(handle, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read a file; raise a `UserError` if there is none, or it is something else."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(**{f.name: stored[f.name] for f in fields(cls)})
        except FileNotFoundError:
            raise UserError(f"{path}: no such file (predictions of a model)") from None
        except Exception as error:
            raise UserError(
                f"{path}: not predictions of a model ({error}): {remake(path)}"
            ) from None


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
