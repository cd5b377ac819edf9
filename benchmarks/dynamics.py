"""Speed of molecular dynamics by engine and number of replicas, on a CPU or GPU.

Untrained networks of the paper's and the demo's size move carbon at constant energy: with ASE one
replica at a time, with torch-sim several in one batch. Rounds of all engines alternate in one
process, and the best of each counts: other work on the machine hardly changes the ratios. On a CPU
the benchmark uses one thread and measures processor time.

    python benchmarks/dynamics.py [--networks paper demo] [--batches 1 2 4 8] [--form compiled]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from pretraining.dynamics.engines import AseEngine, Settings, thermalise
from pretraining.dynamics.torchsim_engine import Batch, load_batch_model
from pretraining.study.generation import Stage
from pretraining.study.settings import settings_of
from pretraining.training.device import device_name, resolve_device
from pretraining.training.network.builders import network_config
from pretraining.training.network.checkpoint import make_module, save_model
from pretraining.training.predict import compiled_network, load_calculator

FORMS = ("modules", "compiled")
# Layers and features of the network, and the cell: 200 and 64 atoms.
NETWORKS = {"paper": (4, 32, (5, 5, 8)), "demo": (2, 16, (4, 4, 4))}
SETTINGS = Settings(timestep_fs=0.5)
STAGE = Stage(300, 300, 10**9)
SPACING = 2.37  # Å, of a simple cubic lattice of 1.5 g/cm³


def structure(repeat: tuple[int, int, int], replica: int) -> Atoms:
    """Return a rattled lattice with velocities."""
    atoms = bulk("C", "sc", a=SPACING) * repeat
    rng = np.random.default_rng(replica)
    atoms.positions += rng.normal(0, 0.15, atoms.positions.shape)
    thermalise(atoms, 300, rng)
    return atoms


def write_model(path: Path, layers: int, features: int) -> None:
    """Write an untrained model."""
    network = {"num_layers": layers, "num_features": features}
    config = network_config(network, type_names=["C"], avg_num_neighbors=20.0, seed=1)
    save_model(make_module(config, settings_of({}, "direct").training, about={}), path)


def runners(
    model: Path, repeat: tuple[int, int, int], batches: list[int], device: torch.device, form: str
) -> dict[str, tuple[int, Callable[[int], None]]]:
    """Return the number of replicas and the function that advances them, by row."""
    atoms = structure(repeat, 0)
    atoms.calc = load_calculator(model, device=device)
    batched = load_batch_model(model, device)
    if form == "compiled":
        for calculator in (atoms.calc, batched):
            calculator.model = compiled_network(calculator.model, model, atoms, print)
    engine = AseEngine(atoms, SETTINGS)
    engine.start(0, STAGE, 0)
    found = {"ase": (1, engine.advance)}
    for n in batches:
        batch = Batch(batched, [structure(repeat, k) for k in range(n)], SETTINGS)
        for system in batch.systems:
            system.start(0, STAGE, 0)
        found[f"torch-sim, {n}"] = n, batch.advance
    return found


def measure(
    rows: dict[str, tuple[int, Callable[[int], None]]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Return the time of a step of all replicas of a row, s."""
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    best: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, (replicas, advance) in rows.items():
            # All rounds do the same work; the first is a warm-up.
            steps = max(2, 40 // replicas) if on_gpu else max(1, 8 // replicas)
            begun = clock()
            advance(steps)
            if on_gpu:
                torch.cuda.synchronize()
            seconds = (clock() - begun) / steps
            if number:
                best[name] = min(seconds, best.get(name, seconds))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--form", choices=FORMS, default="modules", help="NequIP's, or compiled")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    torch.set_num_threads(1)
    print(f"{device_name(device)}, networks as {arguments.form}")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.networks:
            layers, features, repeat = NETWORKS[name]
            model = Path(folder) / f"{name}.ckpt"
            write_model(model, layers, features)
            rows = runners(model, repeat, arguments.batches, device, arguments.form)
            seconds = measure(rows, arguments.rounds, device)
            n_atoms = int(np.prod(repeat))
            print(f"{name}'s network, {n_atoms} atoms a replica")
            for row, (replicas, _) in rows.items():
                speed = n_atoms * replicas / seconds[row]
                ratio = speed * seconds["ase"] / n_atoms
                print(
                    f"  {row:14} {1000 * seconds[row]:8.1f} ms a step {speed:9.0f} atom-steps/s "
                    f"{ratio:6.2f} times ase"
                )


if __name__ == "__main__":
    main()
