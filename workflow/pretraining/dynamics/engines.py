"""Molecular dynamics: settings, frames, and the engine that takes forces from any ASE calculator.

Two more engines integrate the same equations: :mod:`.lammps_engine` inside LAMMPS, and
:mod:`.torchsim_engine` for several systems in one batch. The thermostat starts anew in each stage.

Velocity Verlet with a chain of Nosé-Hoover thermostats, split and with masses as in LAMMPS'
``fix nvt``. ASE has this thermostat only since 3.25, and only for a constant temperature. Langevin
dynamics are ASE's.

Imported in interpreters of label sources: only the standard library, numpy and ASE.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin

from pretraining.runtime.errors import UserError
from pretraining.study.generation import Stage

THERMOSTATS = ("nose-hoover", "langevin", "none")
CHAIN = 3  # thermostats in the chain, as in LAMMPS and ASE


@dataclass(frozen=True)
class Settings:
    """Settings of the integration.

    The thermostat ``none`` means constant energy. Langevin dynamics take the inverse of
    `damping_fs` as the friction, and the `seed` for their random forces.
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
    """State of the system after `step` steps; its atoms have momenta and are wrapped."""

    step: int
    time_ps: float
    atoms: Atoms
    forces: np.ndarray  # (n_atoms, 3), eV/Å
    potential: float  # eV
    kinetic: float  # eV
    temperature: float  # K, measured
    target: float  # K, of the stage


def thermalise(atoms: Atoms, kelvin: float, rng: np.random.Generator) -> None:
    """Draw momenta from the Maxwell-Boltzmann distribution, with a total momentum of zero."""
    masses = atoms.get_masses()[:, None]
    momenta = rng.standard_normal((len(atoms), 3)) * np.sqrt(masses * units.kB * kelvin)
    atoms.set_momenta(momenta - masses * momenta.sum(axis=0) / masses.sum())


class NoseHooverChain:
    """Chain of thermostats, integrated by half time steps.

    Martyna, Tuckerman, Tobias and Klein, Mol. Phys. 87, 1117 (1996). The atoms have `freedom`
    degrees of freedom; the relaxation time `damping` is in the unit of the time step.
    """

    def __init__(self, freedom: int, damping: float) -> None:
        self.freedom = freedom
        self.damping = damping
        self.rates = np.zeros(CHAIN)

    def half_step(self, kinetic: float, kt: float, timestep: float) -> float:
        """Advance the chain; return the scale factor of the momenta.

        `kinetic` is the kinetic energy of the atoms, `kt` Boltzmann's constant times the target
        temperature, both in eV.
        """
        rates = self.rates
        # Masses proportional to the temperature keep the relaxation time.
        masses = kt * self.damping**2 * np.array([self.freedom] + [1] * (CHAIN - 1))

        def kick(link: int) -> None:
            if link == 0:
                push = 2 * kinetic - self.freedom * kt
            else:
                push = masses[link - 1] * rates[link - 1] ** 2 - kt
            drag = np.exp(-timestep / 8 * rates[link + 1]) if link + 1 < CHAIN else 1.0
            rates[link] = (rates[link] * drag + timestep / 4 * push / masses[link]) * drag

        for link in reversed(range(CHAIN)):
            kick(link)
        scale = float(np.exp(-timestep / 2 * rates[0]))
        kinetic *= scale**2
        for link in range(CHAIN):
            kick(link)
        return scale


class AseEngine:
    """Engine for a structure with momenta and a calculator; the others have the same methods.

    A state holds positions, momenta, thermostat and random numbers bit by bit. Resumed dynamics
    equal uninterrupted ones if the forces depend on the positions alone; a calculator that keeps
    a neighbour list may differ in the last digits.
    """

    chunk = 1  # steps between two looks at a stop request: calculators may be slow

    def __init__(self, atoms: Atoms, settings: Settings) -> None:
        self.atoms = atoms
        self.settings = settings
        self.n_atoms = len(atoms)
        self.timestep = settings.timestep_fs * units.fs
        self.rng = np.random.default_rng(settings.seed)
        freedom = settings.degrees_of_freedom(self.n_atoms)
        self.chain = NoseHooverChain(freedom, settings.damping_fs * units.fs)
        self._masses = atoms.get_masses()[:, None]
        self._move = self._langevin_step if settings.thermostat == "langevin" else self._verlet_step

    def start(self, number: int, stage: Stage, done: int) -> None:
        """Begin a stage, or resume it after `done` of its steps."""
        self._stage, self._done = stage, done
        if done == 0:
            self.chain.rates[:] = 0
        if self.settings.thermostat == "langevin":
            self._langevin = Langevin(
                self.atoms,
                self.timestep,
                temperature_K=stage.temperature(done),
                friction=1 / (self.settings.damping_fs * units.fs),
                fixcm=False,
                rng=self.rng,
            )

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            self._done += 1
            self._move(self._stage.temperature(self._done))

    def _verlet_step(self, kelvin: float) -> None:
        atoms = self.atoms
        momenta = self._thermostat(atoms.get_momenta(), kelvin)
        momenta += self.timestep / 2 * atoms.get_forces()
        atoms.positions += self.timestep * momenta / self._masses
        momenta += self.timestep / 2 * atoms.get_forces()
        atoms.set_momenta(self._thermostat(momenta, kelvin))

    def _thermostat(self, momenta: np.ndarray, kelvin: float) -> np.ndarray:
        if self.settings.thermostat == "none":
            return momenta
        kinetic = float(np.sum(momenta**2 / self._masses)) / 2
        return momenta * self.chain.half_step(kinetic, units.kB * kelvin, self.timestep)

    def _langevin_step(self, kelvin: float) -> None:
        self._langevin.set_temperature(temperature_K=kelvin)
        self._langevin.step()

    def energy(self) -> float:
        """Potential energy, eV; the free energy if there is one: the forces derive from it."""
        energy = float(self.atoms.get_potential_energy())
        free = self.atoms.calc.results.get("free_energy")
        return energy if free is None else float(free)

    def check_state(self) -> tuple[float, bool]:
        """Kinetic energy (eV), and whether the forces are finite."""
        finite = bool(np.isfinite(self.atoms.get_forces()).all())
        return float(self.atoms.get_kinetic_energy()), finite

    def read(self) -> tuple[Atoms, np.ndarray]:
        """Structure with momenta, its atoms wrapped into the cell, and forces (eV/Å)."""
        atoms = self.atoms.copy()
        atoms.wrap()
        return atoms, self.atoms.get_forces()

    def state(self) -> dict[str, Any]:
        """Return the arrays from which :meth:`restore` resumes."""
        return {
            "positions": self.atoms.positions,
            "momenta": self.atoms.get_momenta(),
            "thermostat": self.chain.rates,
            "random": np.array(json.dumps(self.rng.bit_generator.state)),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.atoms.positions = state["positions"]
        self.atoms.set_momenta(state["momenta"])
        self.chain.rates[:] = state["thermostat"]
        self.rng.bit_generator.state = json.loads(str(state["random"]))
