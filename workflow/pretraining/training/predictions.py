"""What a model says of a labelled set beside the set's own labels, as one file, and its errors.

The file is a compressed NumPy archive, so that figures are drawn of it without the network::

    index             (n,) int64     position of the structure in the raw dataset
    n_atoms           (n,) int64     atoms of each structure
    energy            (n,) float64   label, eV a structure, relative to the set's energy reference
    predicted_energy  (n,) float64   likewise
    forces            (N, 3) float64 labels of all atoms, structure after structure, eV/Å
    predicted_forces  (N, 3) float64
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from pretraining.runtime.errors import UserError, remake


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
        """Labels and predictions of the energy an atom, eV, each of shape (n,)."""
        return self.energy / self.n_atoms, self.predicted_energy / self.n_atoms

    @property
    def median_shift(self) -> float:
        """Median over the structures of prediction minus label, eV an atom."""
        labels, predicted = self.per_atom
        return float(np.median(predicted - labels))

    def energy_rmse(self, shift: float = 0.0) -> float:
        """RMSE of the energy an atom, eV, after `shift` is subtracted from the predictions."""
        labels, predicted = self.per_atom
        return _rms(predicted - shift - labels)

    def force_rmse(self) -> float:
        """RMSE of the force components, eV/Å."""
        return _rms(self.predicted_forces - self.forces)

    def save(self, path: Path) -> None:
        """Write the file."""
        with open(path, "wb") as handle:
            np.savez_compressed(handle, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read such a file.

        Raises
        ------
        UserError
            If there is none, or it is something else.
        """
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
