"""Speed of training on a CPU or a GPU: this project against plain ``nequip-train``.

Both train the paper's network on the same structures with the same batches and validation, in
processes of their own and in turn. Each is run for one epoch and for several: the difference gives
the time of an epoch, what is left the start and the end. Time is the wall clock's on a GPU; on a
CPU it is the processor's, one thread, which other work on the machine disturbs little.

    python benchmarks/training.py [--device cuda] [--parts step run ...] [--data FILE.extxyz]

Programs that are not in the user's cache are compiled first, and the time of that is told; with an
empty folder in PRETRAINING_COMPILE_CACHE all of them are.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from statistics import median
from unittest.mock import patch

import pandas as pd
import torch

ROOT = Path(__file__).resolve().parents[1]

from training_runs import LARGE, OWN, PLAIN, Bench, cells, read  # noqa: E402
from training_steps import (  # noqa: E402
    Work,
    bandwidth,
    count_eager,
    count_program,
    launch_rate,
    profile_gpu,
)

from pretraining.training.compiled.compile_cache import CACHE_VARIABLE  # noqa: E402
from pretraining.training.device import device_name, resolve_device  # noqa: E402

PARTS = ("step", "run", "large", "small", "start", "grid")
PUBLISHED = ROOT / "resources" / "published" / "training-cost.csv"
SEEDS = 5
# Structures that validate a run of the paper.
N_VAL = 100
# This project's long runs have so many times more epochs, to be timed as well.
MORE = 5


class Parts:
    """The parts of the benchmark, each a method that prints what it finds."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.arguments = arguments
        self.device = resolve_device(arguments.device)
        self.on_gpu = self.device.type == "cuda"
        self.network = {"num_layers": arguments.layers, "num_features": arguments.features}
        self.bench = Bench(folder, self.device, self.network)
        self.packing = 1.0
        self.work = Work(self.network, self.frames(20), self.device)
        begun = time.monotonic()
        self.traced = count_program(self.work)
        self.work.compile()
        self.compiling = 0.0 if self.traced is None else time.monotonic() - begun

    def frames(self, n: int) -> list:
        """Structures such as those of C-GAP-17."""
        if self.arguments.data is None:
            return list(cells(n))
        frames = read(self.arguments.data)
        if len(frames) < n:
            sys.exit(f"{self.arguments.data} has {len(frames)} structures; {n} are needed")
        return frames[:n]

    def step(self) -> None:
        """Where the time of a step goes, its kernels, and how near the device's limits it is."""
        plain = Work(self.network, self.frames(20), self.device)
        found = {"modules": plain.parts, "compiled": self.work.parts}
        for name, seconds in found["modules"].items():
            ours = found["compiled"][name]
            print(f"{name:27} {1e3 * seconds:9.2f} ms {1e3 * ours:9.2f} ms {seconds / ours:6.2f}")
        if self.traced is None and self.arguments.trace:
            with tempfile.TemporaryDirectory() as empty, patch.dict(os.environ):
                os.environ[CACHE_VARIABLE] = empty
                self.traced = count_program(Work(self.network, self.frames(20), self.device))
        counts = {"modules": count_eager(plain.forward_and_gradients)}
        if self.traced is not None:
            counts["compiled"] = self.traced
        seconds = {name: parts["forward and gradients"] for name, parts in found.items()}
        limits = bandwidth(self.device), launch_rate(self.device)
        print(f"limits: {limits[0] / 1e9:.0f} GB/s, {limits[1] / 1e3:.0f} thousand kernels/s")
        for name, (kernels, moved) in counts.items():
            shares = moved / seconds[name] / limits[0], kernels / seconds[name] / limits[1]
            print(
                f"forward and gradients, {name}: {kernels} kernels, {moved / 1e9:.2f} GB; "
                f"{shares[0]:.1%} of the bandwidth, {shares[1]:.1%} of the launch rate"
            )
        if self.on_gpu:
            for name, work in (("modules", plain), ("compiled", self.work)):
                kernels, busy = profile_gpu(work.step)
                share = busy / found[name]["whole step"]
                print(f"whole step, {name}: {kernels:.0f} kernels, GPU busy {share:.0%}")

    def run(self) -> None:
        """Goal 1: one run in steady state."""
        n = self.arguments.structures
        frames = self.frames(n + n // 2)
        self._compare(frames, n, self.arguments.seen // n)

    def large(self) -> None:
        """Goal 3: cells of 200 atoms."""
        n = self.arguments.structures // 2
        self._compare(list(cells(n + n // 4, LARGE)), n, self.arguments.seen // n // 2)

    def _compare(self, frames: list, n: int, epochs: int) -> None:
        n_val = len(frames) - n
        data = self.bench.write(frames, n_val, [n])
        costs = self.bench.costs(data, n, self._more(epochs), self.arguments.repeats)
        atoms = sum(len(frame) for frame in frames[n_val:])
        print(f"{n} structures, {atoms / n:.0f} atoms each, validation on {n_val}")
        for program, cost in costs.items():
            print(
                f"{program:13} {cost.epoch:8.2f} s an epoch {n / cost.epoch:9.2f} structures/s "
                f"{atoms / cost.epoch:9.0f} atoms/s; start and end {cost.start:5.1f} s"
            )
        print(f"ratio {costs[PLAIN].epoch / costs[OWN].epoch:.2f}")

    def _more(self, epochs: int) -> dict[str, int]:
        """Epochs that the longer runs have more."""
        return {PLAIN: max(1, epochs), OWN: MORE * max(1, epochs)}

    def small(self) -> None:
        """Goal 2: several seeds of small runs."""
        sizes, jobs = self.arguments.sizes, self.arguments.jobs
        epochs = self.arguments.small_epochs
        frames = self.frames(max(sizes) + self.arguments.validation)
        data = self.bench.write(frames, self.arguments.validation, sizes)
        direct = pd.read_csv(PUBLISHED).query("kind == 'direct' and target == 'C-GAP-17'")
        published = direct.set_index("n")["epochs_median"]
        totals = dict.fromkeys((PLAIN, OWN), 0.0)
        alone = 0.0
        for n in sizes:
            costs = self.bench.costs(data, n, self._more(self.arguments.seen // n), 1)
            alone += SEEDS * costs[OWN].of(epochs)
            for program, cost in costs.items():
                totals[program] += SEEDS * cost.of(published[n])
                said = f"{cost.start:6.1f} s + {cost.epoch:6.3f} s an epoch"
                print(f"{n:4} structures, {program:13} {said}, {published[n]} epochs")
        print(
            f"{SEEDS} seeds of each with the published epochs, validation on "
            f"{self.arguments.validation}, from one seed and few epochs"
        )
        if jobs > 1:
            self.packing = alone / self._packed(data, sizes, epochs, jobs)
            print(f"{jobs} at a time, {epochs} epochs: {self.packing:.2f} times as many an hour")
        totals[OWN] = self.compiling + totals[OWN] / self.packing
        for program, seconds in totals.items():
            print(f"{program:13} {3600 * SEEDS * len(sizes) / seconds:8.1f} runs an hour")
        compiling = f"{self.compiling:.0f} s of compiling included"
        print(f"ratio {totals[PLAIN] / totals[OWN]:.2f}, {compiling}")

    def _packed(self, data: Path, sizes: list[int], epochs: int, jobs: int) -> float:
        """Wall time of all runs, several at a time."""
        commands = [
            self.bench.command(OWN, data, n, epochs, seed)
            for n in sorted(sizes, reverse=True)
            for seed in range(1, SEEDS + 1)
        ]
        begun = time.monotonic()
        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(self.bench.execute, commands))
        return time.monotonic() - begun

    @cached_property
    def ready(self) -> float:
        """Wall time from the start of a run's process to its first step."""
        data = self.bench.write(self.frames(50), 25, [25])
        said = [self.bench.execute(self.bench.command(OWN, data, 25, 1)) for _ in range(3)]
        return median(float(re.search(r"ready after ([\d.]+) s", text)[1]) for text in said)

    def start(self) -> None:
        """Goal 5: time to the first step."""
        print(f"ready for the first step after {self.ready:.1f} s")

    def grid(self) -> None:
        """Goal 4: hours of the paper's grid."""
        table = pd.read_csv(PUBLISHED)
        large = Work(self.network, list(cells(10, LARGE)), self.device)
        large.compile()
        parts = self.work.parts, large.parts
        of_large = table["kind"] == "pretrain"
        sizes = table["npre"].where(of_large, table["n"])
        steps = (sizes / 10).apply(lambda n: -(-n // 1))
        one, validation = (
            of_large.map({False: parts[0][name], True: parts[1][name]})
            for name in ("whole step", "validation of a structure")
        )
        epoch = steps * one + N_VAL * validation
        seconds = self.ready + table["epochs_median"] * epoch
        total = (table["runs"] * seconds).sum() / self.packing
        count = (table["runs"] * table["epochs_median"] * steps).sum()
        print(
            f"{table['runs'].sum()} runs, {count / 1e6:.1f} million steps, validation on {N_VAL}, "
            f"{self.packing:.2f} times as fast by packing: {total / 3600:.1f} hours, "
            f"{1e3 * total / count:.1f} ms a step with all else"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    add("--data", type=Path, help="labelled structures (extended XYZ), not generated ones")
    add("--trace", action="store_true", help="count kernels also if that takes compiling anew")
    add("--structures", type=int, help="that a run is trained on (GPU 400, CPU 40)")
    add("--seen", type=int, help="structures that longer runs see more (GPU 1600, CPU 80)")
    add("--repeats", type=int, default=1, help="of the comparisons; medians count")
    add("--sizes", nargs="+", type=int, help="of small runs (GPU 25 100 400, CPU 25 100)")
    add("--small-epochs", type=int, help="of the small runs side by side (GPU 60, CPU 5)")
    add("--validation", type=int, help="structures that validate small runs (GPU 100, CPU 20)")
    add("--jobs", type=int, help="small runs at a time (GPU 8, CPU 1)")
    add("--layers", type=int, default=4, help="of the network")
    add("--features", type=int, default=32, help="of the network")
    arguments = parser.parse_args()
    gpu = resolve_device(arguments.device).type == "cuda"
    defaults = {"structures": (400, 40), "seen": (1600, 80), "small_epochs": (60, 5)}
    defaults |= {"validation": (N_VAL, 20), "jobs": (8, 1), "sizes": ([25, 100, 400], [25, 100])}
    for name, (on_gpu, on_cpu) in defaults.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, on_gpu if gpu else on_cpu)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        parts = Parts(arguments, Path(folder))
        print(f"{device_name(parts.device)}, torch {torch.__version__}, {arguments}")
        for name in PARTS:
            if name in arguments.parts:
                method = getattr(parts, name)
                print(f"\n== {name}: {method.__doc__.splitlines()[0]}", flush=True)
                method()


if __name__ == "__main__":
    main()
