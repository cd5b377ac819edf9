"""Make the tutorial's structures: small cells of aluminium, and of silicon carbide.

A trajectory is a melt-quench-anneal run of a random cell, or a family of rattled copies of one
strained crystal. Its frames share a `run_id`. The labels come later, from
`workflow/scripts/label.py`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_masses, atomic_numbers

# Of resources/demo/recipe, which the Makefile puts on the path.
from structures import (
    GRAM_PER_CM3,
    bare,
    melt_quench,
    random_start,
    shortest_distance,
    spread,
    usable,
    write_set,
)

from pretraining.labels.evaluate import make_calculator
from pretraining.runtime.cli import run
from pretraining.study.sources import load_source

SOURCES = Path(__file__).with_name("sources.yaml")
FRAMES = 3  # of a trajectory
# Volume of an atom in the crystal (Å^3), temperatures (K) of melt and anneal, distances (Å) of a
# random start and below which a frame is of no use to a small training set; what a set holds.
SETS = {
    "al": {
        "seed": 11,
        "timestep": 2.0,  # fs
        "volume": 16.6,
        "hot": (1500, 3500),
        "annealed": (300, 1200),
        "apart": 2.3,
        "min_distance": 1.9,
        "rattle": (0.05, 0.25),
        "drivers": {"emt": 8, "eam": 6},
        "formulas": ["Al7", "Al8", "Al8"],
        "crystals": ["fcc", "fcc", "vacancy", "hcp", "bcc"] * 2 + ["fcc", "vacancy"],
    },
    "sic": {
        "seed": 12,
        "timestep": 1.0,
        "volume": 10.4,
        "hot": (3000, 5000),
        "annealed": (500, 2500),
        "apart": 1.6,
        "min_distance": 1.3,
        "rattle": (0.03, 0.15),
        "drivers": {"erhart": 8, "tersoff": 6},
        "formulas": ["Si4C4"],
        "crystals": ["zincblende", "zincblende", "antisite", "vacancy"] * 4,
    },
}


def prototype(kind: str) -> Atoms:
    """An unstrained crystal of 7 or 8 atoms, within a few per cent of experiment."""
    if kind == "fcc":
        return bulk("Al", "fcc", a=4.05, cubic=True) * (2, 1, 1)
    if kind == "hcp":
        return bulk("Al", "hcp", a=2.86, c=4.72) * (2, 2, 1)
    if kind == "bcc":
        return bulk("Al", "bcc", a=3.24, cubic=True) * (2, 2, 1)
    return bulk("SiC", "zincblende", a=4.36, cubic=True)


def crystal_family(rng: np.random.Generator, name: str, kind: str) -> Iterator[Atoms]:
    """Yield rattled copies of one strained crystal: what a short trajectory of it would give."""
    perfect = {"al": "fcc", "sic": "zincblende"}[name]
    base = prototype(perfect if kind in ("vacancy", "antisite") else kind)
    if kind == "vacancy":
        del base[int(rng.integers(8))]
    if kind == "antisite":
        site = int(rng.integers(8))
        base.symbols[site] = "C" if base.symbols[site] == "Si" else "Si"
    strain = rng.normal(0, 0.025, (3, 3))
    base.set_cell(base.cell @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
    while True:
        atoms = base.copy()
        atoms.positions += rng.normal(0, rng.uniform(*SETS[name]["rattle"]), atoms.positions.shape)
        yield atoms


def random_cell(rng: np.random.Generator, plan: dict, formula: str) -> Atoms:
    """Random cell of a formula, of nearly the crystal's volume or up to a fifth more."""
    symbols = Atoms(formula).get_chemical_symbols()
    volume = plan["volume"] * len(symbols) * rng.uniform(0.95, 1.2)
    mass = atomic_masses[atomic_numbers["Al"]] * len(symbols)
    atoms = random_start(rng, "Al", len(symbols), mass / volume / GRAM_PER_CM3, plan["apart"])
    atoms.symbols = rng.permutation(symbols)
    return atoms


def make_set(name: str) -> list[Atoms]:
    """All structures of one set, trajectory by trajectory."""
    plan = SETS[name]
    out: list[Atoms] = []
    number = 0
    for driver, count in plan["drivers"].items():
        calculator = make_calculator(load_source(SOURCES, driver))
        for _ in range(count):
            rng = np.random.default_rng([plan["seed"], number])
            run_id = f"{name}-{number:03d}"
            formula = plan["formulas"][number % len(plan["formulas"])]
            atoms = random_cell(rng, plan, formula)
            atoms.calc = calculator
            frames = [
                bare(atoms, run_id=run_id, time=round(time, 3), config_type=phase, driver=driver)
                for time, phase in melt_quench(
                    rng, atoms, plan["hot"], plan["annealed"], plan["timestep"], 40
                )
                if usable(atoms, plan["min_distance"])
            ]
            kept = spread(rng, frames, FRAMES)
            out += kept
            print(f"{run_id} {driver} {atoms.symbols}: {len(kept)} frames", file=sys.stderr)
            number += 1
    for kind in plan["crystals"]:
        rng = np.random.default_rng([plan["seed"], number])
        run_id = f"{name}-{number:03d}"
        made = (
            atoms
            for atoms in crystal_family(rng, name, kind)
            if shortest_distance(atoms) >= plan["min_distance"]
        )
        for frame in range(FRAMES):
            info = {"run_id": run_id, "time": float(frame), "config_type": kind}
            out.append(bare(next(made), driver="rattle", **info))
        number += 1
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    write_set(make_set(args.set), SETS[args.set]["seed"], args.out)


if __name__ == "__main__":
    run(main)
