"""A study of copper in seconds: two calculators of ASE, a tiny network, a checkout of its own."""

from __future__ import annotations

import ase.io
import numpy as np
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

CONFIG = {
    "results": "results/copper",
    "datasets": {
        "Cu-synthetic": {
            "path": "resources/cu-synthetic.extxyz",
            "structures": 30,
            "split": {"n_val": 4, "n_test": 2},
        },
        "Cu": {
            "path": "resources/cu.extxyz",
            "labels": {"energy": "energy", "forces": "forces"},
            "energy_reference": {"source": "emt"},
            "split": {"n_val": 4, "n_test": 6},
        },
    },
    "sources": {
        "emt": {
            "title": "EMT",
            "kind": "empirical",
            "elements": ["Cu"],
            "calculator": "ase.calculators.emt.EMT",
        },
        "lj": {
            "title": "Lennard-Jones",
            "kind": "empirical",
            "elements": ["Cu"],
            "calculator": "ase.calculators.lj.LennardJones",
            "kwargs": {"sigma": 2.3, "epsilon": 0.4, "rc": 5.0, "smooth": True},
        },
    },
    "labelling": {"chunk_size": 8},
    "network": {"num_layers": 1, "num_features": 4, "cutoff": 3.5},
    "training": {"max_epochs": 3, "device": "cpu", "batch_size": 4},
    "experiments": {
        "fig3": {
            "target": "Cu",
            "structures": "Cu-synthetic",
            "sources": ["emt", "lj"],
            "pretrain_sizes": [12],
            "pretrain_seeds": [1],
            "sizes": [3, 6],
            "finetune_seeds": [1],
            "direct_seeds": [1],
        }
    },
}


def structures(n, seed, labelled):
    """Return strained and rattled cells of four copper atoms."""
    rng = np.random.default_rng(seed)
    frames = []
    for place in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.info["place"] = place
        strain = np.eye(3) + rng.normal(scale=0.03, size=(3, 3))
        atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=(4, 3))
        if labelled:
            atoms.calc = EMT()
            results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
            atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def add_files(checkout):
    """Put the structures where the configuration looks for them."""
    ase.io.write(checkout.folder / "resources/cu-synthetic.extxyz", structures(30, 1, False))
    ase.io.write(checkout.folder / "resources/cu.extxyz", structures(30, 2, True))


def write(checkout, config):
    """Write the configuration."""
    (checkout.folder / "config/copper.yaml").write_text(yaml.safe_dump(config))


def run(checkout, *arguments, check=True):
    """Run Snakemake on two cores."""
    return checkout.snakemake(
        "--configfile", "config/copper.yaml", "--cores", "2", *arguments, check=check
    )


def counts(checkout, *arguments):
    """Return the number of jobs by rule of a dry run."""
    return checkout.job_counts("--configfile", "config/copper.yaml", *arguments)
