"""Settings and frames of molecular dynamics.

This runs in the interpreters of label sources: it imports only the standard library, numpy and ASE.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from pretraining.runtime.errors import UserError

THERMOSTATS = ("nose-hoover", "langevin", "none")


@dataclass(frozen=True)
class Settings:
    """How the equations of motion are integrated.

    Attributes
    ----------
    timestep_fs
        Time step, fs.
    thermostat
        ``nose-hoover`` (a chain of three), ``langevin``, or ``none`` for constant energy.
    damping_fs
        Relaxation time of the thermostat, fs; for Langevin dynamics the inverse of the friction.
    seed
        Of the random forces of Langevin dynamics.
    """

    timestep_fs: float = 1.0
    thermostat: str = "nose-hoover"
    damping_fs: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.thermostat not in THERMOSTATS:
            raise UserError(f"thermostat '{self.thermostat}' is none of {', '.join(THERMOSTATS)}")

    def degrees_of_freedom(self, n_atoms: int) -> int:
        """Degrees of freedom that hold kinetic energy.

        Random forces move the centre of mass; without them its momentum stays zero.
        """
        return 3 * n_atoms if self.thermostat == "langevin" else 3 * n_atoms - 3


@dataclass(frozen=True)
class Frame:
    """The system at one instant.

    Attributes
    ----------
    step, time_ps
        Steps and time since the start of the dynamics.
    atoms
        Structure, its atoms in the cell, with momenta.
    forces
        (n_atoms, 3), eV/Å.
    potential, kinetic
        Energies, eV.
    temperature, target
        What it is and what the stage asks for, K.
    """

    step: int
    time_ps: float
    atoms: Atoms
    forces: np.ndarray
    potential: float
    kinetic: float
    temperature: float
    target: float


@dataclass(frozen=True)
class Ending:
    """How the dynamics ended: at which time, and why before its end (None if it did not).

    `raised` says that the reason is an error of the engine, not something seen in the atoms.
    """

    time_ps: float
    reason: str | None = None
    raised: bool = False


def thermalise(atoms: Atoms, kelvin: float, rng: np.random.Generator) -> None:
    """Draw momenta of the Maxwell-Boltzmann distribution, with a total momentum of zero."""
    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * kelvin)
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())
