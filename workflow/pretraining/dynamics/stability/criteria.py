"""Criteria for the failure of molecular dynamics with a learned potential.

The limits are far from what any material does at these temperatures, fluctuations included. A wrong
but stable structure survives; only a breakdown is a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from pretraining.data.geometry import covalent, fold_counts, neighbours, pairs
from pretraining.dynamics.engines import Frame, Settings
from pretraining.study.generation import Stage

# Share of the covalent radii that two atoms keep.
HALF = 0.5
CRITERIA = ("temperature", "energy", "distance", "free atoms", "clusters", "not finite")


@dataclass(frozen=True)
class Limits:
    """Limits of the criteria.

    Attributes
    ----------
    temperature_factor
        Largest temperature as a multiple of the hottest stage. In equilibrium the temperature of N
        atoms fluctuates by √(2/3N), 6 % for 200 atoms.
    energy_per_atom
        Largest change of the potential energy since the start, eV/atom. Heating to 3,000 K takes
        3/2 kT = 0.4 eV/atom, and graphitisation releases about as much.
    min_distance
        Smallest distance of two atoms, Å; None for half the sum of their covalent radii.
    zero_fold
        Largest share of atoms without a neighbour (vapour); None for that of the start and 5 %.
    eight_fold
        Largest share of atoms with eight neighbours or more, which no valence of carbon allows;
        None for any: metals have eight to fourteen.
    """

    temperature_factor: float = 3.0
    energy_per_atom: float = 3.0
    min_distance: float | None = None
    zero_fold: float | None = None
    eight_fold: float | None = None


class StabilityMonitor:
    """Checks the frames of one trajectory, and temperature and forces after every step.

    `radius` is as of :func:`.geometry.neighbours`, and `start` the potential energy (eV) of the
    start, in which a share `alone` of the atoms has no neighbour. At a failure, `criterion` is the
    failed one of :data:`CRITERIA`.
    """

    def __init__(
        self,
        limits: Limits,
        stages: Sequence[Stage],
        radius: float | None,
        settings: Settings,
        start: float,
        alone: float = 0.0,
    ) -> None:
        self.limits = limits
        self.radius = radius
        self.settings = settings
        self.start = start
        self.alone = alone
        self.criterion: str | None = None
        self.hottest = max(max(stage.first, stage.last) for stage in stages)

    def watch(self, engine: Any) -> str | None:
        """Return the fault of an engine's state between frames."""
        kinetic, finite = engine.check_state()
        if not finite:
            return self._failed("not finite", "the forces are not finite")
        return self._temperature_fault(self.settings.temperature(kinetic, engine.n_atoms))

    def __call__(self, frame: Frame) -> str | None:
        """Return the fault of a frame."""
        return (
            self._temperature_fault(frame.temperature)
            or self._energy_fault(frame)
            or self.structure_fault(frame.atoms)
        )

    def structure_fault(self, atoms: Atoms) -> str | None:
        """Return the fault of a structure."""
        return self._distance_fault(atoms) or self._neighbour_fault(atoms)

    def _failed(self, criterion: str, reason: str) -> str:
        self.criterion = criterion
        return reason

    def _temperature_fault(self, kelvin: float) -> str | None:
        limit = self.limits.temperature_factor * self.hottest
        if kelvin <= limit:
            return None
        if not np.isfinite(kelvin):
            return self._failed("not finite", "the momenta are not finite")
        return self._failed(
            "temperature", f"the temperature is {kelvin:,.0f} K, above {limit:,.0f} K"
        )

    def _energy_fault(self, frame: Frame) -> str | None:
        change = (frame.potential - self.start) / len(frame.atoms)
        limit = self.limits.energy_per_atom
        if abs(change) <= limit:
            return None
        reason = f"the potential energy changed by {change:+.3g} eV/atom, beyond {limit:g} eV/atom"
        return self._failed("energy", reason)

    def _distance_fault(self, atoms: Atoms) -> str | None:
        limit = self.limits.min_distance
        if limit == 0:
            return None
        i, j, distances = pairs(atoms, covalent(atoms, HALF) if limit is None else limit)
        if not len(distances):
            return None
        k = distances.argmin()
        limit = limit or covalent(atoms, HALF)[[i[k], j[k]]].sum()
        reason = f"two atoms are {distances[k]:.2f} Å from each other, below {limit:.3g} Å"
        return self._failed("distance", reason)

    def _neighbour_fault(self, atoms: Atoms) -> str | None:
        counts, limits = fold_counts(neighbours(atoms, self.radius)), self.limits
        zero = self.alone + 0.05 if limits.zero_fold is None else limits.zero_fold
        eight = 1.0 if limits.eight_fold is None else limits.eight_fold
        n = len(atoms)
        for criterion, count, limit, what in (
            ("free atoms", counts[0], zero, "no neighbour"),
            ("clusters", counts[8:].sum(), eight, "8 or more neighbours"),
        ):
            if count > limit * n:
                reason = f"{count} of {n} atoms have {what}, more than {100 * limit:g} %"
                return self._failed(criterion, reason)
        return None
