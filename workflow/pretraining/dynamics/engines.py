"""Settings, frames and engines of molecular dynamics.

An engine integrates the equations of motion: :mod:`.ase_engine` with the forces of any ASE
calculator, :mod:`.lammps_engine` inside LAMMPS, :mod:`.torchsim_engine` for several systems in one
batch. All integrate the same equations, with a thermostat that is reset at each stage.

This runs in the interpreters of label sources: it imports only the standard library, numpy and ASE.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from pretraining.runtime.errors import UserError
from pretraining.study.sources import Source

THERMOSTATS = ("nose-hoover", "langevin", "none")


@dataclass(frozen=True)
class Settings:
    """Settings of the integration.

    Attributes
    ----------
    timestep_fs
        Time step, fs.
    thermostat
        ``nose-hoover`` (a chain of three), ``langevin``, or ``none`` for constant energy.
    damping_fs
        Relaxation time of the thermostat, fs; in Langevin dynamics the inverse of the friction.
    seed
        Seed of the random forces of Langevin dynamics.
    """

    timestep_fs: float = 1.0
    thermostat: str = "nose-hoover"
    damping_fs: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.thermostat not in THERMOSTATS:
            raise UserError(f"thermostat '{self.thermostat}' is none of {', '.join(THERMOSTATS)}")

    def degrees_of_freedom(self, n_atoms: int) -> int:
        """Number of degrees of freedom with kinetic energy.

        Langevin forces move the centre of mass; without them its momentum stays zero.
        """
        return 3 * n_atoms if self.thermostat == "langevin" else 3 * n_atoms - 3

    def temperature(self, kinetic: float, n_atoms: int) -> float:
        """Temperature (K) of a kinetic energy (eV)."""
        return 2 * kinetic / (self.degrees_of_freedom(n_atoms) * units.kB)


@dataclass(frozen=True)
class Frame:
    """State of the system at one time.

    Attributes
    ----------
    step, time_ps
        Steps and time since the start of the dynamics.
    atoms
        Structure with momenta, its atoms wrapped into the cell.
    forces
        (n_atoms, 3), eV/Å.
    potential, kinetic
        Energies, eV.
    temperature, target
        Measured temperature and that of the stage, K.
    """

    step: int
    time_ps: float
    atoms: Atoms
    forces: np.ndarray
    potential: float
    kinetic: float
    temperature: float
    target: float


def thermalise(atoms: Atoms, kelvin: float, rng: np.random.Generator) -> None:
    """Draw momenta from the Maxwell-Boltzmann distribution, with a total momentum of zero."""
    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * kelvin)
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())


def engine_of(source: Source, wanted: str) -> str:
    """Return the engine for a source: ``ase``, or ``lammps`` for a LAMMPS pair style.

    Raises
    ------
    UserError
        If `wanted` is ``lammps`` and LAMMPS cannot drive the source.
    """
    from pretraining.dynamics.lammps_engine import obstacle

    reason = obstacle(source)
    if wanted == "lammps" and reason:
        raise UserError(f"source '{source.name}' cannot be driven by LAMMPS: {reason}")
    return "ase" if wanted == "ase" or reason else "lammps"


def make_engine(name: str, atoms: Atoms, settings: Settings):
    """Return an engine for a structure with momenta and a calculator.

    Raises
    ------
    UserError
        If the engine cannot move the structure.
    """
    if name == "lammps":
        from pretraining.dynamics.lammps_engine import LammpsEngine

        return LammpsEngine(atoms, settings)
    from pretraining.dynamics.ase_engine import AseEngine

    return AseEngine(atoms, settings)
