"""Molecular dynamics of several systems in one batch, with torch-sim and NequIP's interface to it.

State, batches and velocity Verlet are torch-sim's. Each system has its own thermostat of
:mod:`pretraining.dynamics.engines`, and both engines give the same trajectories. The thermostat
of torch-sim 0.3.0 is one chain for the whole batch, fails for more than one system, and counts the
motion of the centre of mass.

torch-sim is optional: only tests with ``engine: torch-sim`` import this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform

from pretraining.dynamics.engines import NoseHooverChain, Settings
from pretraining.runtime.errors import UserError
from pretraining.study.generation import Stage
from pretraining.training.network.checkpoint import cutoff_of, load_model, type_names_of_model

REQUIREMENT = "torch-sim-atomistic==0.3.0"
MOVING = ("positions", "momenta", "forces")  # arrays of a state that change

try:
    from nequip.integrations.torchsim import NequIPTorchSimCalc
    from torch_sim import initialize_state
    from torch_sim.integrators.md import MDState, momentum_step, position_step
    from torch_sim.quantities import calc_kinetic_energy
except ImportError as error:
    raise UserError(
        f"dynamics: engine torch-sim cannot be used here ({error}): pip install "
        f"{REQUIREMENT}, or set engine: ase"
    ) from error


def load_batch_model(
    path: Path, device: torch.device | str, trust: bool | Sequence[str] = False
) -> NequIPTorchSimCalc:
    """Return a trained network as a model of torch-sim."""
    # NVIDIA's package, if installed, builds neighbour lists on the GPU.
    on_gpu = torch.device(device).type == "cuda" and find_spec("nvalchemiops") is not None
    network = load_model(path, device=device, trust=trust)
    transforms = [
        ChemicalSpeciesToAtomTypeMapper(type_names_of_model(network)),
        NeighborListTransform(cutoff_of(network), backend="alchemiops" if on_gpu else "matscipy"),
    ]
    model = NequIPTorchSimCalc(network, device=device, transforms=transforms)
    model.compute_stress = False
    return model


class Batch:
    """Structures with momenta that one model of :func:`load_batch_model` moves together.

    Each structure has an engine in `systems`; :meth:`advance` moves all of them. The thermostat is
    ``nose-hoover`` or ``none``. Raises a `UserError` if a structure is periodic in only some
    directions.
    """

    def __init__(
        self, model: NequIPTorchSimCalc, structures: Sequence[Atoms], settings: Settings
    ) -> None:
        if any(atoms.pbc.any() != atoms.pbc.all() for atoms in structures):
            raise UserError(
                "torch-sim moves structures that are periodic in all directions or in none: set "
                "engine: ase"
            )
        self.model = model
        self.timestep = settings.timestep_fs * units.fs
        self.systems = [System(self, i, atoms, settings) for i, atoms in enumerate(structures)]
        self._live = list(self.systems)
        start = initialize_state(list(structures), model.device, torch.float64)
        out = model(start)
        momenta = np.concatenate([atoms.get_momenta() for atoms in structures])
        self._state = MDState(
            positions=start.positions,
            masses=start.masses,
            cell=start.cell,
            pbc=start.pbc,
            atomic_numbers=start.atomic_numbers,
            system_idx=start.system_idx,
            momenta=torch.as_tensor(momenta, device=model.device),
            energy=out["energy"].double(),
            forces=out["forces"].double(),
        )
        self._observe()

    def advance(self, steps: int) -> None:
        for _ in range(steps):
            targets = [system.next_target() for system in self._live]
            self._thermostat(targets)
            state = momentum_step(self._state, self.timestep / 2)
            state = position_step(state, self.timestep)
            out = self.model(state)
            state.energy, state.forces = out["energy"].double(), out["forces"].double()
            self._state = momentum_step(state, self.timestep / 2)
            self._observe()
            self._thermostat(targets)

    def drop(self, system: System) -> None:
        """Remove a system; this does not change the others' trajectories."""
        self._live.remove(system)
        if self._live:
            self._state = self._state[[other.index for other in self._live]]
        for index, other in enumerate(self._live):
            other.index = index

    def _observe(self) -> None:
        """Fetch energies and finiteness of forces of all systems in one transfer."""
        state = self._state
        wrong = (~torch.isfinite(state.forces)).any(dim=1).to(state.energy.dtype)
        infinite = torch.zeros_like(state.energy).index_add_(0, state.system_idx, wrong)
        kinetic = calc_kinetic_energy(
            masses=state.masses, momenta=state.momenta, system_idx=state.system_idx
        )
        rows = torch.stack([state.energy, kinetic, infinite], dim=1).cpu().numpy()
        for system, (energy, kinetic, infinite) in zip(self._live, rows, strict=True):
            system.potential, system.kinetic = float(energy), float(kinetic)
            system.finite = infinite == 0

    def _thermostat(self, targets: Sequence[float]) -> None:
        factors = [
            system.half_step(kelvin) for system, kelvin in zip(self._live, targets, strict=True)
        ]
        if factors[0] is None:
            return
        scale = torch.tensor(factors, dtype=torch.float64, device=self.model.device)
        self._state.momenta = self._state.momenta * scale[self._state.system_idx, None]

    def atoms_of(self, system: System) -> slice:
        """Rows of a system's atoms in the batch; systems may differ in size."""
        first = sum(other.n_atoms for other in self._live[: system.index])
        return slice(first, first + system.n_atoms)

    def fetch(self, system: System) -> dict[str, np.ndarray]:
        rows = self.atoms_of(system)
        return {name: getattr(self._state, name)[rows].cpu().numpy().copy() for name in MOVING}

    def put(self, system: System, values: dict[str, np.ndarray]) -> None:
        rows = self.atoms_of(system)
        for name in MOVING:
            # A copy, since outputs of a compiled model cannot be changed in place.
            tensor = getattr(self._state, name).clone()
            tensor[rows] = torch.as_tensor(values[name], device=tensor.device)
            setattr(self._state, name, tensor)


