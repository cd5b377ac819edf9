"""Make the demo's structures: melt-quench-anneal molecular dynamics, rattled crystals, layers.

Every trajectory is a small periodic cell with a `run_id` of its own; structures of different sets
never come from the same trajectory. The interatomic potential that drives the dynamics (`driver`)
is any label source of `--sources`; the labels come later, from `workflow/scripts/label.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import layers
import numpy as np
from ase import Atoms
from ase.build import bulk
from structures import bare, melt_quench, random_start, spread, usable, write_set

from pretraining.labels.evaluate import make_calculator
from pretraining.runtime.cli import run
from pretraining.study.sources import load_source

ROOT = Path(__file__).resolve().parents[3]

# Of an element: numbers of atoms to draw from, densities (g/cm^3), temperatures (K) of melt and
# anneal, distances (Å) of a random start and below which a frame is of no use to a small training
# set, crystals.
ELEMENTS = {
    "C": {
        "atoms": [6, 8, 8, 8, 8, 8, 10, 12],
        "density": (1.5, 3.5),
        "hot": (4500, 8000),
        "annealed": (300, 3500),
        "apart": 1.6,
        "min_distance": 1.1,
        "crystals": ("diamond", "graphite", "stacked-graphene"),
    },
    "Si": {
        "atoms": [6, 8, 8, 8, 8],
        "density": (2.1, 2.8),
        "hot": (1800, 4000),
        "annealed": (300, 1500),
        "apart": 2.2,
        "min_distance": 1.9,
        "crystals": ("diamond", "diamond", "beta-tin"),
    },
}
# What each set holds: melt-quench trajectories by driver (each with its `timestep` in fs and
# `steps` from frame to frame), `frames` kept of each, crystal families.
SETS = {
    "gap_train": {
        "element": "C",
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
        "element": "C",
        "seed": 2,
        "timestep": 0.5,
        "steps": 200,
        "trajectories": {"lcbop_lammps": 20, "edip_lammps": 6},
        "frames": 4,
        "crystals": 8,
    },
    "synthetic": {
        "element": "C",
        "seed": 3,
        # quippy takes 15 ms a step whatever the cell, so these runs are shorter.
        "timestep": 1.0,
        "steps": 40,
        "trajectories": {"gap_demo": 22, "lcbop_lammps": 16, "edip_lammps": 8},
        "frames": 9,
        "crystals": 8,
    },
    "silicon": {
        "element": "Si",
        "seed": 4,
        "timestep": 1.0,
        "steps": 100,
        "trajectories": {"sw_lammps": 15, "edip_si_lammps": 9},
        "frames": 3,
        "crystals": 11,
    },
    "graphite": {"seed": 5, "layers": True},
}
CRYSTAL_FRAMES = 3


def crystal(rng: np.random.Generator, element: str, kind: str) -> Atoms:
    """An unstrained 8-atom cell of diamond, beta-tin, graphite or stacked graphene."""
    if kind == "diamond":
        return bulk(element, "diamond", a={"C": 3.535, "Si": 5.40}[element], cubic=True)
    if kind == "beta-tin":
        a, c = 4.80, 2.65
        fractions = [(0, 0, 0), (0.5, 0, 0.25), (0.5, 0.5, 0.5), (0, 0.5, 0.75)]
        return Atoms("Si4", scaled_positions=fractions, cell=[a, a, c], pbc=True) * (1, 1, 2)
    a, c = 2.447, rng.uniform(5.4, 7.4)
    shift = 1 / 3 if kind == "graphite" else 0.0
    layer = np.array([[0, 0], [0.5, 1 / 6], [0.5, 0.5], [0, 2 / 3]])
    fractions = [(x, y, 0.0) for x, y in layer] + [(x, (y + shift) % 1, 0.5) for x, y in layer]
    return Atoms("C8", scaled_positions=fractions, cell=[a, a * np.sqrt(3), c], pbc=True)


def crystal_family(rng: np.random.Generator, element: str, kind: str) -> Iterator[Atoms]:
    """Yield rattled copies of one strained crystal: what a short trajectory of it would give."""
    base = crystal(rng, element, kind)
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


def make_set(name: str, sources: Path) -> list[Atoms]:
    """All structures of one set, trajectory by trajectory."""
    plan = SETS[name]
    if plan.get("layers"):
        return layers.make_set(
            name, plan["seed"], make_calculator(load_source(sources, layers.DRIVER))
        )
    element = plan["element"]
    ranges = ELEMENTS[element]
    out: list[Atoms] = []
    number = 0
    for driver, count in plan["trajectories"].items():
        calculator = make_calculator(load_source(sources, driver))
        for _ in range(count):
            rng = np.random.default_rng([plan["seed"], number])
            n_atoms = int(rng.choice(ranges["atoms"]))
            density = float(rng.uniform(*ranges["density"]))
            run_id = f"{name}-{number:03d}"
            atoms = random_start(rng, element, n_atoms, density, ranges["apart"])
            atoms.calc = calculator
            frames = [
                bare(atoms, run_id=run_id, time=round(time, 3), config_type=phase, driver=driver)
                for time, phase in melt_quench(
                    rng, atoms, ranges["hot"], ranges["annealed"], plan["timestep"], plan["steps"]
                )
                if usable(atoms, ranges["min_distance"])
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
        kind = ranges["crystals"][number % 3]
        family = crystal_family(rng, element, kind)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--sources", type=Path, default=ROOT / "config/demo.yaml")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write_set(make_set(args.set, args.sources), SETS[args.set]["seed"], args.out)


if __name__ == "__main__":
    run(main)
