"""When molecular dynamics with a learned potential have failed.

A model has failed when its dynamics are no longer those of any material: what is looked for is
what no potential worth the name does at these temperatures, with room for fluctuations, so that a
wrong but stable structure is a survivor and only a breakdown is a failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import units
from ase.neighborlist import neighbor_list

from pretraining.data.geometry import TOP, fold_counts, neighbours
from pretraining.dynamics.settings import Frame, Settings
from pretraining.study.generation import Stage

CRITERIA = ("temperature", "energy", "distance", "free atoms", "clusters", "not finite")


@dataclass(frozen=True)
class Limits:
    """What is too much.

    Attributes
    ----------
    temperature_factor
        Of the temperature, as a multiple of the hottest stage. In equilibrium the temperature of N
        atoms fluctuates by a share √(2/3N), 6 % of 200 atoms: several times the hottest is heat
        that the thermostat cannot take away as fast as the forces of the model make it.
    energy_per_atom
        Of the potential energy's distance from the start, eV/atom, up or down. Heating to 3,000 K
        takes 3/2 kT = 0.4 eV/atom and graphitisation gives back about as much; more than a few is
        bonds broken without end or a hole in the energy surface.
    min_distance
        Two atoms nearer than this (Å) have fallen into each other.
    zero_fold, eight_fold
        Of the share of atoms without a neighbour and with eight or more: vapour where there is no
        boiling, and clusters that no valence allows. Five neighbours are where a breakdown may
        begin, but happen in any hot liquid: they are counted, and are no failure.
    """

    temperature_factor: float = 3.0
    energy_per_atom: float = 3.0
    min_distance: float = 0.8
    zero_fold: float = 0.05
    eight_fold: float = 0.01


class FailureMonitor:
    """Looks at the frames of one trajectory, and at its temperature after every step.

    Parameters
    ----------
    limits
        What is too much.
    stages
        The temperature in the course of the trajectory.
    radius
        Distance within which an atom is a neighbour, Å.
    settings
        Of the dynamics.
    start
        Potential energy of the start, eV.

    Attributes
    ----------
    criterion
        Which of :data:`CRITERIA` has been met; None as long as none has.
    """

    def __init__(
        self,
        limits: Limits,
        stages: Sequence[Stage],
        radius: float,
        settings: Settings,
        start: float,
    ) -> None:
        self.limits = limits
        self.radius = radius
        self.settings = settings
        self.start = start
        self.criterion: str | None = None
        self.hottest = max(max(stage.first, stage.last) for stage in stages)

    def watch(self, engine: Any) -> str | None:
        """Return what is wrong with an engine's atoms between frames: their heat, their forces."""
        kinetic, finite = engine.vital()
        if not finite:
            return self._met("not finite", "the forces are not finite")
        freedom = self.settings.degrees_of_freedom(engine.n_atoms)
        return self._too_hot(2 * kinetic / (freedom * units.kB))

    def __call__(self, frame: Frame) -> str | None:
        """Return what is wrong with a frame."""
        return (
            self._too_hot(frame.temperature)
            or self._too_far_in_energy(frame)
            or self._too_near(frame)
            or self._too_many(frame)
        )

    def _met(self, criterion: str, reason: str) -> str:
        self.criterion = criterion
        return reason

    def _too_hot(self, temperature: float) -> str | None:
        limit = self.limits.temperature_factor * self.hottest
        if temperature <= limit:
            return None
        if not np.isfinite(temperature):
            return self._met("not finite", "the momenta are not finite")
        return self._met(
            "temperature", f"the temperature is {temperature:,.0f} K, beyond {limit:,.0f} K"
        )

    def _too_far_in_energy(self, frame: Frame) -> str | None:
        change = (frame.potential - self.start) / len(frame.atoms)
        limit = self.limits.energy_per_atom
        if abs(change) <= limit:
            return None
        return self._met(
            "energy",
            f"the potential energy is {change:+.3g} eV/atom from that of the start, beyond "
            f"{limit:g} eV/atom",
        )

    def _too_near(self, frame: Frame) -> str | None:
        limit = self.limits.min_distance
        distances = neighbor_list("d", frame.atoms, limit)
        if not len(distances):
            return None
        return self._met(
            "distance", f"two atoms are {distances.min():.2f} Å from each other, below {limit:g} Å"
        )

    def _too_many(self, frame: Frame) -> str | None:
        counts = fold_counts(neighbours(frame.atoms, self.radius))
        n = len(frame.atoms)
        for criterion, count, limit, what in (
            ("free atoms", counts[0], self.limits.zero_fold, "no neighbour"),
            ("clusters", counts[TOP], self.limits.eight_fold, f"{TOP} or more neighbours"),
        ):
            if count > limit * n:
                return self._met(
                    criterion, f"{count} of {n} atoms have {what}, more than {100 * limit:g} %"
                )
        return None
