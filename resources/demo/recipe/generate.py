"""Make the demo's carbon structures: melt-quench-anneal molecular dynamics and rattled crystals.

Every trajectory is a small periodic cell with a `run_id` of its own; structures of different sets
never come from the same trajectory. The interatomic potential that drives the dynamics (`driver`)
is any label source of `config/demo.yaml`; the labels come later, from `workflow/scripts/label.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "workflow"))

from pretraining.cli import run
from pretraining.labels import make_calculator
from pretraining.sources import load_source

CARBON_MASS = 12.011  # u
GRAM_PER_CM3 = units._Nav * 1e-24  # u/Å^3 in 1 g/cm^3 is this number
MIN_DISTANCE = 1.1  # Å; nearer pairs are of no use to a small training set
MAX_DRIVER_FORCE = 40.0  # eV/Å, of the driver

# What each set holds: melt-quench trajectories by driver (each with its `timestep` in fs and
# `steps` from frame to frame), `frames` kept of each, crystal families.
SETS = {
    "gap_train": {
        "seed": 1,
        "timestep": 0.5,
        "steps": 200,
        "trajectories": {"lcbop_lammps": 12, "edip_lammps": 4},
        "frames": 3,
        "crystals": 6,
        # Close pairs: what keeps the fitted potential repulsive where no other structure tells.
        "dimers": [0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.6, 2.0],
    },
    "dft": {
        "seed": 2,
        "timestep": 0.5,
        "steps": 200,
        "trajectories": {"lcbop_lammps": 20, "edip_lammps": 6},
        "frames": 4,
        "crystals": 8,
    },
    "synthetic": {
        "seed": 3,
        # quippy takes 15 ms a step whatever the cell, so these runs are shorter.
        "timestep": 1.0,
        "steps": 40,
        "trajectories": {"gap_demo": 22, "lcbop_lammps": 16, "edip_lammps": 8},
        "frames": 9,
        "crystals": 8,
    },
}
CRYSTAL_FRAMES = 3


def density_of(atoms: Atoms) -> float:
    """Mass density in g/cm^3."""
    return float(atoms.get_masses().sum() / atoms.get_volume() / GRAM_PER_CM3)


def shortest_distance(atoms: Atoms) -> float:
    """Shortest interatomic distance in Å, periodic images of an atom included."""
    from ase.neighborlist import neighbor_list

    distances = neighbor_list("d", atoms, 3.0)
    return float(distances.min()) if len(distances) else np.inf


def random_start(rng: np.random.Generator, n_atoms: int, density: float) -> Atoms:
    """Random cell of `n_atoms` at `density` (g/cm^3), its atoms kept apart.

    The cell's edges and angles vary a little, so that the small cells are not all cubes.
    """
    volume = n_atoms * CARBON_MASS / (density * GRAM_PER_CM3)
    for attempt in range(2000):
        cell = np.eye(3) + rng.uniform(-0.08, 0.08, (3, 3))
        cell *= (volume / abs(np.linalg.det(cell))) ** (1 / 3)
        atoms = Atoms(f"C{n_atoms}", scaled_positions=rng.random((n_atoms, 3)), cell=cell, pbc=True)
        # The wanted distance relaxes as attempts fail: dense cells have little free room.
        if shortest_distance(atoms) > 1.6 * 0.9995**attempt:
            return atoms
    raise RuntimeError(f"no random start with {n_atoms} atoms at {density:.2f} g/cm^3")


def melt_quench(
    rng: np.random.Generator,
    calculator,
    n_atoms: int,
    density: float,
    timestep: float,
    steps: int,
) -> Iterator[tuple[Atoms, float, str]]:
    """Yield (atoms, time in ps, config_type) of the 30 frames of one melt-quench-anneal run.

    Langevin dynamics at constant volume, `steps` steps of `timestep` fs from frame to frame:
    ten frames of melt, ten of linear quench, ten of anneal.
    """
    atoms = random_start(rng, n_atoms, density)
    atoms.calc = calculator
    hot, annealed = rng.uniform(4500, 8000), rng.uniform(300, 3500)
    thermalize_momenta(atoms, temperature_K=hot, rng=np.random.RandomState(rng.integers(2**31)))
    dynamics = Langevin(
        atoms,
        timestep * units.fs,
        temperature_K=hot,
        friction=0.02 / units.fs,
        rng=np.random.RandomState(rng.integers(2**31)),
    )
    for frame in range(1, 31):
        phase = "liquid" if frame <= 10 else "quench" if frame <= 20 else "amorphous"
        fraction = min(max(frame - 10, 0), 10) / 10
        dynamics.set_temperature(temperature_K=hot + fraction * (annealed - hot))
        dynamics.run(steps)
        yield atoms, frame * steps * timestep / 1000, phase


def usable(atoms: Atoms) -> bool:
    """Whether a frame is physical enough to be labelled."""
    forces = atoms.get_forces()
    if not np.isfinite(forces).all() or np.abs(forces).max() > MAX_DRIVER_FORCE:
        return False
    return shortest_distance(atoms) >= MIN_DISTANCE


def bare(atoms: Atoms, **info) -> Atoms:
    """A wrapped copy of the structure alone, with `info`."""
    copy = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    copy.wrap()
    copy.info = {"density": round(density_of(copy), 4), **info}
    return copy


def crystal(rng: np.random.Generator, kind: str) -> Atoms:
    """An unstrained 8-atom cell of diamond, graphite or stacked graphene."""
    if kind == "diamond":
        return bulk("C", "diamond", a=3.535, cubic=True)
    a, c = 2.447, rng.uniform(5.4, 7.4)
    shift = 1 / 3 if kind == "graphite" else 0.0
    layer = np.array([[0, 0], [0.5, 1 / 6], [0.5, 0.5], [0, 2 / 3]])
    fractions = [(x, y, 0.0) for x, y in layer] + [(x, (y + shift) % 1, 0.5) for x, y in layer]
    return Atoms("C8", scaled_positions=fractions, cell=[a, a * np.sqrt(3), c], pbc=True)


def crystal_family(rng: np.random.Generator, kind: str) -> Iterator[Atoms]:
    """Yield rattled copies of one strained crystal: what a short trajectory of it would give."""
    base = crystal(rng, kind)
    strain = rng.normal(0, 0.025, (3, 3))
    base.set_cell(base.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    while True:
        atoms = base.copy()
        atoms.positions += rng.normal(0, rng.uniform(0.03, 0.16), atoms.positions.shape)
        yield atoms


def dimers(distances: list[float]) -> Iterator[tuple[Atoms, float]]:
    """Yield (pair of atoms in a wide periodic box, its distance in Å)."""
    for distance in distances:
        atoms = Atoms(
            "C2", positions=[[0, 0, 0], [0, 0, distance]], cell=[8.0, 8.0, 8.0 + distance]
        )
        atoms.pbc = True
        yield atoms, distance


def spread(rng: np.random.Generator, frames: list[Atoms], count: int) -> list[Atoms]:
    """`count` frames, one drawn from each of as many equal stretches of the run."""
    if len(frames) < count:
        return frames
    return [frames[int(rng.choice(part))] for part in np.array_split(np.arange(len(frames)), count)]


def make_set(name: str, sources: Path) -> list[Atoms]:
    """All structures of one set, trajectory by trajectory."""
    plan = SETS[name]
    out: list[Atoms] = []
    number = 0
    for driver, count in plan["trajectories"].items():
        calculator = make_calculator(load_source(sources, driver))
        for _ in range(count):
            rng = np.random.default_rng([plan["seed"], number])
            n_atoms = int(rng.choice([6, 8, 8, 8, 8, 8, 10, 12]))
            density = float(rng.uniform(1.5, 3.5))
            run_id = f"{name}-{number:03d}"
            frames = [
                bare(atoms, run_id=run_id, time=round(time, 3), config_type=phase, driver=driver)
                for atoms, time, phase in melt_quench(
                    rng, calculator, n_atoms, density, plan["timestep"], plan["steps"]
                )
                if usable(atoms)
            ]
            kept = spread(rng, frames, plan["frames"])
            out += kept
            print(
                f"{run_id} {driver} {n_atoms} atoms, {density:.2f} g/cm3: "
                f"{len(kept)} of {len(frames)} usable frames",
                file=sys.stderr,
            )
            number += 1
    for _ in range(plan["crystals"]):
        rng = np.random.default_rng([plan["seed"], number])
        kind = ("diamond", "graphite", "stacked-graphene")[number % 3]
        family = crystal_family(rng, kind)
        run_id = f"{name}-{number:03d}"
        for frame in range(CRYSTAL_FRAMES):
            out.append(
                bare(
                    next(family),
                    run_id=run_id,
                    time=float(frame),
                    config_type=kind,
                    driver="rattle",
                )
            )
        number += 1
    run_id = f"{name}-{number:03d}"
    for atoms, distance in dimers(plan.get("dimers", [])):
        out.append(bare(atoms, run_id=run_id, time=distance, config_type="dimer", driver="stretch"))
    return out


def shuffle_trajectories(frames: list[Atoms], seed: int) -> list[Atoms]:
    """Trajectories in random order, so that any first part of a set holds all kinds."""
    runs = list(dict.fromkeys(atoms.info["run_id"] for atoms in frames))
    order = {run: rank for rank, run in enumerate(np.random.default_rng(seed).permutation(runs))}
    return sorted(frames, key=lambda atoms: order[atoms.info["run_id"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--sources", type=Path, default=ROOT / "config/demo.yaml")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    frames = shuffle_trajectories(make_set(args.set, args.sources), SETS[args.set]["seed"])
    for index, atoms in enumerate(frames):
        atoms.info["index"] = index
    write(args.out, frames, format="extxyz")
    print(f"{len(frames)} structures", file=sys.stderr)


if __name__ == "__main__":
    run(main)