class System:
    """Engine of one structure in a batch."""

    chunk = 1

    def __init__(self, batch: Batch, index: int, atoms: Atoms, settings: Settings) -> None:
        self.batch = batch
        self.index = index
        self.n_atoms = len(atoms)
        self.potential = self.kinetic = np.nan
        self.finite = True
        freedom = settings.degrees_of_freedom(self.n_atoms)
        self.chain = NoseHooverChain(freedom, settings.damping_fs * units.fs)
        self._thermostatted = settings.thermostat != "none"
        self._like = Atoms(atoms.numbers, cell=atoms.cell, pbc=atoms.pbc)
        self._like.set_masses(atoms.get_masses())

    def start(self, number: int, stage: Stage, done: int) -> None:
        self._stage, self._done = stage, done
        if done == 0:
            self.chain.rates[:] = 0

    def next_target(self) -> float:
        """Return the target temperature after the next step, K."""
        self._done += 1
        return self._stage.temperature(self._done)

    def half_step(self, kelvin: float) -> float | None:
        """Advance the thermostat; return the scale factor of the momenta, None without one."""
        if not self._thermostatted:
            return None
        scale = self.chain.half_step(self.kinetic, units.kB * kelvin, self.batch.timestep)
        self.kinetic *= scale**2
        return scale

    def energy(self) -> float:
        return self.potential

    def check_state(self) -> tuple[float, bool]:
        return self.kinetic, self.finite

    def read(self) -> tuple[Atoms, np.ndarray]:
        values = self.batch.fetch(self)
        atoms = self._like.copy()
        atoms.positions = values["positions"]
        atoms.set_momenta(values["momenta"])
        atoms.wrap()
        return atoms, values["forces"]

    def state(self) -> dict[str, Any]:
        return {
            **self.batch.fetch(self),
            "energies": np.array([self.potential, self.kinetic]),
            "thermostat": self.chain.rates,
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        self.batch.put(self, state)
        self.potential, self.kinetic = map(float, state["energies"])
        self.finite = bool(np.isfinite(state["forces"]).all())
        self.chain.rates[:] = state["thermostat"]
