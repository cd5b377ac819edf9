"""What every set of the demo's structures is made with: dynamics of small cells, and selection."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses, atomic_numbers
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from ase.neighborlist import neighbor_list

GRAM_PER_CM3 = units._Nav * 1e-24  # u/Å^3 in 1 g/cm^3 is this number
MAX_DRIVER_FORCE = 40.0  # eV/Å, of the driver


def density_of(atoms: Atoms) -> float:
    """Mass density in g/cm^3."""
    return float(atoms.get_masses().sum() / atoms.get_volume() / GRAM_PER_CM3)


def shortest_distance(atoms: Atoms) -> float:
    """Shortest interatomic distance in Å, periodic images of an atom included."""
    distances = neighbor_list("d", atoms, 3.0)
    return float(distances.min()) if len(distances) else np.inf


def random_start(
    rng: np.random.Generator, element: str, n_atoms: int, density: float, apart: float
) -> Atoms:
    """Random cell of `n_atoms` at `density` (g/cm^3), its atoms kept `apart` (Å).

    The cell's edges and angles vary a little, so that the small cells are not all cubes.
    """
    mass = atomic_masses[atomic_numbers[element]]
    volume = n_atoms * mass / (density * GRAM_PER_CM3)
    for attempt in range(2000):
        cell = np.eye(3) + rng.uniform(-0.08, 0.08, (3, 3))
        cell *= (volume / abs(np.linalg.det(cell))) ** (1 / 3)
        scaled = rng.random((n_atoms, 3))
        atoms = Atoms(f"{element}{n_atoms}", scaled_positions=scaled, cell=cell, pbc=True)
        # The wanted distance relaxes as attempts fail: dense cells have little free room.
        if shortest_distance(atoms) > apart * 0.9995**attempt:
            return atoms
    raise RuntimeError(f"no random start with {n_atoms} atoms at {density:.2f} g/cm^3")


def thermostatted(
    rng: np.random.Generator, atoms: Atoms, kelvin: float, timestep: float
) -> Langevin:
    """Langevin dynamics at constant volume, from momenta drawn at `kelvin`; `timestep` in fs."""
    thermalize_momenta(atoms, temperature_K=kelvin, rng=np.random.RandomState(rng.integers(2**31)))
    return Langevin(
        atoms,
        timestep * units.fs,
        temperature_K=kelvin,
        friction=0.02 / units.fs,
        rng=np.random.RandomState(rng.integers(2**31)),
    )


def melt_quench(
    rng: np.random.Generator,
    atoms: Atoms,
    hot: tuple[float, float],
    annealed: tuple[float, float],
    timestep: float,
    steps: int,
) -> Iterator[tuple[float, str]]:
    """Move `atoms`; yield (time in ps, config_type) at the 30 frames of a melt-quench-anneal run.

    Ten frames of melt, ten of linear quench, ten of anneal, `steps` steps of `timestep` fs from
    frame to frame. The temperatures are drawn from the ranges `hot` and `annealed` (K).
    """
    start, end = rng.uniform(*hot), rng.uniform(*annealed)
    dynamics = thermostatted(rng, atoms, start, timestep)
    for frame in range(1, 31):
        phase = "liquid" if frame <= 10 else "quench" if frame <= 20 else "amorphous"
        fraction = min(max(frame - 10, 0), 10) / 10
        dynamics.set_temperature(temperature_K=start + fraction * (end - start))
        dynamics.run(steps)
        yield frame * steps * timestep / 1000, phase


def usable(atoms: Atoms, min_distance: float) -> bool:
    """Whether a frame is physical enough to be labelled; `min_distance` in Å."""
    forces = atoms.get_forces()
    if not np.isfinite(forces).all() or np.abs(forces).max() > MAX_DRIVER_FORCE:
        return False
    return shortest_distance(atoms) >= min_distance


def bare(atoms: Atoms, **info) -> Atoms:
    """A wrapped copy of the structure alone, with `info`."""
    copy = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    copy.wrap()
    copy.info = {"density": round(density_of(copy), 4), **info}
    return copy


def spread(rng: np.random.Generator, frames: list[Atoms], count: int) -> list[Atoms]:
    """`count` frames, one drawn from each of as many equal stretches of the run."""
    if len(frames) < count:
        return frames
    return [frames[int(rng.choice(part))] for part in np.array_split(np.arange(len(frames)), count)]


def write_set(frames: list[Atoms], seed: int, path: Path) -> None:
    """Write a set with its trajectories in random order, each structure with its index."""
    frames = shuffle_trajectories(frames, seed)
    for index, atoms in enumerate(frames):
        atoms.info["index"] = index
    write(path, frames, format="extxyz")
    print(f"{len(frames)} structures", file=sys.stderr)


def shuffle_trajectories(frames: list[Atoms], seed: int) -> list[Atoms]:
    """Trajectories in random order, so that any first part of a set holds all kinds."""
    runs = list(dict.fromkeys(atoms.info["run_id"] for atoms in frames))
    order = {run: rank for rank, run in enumerate(np.random.default_rng(seed).permutation(runs))}
    return sorted(frames, key=lambda atoms: order[atoms.info["run_id"]])
