"""sp2 carbon: graphite, sheared and rippled stacks of graphene, bundles of narrow nanotubes."""

from __future__ import annotations

import sys

import numpy as np
from ase import Atoms
from ase.build import nanotube
from structures import bare, spread, thermostatted, usable

DRIVER = "lcbop_lammps"
# Trajectories of each kind.
FAMILIES = {"nanotube": 10, "graphite": 4, "sheared": 4, "rippled": 4, "stacked-graphene": 3}
FRAMES = 3  # kept of each trajectory
STEPS = 60  # of 0.5 fs, from frame to frame
MIN_DISTANCE = 1.1  # Å

LATTICE = 2.447  # Å, of graphene in LDA
TUBES = ((3, 0), (2, 2), (3, 3))  # 12, 8 and 12 atoms in the shortest cell
SHEET = np.array([[0, 0], [0.5, 1 / 6], [0.5, 0.5], [0, 2 / 3]])  # fractions of (a, a √3)


def sheet(repeats: tuple[int, int], spacing: float) -> Atoms:
    """One layer of graphene in a rectangular cell of height `spacing` (Å), 4 atoms a repeat."""
    positions = [(x, y, 0.5) for x, y in SHEET]
    cell = [LATTICE, LATTICE * np.sqrt(3), spacing]
    return Atoms("C4", scaled_positions=positions, cell=cell, pbc=True) * (*repeats, 1)


def sheared(rng: np.random.Generator, atoms: Atoms) -> Atoms:
    """The stack with a third cell vector that moves every layer sideways by the same vector."""
    cell = atoms.cell.array.copy()
    cell[2, :2] = rng.uniform(-0.5, 0.5, 2) * [LATTICE, LATTICE * np.sqrt(3)]
    atoms.set_cell(cell)
    return atoms


def rippled(rng: np.random.Generator) -> Atoms:
    """A layer of 8 or 12 atoms, compressed along one axis and waved out of its plane."""
    axis = int(rng.integers(2))
    repeats = [1, 1]
    repeats[axis] = 2 if axis else int(rng.choice([2, 3]))
    atoms = sheet(tuple(repeats), rng.uniform(3.2, 4.2))
    amplitude = rng.uniform(0.2, 0.6)
    phase = 2 * np.pi * (atoms.get_scaled_positions()[:, axis] + rng.random())
    length = atoms.cell.lengths()[axis]
    cell = atoms.cell.array.copy()
    # What keeps the arc as long as the flat layer was, to second order.
    cell[axis] *= 1 - (np.pi * amplitude / length) ** 2
    atoms.set_cell(cell, scale_atoms=True)
    atoms.positions[:, 2] += amplitude * np.sin(phase)
    return sheared(rng, atoms)


def bundle(rng: np.random.Generator, indices: tuple[int, int]) -> Atoms:
    """Parallel nanotubes on a square lattice, 2.9 to 3.7 Å between their walls."""
    tube = nanotube(*indices, length=1, bond=LATTICE / np.sqrt(3))
    tube.pbc = True
    radius = np.linalg.norm(tube.positions[:, :2] - tube.positions[:, :2].mean(axis=0), axis=1)
    width = 2 * radius.mean() + rng.uniform(2.9, 3.7)
    tube.set_cell([width, width, tube.cell[2, 2]])
    tube.rotate(rng.uniform(0, 90), "z")
    return tube


def start(rng: np.random.Generator, kind: str, number: int) -> Atoms:
    """An unstrained structure; `number` counts those of its kind."""
    if kind == "nanotube":
        return bundle(rng, TUBES[number % len(TUBES)])
    if kind == "rippled":
        return rippled(rng)
    layer = sheet((1, 1), rng.uniform(3.0, 3.7))
    if kind == "sheared":
        return sheared(rng, sheet((2, 1), rng.uniform(3.0, 3.7)) if number % 2 else layer)
    stack = layer * (1, 1, 2)
    if kind == "graphite":
        stack.positions[4:, 1] += LATTICE / np.sqrt(3)
    return stack


def make_set(name: str, seed: int, calculator) -> list[Atoms]:
    """Frames of short runs at 300 to 1500 K, each from a strained structure."""
    out: list[Atoms] = []
    kinds = [(kind, n) for kind, count in FAMILIES.items() for n in range(count)]
    for index, (kind, number) in enumerate(kinds):
        rng = np.random.default_rng([seed, index])
        atoms = start(rng, kind, number)
        strain = rng.normal(0, 0.02, (3, 3))
        atoms.set_cell(atoms.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        atoms.calc = calculator
        kelvin = rng.uniform(300, 1500)
        dynamics = thermostatted(rng, atoms, kelvin, 0.5)
        run_id = f"{name}-{index:03d}"
        frames = []
        for frame in range(1, 21):
            dynamics.run(STEPS)
            if usable(atoms, MIN_DISTANCE):
                time = round(frame * STEPS * 0.5 / 1000, 3)
                info = {"run_id": run_id, "time": time, "config_type": kind, "driver": DRIVER}
                frames.append(bare(atoms, **info))
        kept = spread(rng, frames, FRAMES)
        out += kept
        print(
            f"{run_id} {kind} {len(atoms)} atoms, {kelvin:.0f} K: "
            f"{len(kept)} of {len(frames)} usable frames",
            file=sys.stderr,
        )
    return out
