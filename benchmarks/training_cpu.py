"""Speed of training on the CPU: this project's loop against plain ``nequip-train``.

Both train the paper's network on the same 64-atom cells, with the same batches and validation, in
processes of their own and in turn, this project's with compiled convolutions and without. Each is
run for one epoch and for several: the difference gives the time of an epoch, what is left the start
and the end. Compiling, once on a machine, comes before and is timed apart. Time is the
processor's, which on an idle machine is the wall clock's (one thread), and on a busy one is hardly
disturbed.

    python benchmarks/training_cpu.py [--structures 40] [--epochs 4] [--repeats 1]
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import ase.io
import numpy as np
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

WORKFLOW = Path(__file__).resolve().parents[1] / "workflow"
sys.path.insert(0, str(WORKFLOW))

from pretraining.builders import network_config  # noqa: E402
from pretraining.store import Store  # noqa: E402

N_VAL = 20
CUTOFF = 4.0
COMPILED = "this project"


def cells(n: int) -> Iterator[Atoms]:
    """Rattled cells of 64 atoms with about 31 neighbours within 4 Å, as in C-SYNTH-23M.

    The labels are of a Lennard-Jones potential: they do not matter for the speed.
    """
    generator = np.random.default_rng(0)
    for _ in range(n):
        atoms = bulk("C", "sc", a=2.05) * (4, 4, 4)
        atoms.positions += generator.normal(0, 0.15, atoms.positions.shape)
        atoms.calc = LennardJones(sigma=1.8, epsilon=0.2, rc=CUTOFF)
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        yield atoms


def own_command(folder: Path, n: int, epochs: int, network: dict, kernels: str) -> list[str]:
    """Command of this project's training."""
    training = {"device": "cpu", "max_epochs": epochs, "kernels": kernels}
    settings = {"network": network, "training": training}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    script = str(WORKFLOW / "scripts" / "train.py")
    options = f"--kind direct --data data.h5 --n {n} --seed 1 --settings settings.yaml --out own"
    return [sys.executable, script, *options.split()]


def nequip_command(folder: Path, n: int, epochs: int, network: dict, average: float) -> list[str]:
    """Command of ``nequip-train`` with the same network, data and procedure."""
    model = network_config(network, type_names=["C"], avg_num_neighbors=average, seed=1)
    data = "nequip.data"
    config = {
        "run": ["train"],
        "data": {
            "_target_": f"{data}.datamodule.ASEDataModule",
            "seed": 1,
            "train_file_path": "train.extxyz",
            "val_file_path": "val.extxyz",
            "transforms": [
                {
                    "_target_": f"{data}.transforms.ChemicalSpeciesToAtomTypeMapper",
                    "model_type_names": ["C"],
                },
                {"_target_": f"{data}.transforms.NeighborListTransform", "r_max": CUTOFF},
            ],
            "train_dataloader": {
                "_target_": "torch.utils.data.DataLoader",
                "batch_size": 10,
                "shuffle": True,
            },
            "val_dataloader": {"_target_": "torch.utils.data.DataLoader", "batch_size": 20},
        },
        "trainer": {
            "_target_": "lightning.Trainer",
            "accelerator": "cpu",
            "max_epochs": epochs,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
        },
        "training_module": {
            "_target_": "nequip.train.EMALightningModule",
            "ema_decay": 0.99,
            "loss": {
                "_target_": "nequip.train.EnergyForceLoss",
                "per_atom_energy": True,
                "coeffs": {"total_energy": 4.0, "forces": 1.0},
            },
            "val_metrics": {
                "_target_": "nequip.train.EnergyForceMetrics",
                "coeffs": {"per_atom_energy_rmse": None, "forces_rmse": 1.0},
            },
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.01},
            "model": model,
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    program = str(Path(sys.executable).with_name("nequip-train"))
    return [program, "-cp", str(folder), "-cn", "config"]


def seconds_of(command: list[str], folder: Path) -> float:
    """Run a command and return the processor time that it took."""
    environment = os.environ | {"PYTHONPATH": str(WORKFLOW), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, default=40, help="training structures")
    parser.add_argument("--epochs", type=int, default=4, help="of the longer of two runs")
    parser.add_argument("--repeats", type=int, default=1, help="of everything; the median counts")
    parser.add_argument("--layers", type=int, default=4, help="of the network")
    parser.add_argument("--features", type=int, default=32, help="of the network")
    arguments = parser.parse_args()
    n = arguments.structures
    network = {"num_layers": arguments.layers, "num_features": arguments.features}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frames = list(cells(n + N_VAL))
        Store.write(folder / "data.h5", frames, n_val=N_VAL, n_test=0)
        ase.io.write(folder / "val.extxyz", frames[:N_VAL])
        ase.io.write(folder / "train.extxyz", frames[N_VAL:])
        commands = {
            COMPILED: lambda epochs: own_command(folder, n, epochs, network, "always"),
            "not compiled": lambda epochs: own_command(folder, n, epochs, network, "never"),
            "nequip-train": lambda epochs: nequip_command(folder, n, epochs, network, 31.0),
        }
        print(f"first run: {seconds_of(commands[COMPILED](1), folder):.0f} s, compiling included")
        times: dict[tuple[str, int], list[float]] = {}
        for _ in range(arguments.repeats):
            for epochs in (1, arguments.epochs):
                for program, command in commands.items():
                    seconds = seconds_of(command(epochs), folder)
                    times.setdefault((program, epochs), []).append(seconds)

    print(
        f"{n} structures of 64 atoms, validation on {N_VAL}, {arguments.epochs} epochs, one thread"
    )
    epoch = {}
    for program in commands:
        short, long = (median(times[program, epochs]) for epochs in (1, arguments.epochs))
        epoch[program] = (long - short) / (arguments.epochs - 1)
        print(
            f"{program:13} {n / epoch[program]:7.2f} structures/s {epoch[program]:7.2f} s an epoch "
            f"{short - epoch[program]:7.1f} s before and after"
        )
    for program in (COMPILED, "not compiled"):
        ratio = epoch["nequip-train"] / epoch[program]
        print(f"{program}: {ratio:.2f} times as fast as nequip-train")


if __name__ == "__main__":
    main()
