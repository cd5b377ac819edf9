"""Runs of this project and of plain ``nequip-train`` on the same structures, and their times."""

from __future__ import annotations

import itertools
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import ase.io
import numpy as np
import torch
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from plain_config import plain_config
from training_steps import CUTOFF

from pretraining.data.store import Store
from pretraining.training.network.builders import network_config

WORKFLOW = Path(__file__).resolve().parents[1] / "workflow"
OWN, PLAIN = "this project", "nequip-train"
SMALL, LARGE = (4, 4, 4), (5, 5, 8)  # cells of 64 and 200 atoms


class Cost(NamedTuple):
    """Seconds of a run's start and end, and of an epoch."""

    start: float
    epoch: float

    def of(self, epochs: float) -> float:
        return self.start + epochs * self.epoch


def cells(n: int, repeat: tuple[int, int, int] = SMALL) -> Iterator[Atoms]:
    """Rattled cells with about 31 neighbours an atom within 4 Å, as in C-SYNTH-23M.

    The labels are of a Lennard-Jones potential: they do not matter for the speed.
    """
    generator = np.random.default_rng(0)
    for _ in range(n):
        atoms = bulk("C", "sc", a=2.05) * repeat
        atoms.positions += generator.normal(0, 0.15, atoms.positions.shape)
        atoms.calc = LennardJones(sigma=1.8, epsilon=0.2, rc=CUTOFF)
        yield labelled(atoms, atoms.get_potential_energy(), atoms.get_forces())


def labelled(atoms: Atoms, energy: float, forces: np.ndarray) -> Atoms:
    """A structure with nothing but its labels."""
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.calc = SinglePointCalculator(bare, energy=energy, forces=forces)
    return bare


def read(path: Path) -> list[Atoms]:
    """Read labelled structures, in random order; keys such as ``pbe_energy`` and ``pbe_force``."""
    frames = ase.io.read(path, ":", format="extxyz")
    first = frames[0]
    if first.calc is not None:
        frames = [labelled(a, a.get_potential_energy(), a.get_forces()) for a in frames]
    else:
        energy = next(key for key in first.info if key.endswith("_energy"))
        forces = next(key for key in first.arrays if re.search("_forces?$", key))
        frames = [labelled(a, a.info[energy], a.arrays[forces]) for a in frames]
    return [frames[i] for i in np.random.default_rng(0).permutation(len(frames))]


class Bench:
    """Runs of `nequip-train` and of this project.

    Parameters
    ----------
    folder
        For all files.
    device
        Where they run.
    network
        Of the configuration.
    """

    def __init__(self, folder: Path, device: torch.device, network: dict[str, Any]) -> None:
        self.folder = folder
        self.device = device
        self.network = network
        self._numbers = itertools.count()

    def write(self, frames: Sequence[Atoms], n_val: int, sizes: Iterable[int]) -> Path:
        """Write a set for runs of some sizes and return its folder."""
        data = self.folder / f"data{next(self._numbers)}"
        data.mkdir()
        Store.write(data / "data.h5", frames, n_val=n_val, n_test=0)
        ase.io.write(data / "val.extxyz", frames[:n_val])
        for n in sizes:
            ase.io.write(data / f"train{n}.extxyz", frames[n_val : n_val + n])
        return data

    def command(self, program: str, data: Path, n: int, epochs: int, seed: int = 1) -> list[str]:
        """Command of a run in a new folder."""
        out = self.folder / f"run{next(self._numbers)}"
        out.mkdir()
        if program == OWN:
            training = {"max_epochs": epochs, "patience": epochs + 1, "compile": "always"}
            training |= {"device": self.device.type}
            settings = {"network": self.network, "training": training}
            (out / "settings.yaml").write_text(yaml.safe_dump(settings))
            options = f"--kind direct --data {data}/data.h5 --n {n} --seed {seed} "
            options += f"--settings {out}/settings.yaml --out {out}"
            return [sys.executable, str(WORKFLOW / "scripts" / "train.py"), *options.split()]
        model = network_config(self.network, type_names=["C"], avg_num_neighbors=31.0, seed=seed)
        files = data / f"train{n}.extxyz", data / "val.extxyz"
        config = plain_config(model, *files, epochs, learning_rate=0.01, seed=seed)
        config["trainer"]["accelerator"] = "gpu" if self.device.type == "cuda" else "cpu"
        config["hydra"] = {"run": {"dir": str(out)}}
        (out / "config.yaml").write_text(yaml.safe_dump(config))
        nequip_train = str(Path(sys.executable).with_name("nequip-train"))
        return [nequip_train, "-cp", str(out), "-cn", "config"]

    def execute(self, command: list[str]) -> str:
        """Run a command to its end and return what it said."""
        environment = os.environ | {"PYTHONPATH": str(WORKFLOW), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        return done.stdout + done.stderr

    def seconds(self, command: list[str]) -> float:
        """Run a command and return the seconds that it took."""
        begun = time.monotonic()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.execute(command)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if self.device.type == "cuda":
            return time.monotonic() - begun
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def costs(self, data: Path, n: int, epochs: dict[str, int], repeats: int) -> dict[str, Cost]:
        """Measure runs of one epoch and of as many more as are given for each program."""
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(repeats):
            for program, more in epochs.items():
                for count in (1, 1 + more):
                    command = self.command(program, data, n, count)
                    times.setdefault((program, count), []).append(self.seconds(command))
        found = {}
        for program, more in epochs.items():
            short, long = (median(times[program, count]) for count in (1, 1 + more))
            epoch = (long - short) / more
            found[program] = Cost(short - epoch, epoch)
        return found
