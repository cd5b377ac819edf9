"""Molecular dynamics inside LAMMPS, which ASE's ``LAMMPSlib`` sets up as for labelling."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.lammps import convert

from pretraining.dynamics.engines import Settings
from pretraining.runtime.errors import UserError
from pretraining.study.generation import LAMMPSLIB, Stage
from pretraining.study.sources import Source

# Arguments of LAMMPSlib that the dynamics support.
KNOWN = {"lmpcmds", "atom_types", "atom_type_masses", "keep_alive", "log_file"}
# Arguments of LAMMPSlib that replace the source's own.
ARGUMENTS = {"keep_alive": True, "log_file": None}
LARGEST_SEED = 900_000_000  # of LAMMPS


def engine_of(source: Source, wanted: str) -> str:
    """Return the engine for a source: ``ase``, or ``lammps`` for a LAMMPS pair style.

    Raises a `UserError` if `wanted` is ``lammps`` and LAMMPS cannot drive the source.
    """
    reason = None
    if source.calculator != LAMMPSLIB:
        reason = f"its calculator is not {LAMMPSLIB}"
    elif source.args or set(source.kwargs) - KNOWN:
        reason = f"its arguments are not only {', '.join(sorted(KNOWN))}"
    if wanted == "lammps" and reason:
        raise UserError(f"source '{source.name}' cannot be driven by LAMMPS: {reason}")
    return "ase" if wanted == "ase" or reason else "lammps"


class LammpsEngine:
    """Engine for a structure with momenta and a ``LAMMPSlib`` calculator.

    A state is a binary restart file of LAMMPS, with the thermostat. LAMMPS sets up again at each
    chunk, so resumed dynamics equal uninterrupted ones up to the order of sums: 5e-14 Å after 200
    steps, and chaos from there.
    """

    chunk = 100  # steps for which setting up costs 1 to 2 %

    def __init__(self, atoms: Atoms, settings: Settings) -> None:
        if not all(atoms.pbc):
            raise UserError("dynamics in LAMMPS need a periodic cell: set engine: ase")
        self.settings = settings
        self._atoms = atoms.copy()
        self._calculator = calculator = atoms.calc  # kept: LAMMPS closes with it
        calculator.get_forces(atoms)  # sets LAMMPS up and passes the positions
        self.lmp, self.prism = calculator.lmp, calculator.prism
        velocities = convert(atoms.get_velocities(), "velocity", "ASE", "metal")
        self._scatter("v", self.prism.vector_to_lammps(velocities))
        self.lmp.command(f"timestep {settings.timestep_fs / 1000!r}")
        self._fix: str | None = None

    def _scatter(self, name: str, array: np.ndarray) -> None:
        flat = np.ascontiguousarray(array, dtype=float).ravel()
        self.lmp.scatter_atoms(name, 1, 3, np.ctypeslib.as_ctypes(flat))

    def _gather(self, name: str) -> np.ndarray:
        flat = np.array(self.lmp.gather_atoms(name, 1, 3), dtype=float)
        return self.prism.vector_to_ase(flat.reshape(-1, 3))

    def start(self, number: int, stage: Stage, done: int) -> None:
        self._stage, self._done = stage, done
        if self._fix is not None:
            self.lmp.command(f"unfix {self._fix}")
        # LAMMPS restores the thermostat of a restart by the fix's name: one name a stage.
        self._fix = f"stage{number}"
        if self.settings.thermostat == "nose-hoover":
            damping = self.settings.damping_fs / 1000
            style = f"nvt temp {stage.first!r} {stage.last!r} {damping!r}"
        else:
            style = "nve"
        self.lmp.command(f"fix {self._fix} all {style}")

    def advance(self, steps: int) -> None:
        now = int(self.lmp.extract_global("ntimestep"))
        if self.settings.thermostat == "langevin":
            # Restart files lack the random numbers: each chunk has its own seed.
            seed = np.random.default_rng([self.settings.seed, now]).integers(1, LARGEST_SEED)
            ends = (self._stage.temperature(self._done + n) for n in (0, steps))
            first, last = map(repr, map(float, ends))
            damping = self.settings.damping_fs / 1000
            self.lmp.command(f"fix noise all langevin {first} {last} {damping!r} {seed}")
        begin = now - self._done
        self.lmp.command(f"run {steps} start {begin} stop {begin + self._stage.steps}")
        self._done += steps

    def energy(self) -> float:
        return float(self.lmp.get_thermo("pe"))

    def read(self) -> tuple[Atoms, np.ndarray]:
        atoms = self._atoms
        atoms.positions = self._gather("x")
        atoms.set_velocities(convert(self._gather("v"), "velocity", "metal", "ASE"))
        atoms = atoms.copy()
        atoms.wrap()
        return atoms, self._gather("f")

    def state(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.restart"
            self.lmp.command(f'write_restart "{path}"')
            return {"restart": np.frombuffer(path.read_bytes(), dtype=np.uint8)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        parameters = self._calculator.parameters
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.restart"
            path.write_bytes(state["restart"].tobytes())
            self.lmp.command("clear")
            for command in [*parameters.lammps_header, "box tilt large"]:
                self.lmp.command(command)
            self.lmp.command(f'read_restart "{path}"')
        for command in parameters.lmpcmds:
            self.lmp.command(command)
        self.lmp.command("neigh_modify delay 0 every 1 check yes")
        self.lmp.command(f"timestep {self.settings.timestep_fs / 1000!r}")
