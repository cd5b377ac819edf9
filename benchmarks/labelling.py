"""Measure how fast label sources label, and what a large set would cost.

    python benchmarks/labelling.py --config config/demo.yaml \\
        --structures resources/demo/synthetic.extxyz --sources lcbop_lammps:400 dft:2

`workflow/scripts/label.py` labels the first COUNT structures with each number of processes. The
time for one structure a process is subtracted as start-up. The second table assumes that pace
grows with the cores and that an atom costs the same in a larger cell, which DFT does not fulfil.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ase.io import read, write

from pretraining.study.sources import load_source

ROOT = Path(__file__).resolve().parents[1]
LABEL = ROOT / "workflow" / "scripts" / "label.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"}
# The published pre-training set, in round numbers.
ATOMS = 100_000 * 200
CORES = (1, 32, 512)


class Bench:
    """Structures to label and where to leave the labels."""

    def __init__(self, config: Path, structures: Path, folder: Path) -> None:
        self.config = config
        self.frames = read(structures, ":")
        self.folder = folder

    def command(self, source: str) -> list:
        """Start of the command line, with the source's interpreter."""
        python = load_source(self.config, source).python or sys.executable
        return [python, LABEL, "--config", self.config, "--source", source]

    def label(self, source: str, frames: list, *options: str) -> float:
        """Wall time (s) of labelling `frames`."""
        write(self.folder / "in.extxyz", frames, format="extxyz")
        command = self.command(source)
        command += ["--structures", self.folder / "in.extxyz", *options]
        started = time.perf_counter()
        done = subprocess.run(
            [*map(str, command), "--out", str(self.folder / "out.extxyz")],
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr)
        return time.perf_counter() - started

    def measure(self, source: str, count: int, processes: int) -> dict[str, float]:
        """Start-up time and time for `count` structures (s), and atoms a second."""
        frames = self.frames[:count]
        reference = self.folder / "reference.json"
        elements = sorted({symbol for atoms in frames for symbol in atoms.get_chemical_symbols()})
        command = self.command(source)
        command += ["--elements", *elements, "--write-reference", reference]
        subprocess.run([*map(str, command)], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        options = ("--reference", str(reference), "--processes", str(processes))
        startup = self.label(source, frames[:processes], *options)
        wall = self.label(source, frames, *options)
        atoms = sum(map(len, frames[processes:]))
        pace = atoms / max(wall - startup, 1e-9)
        return {"structures": len(frames), "startup": startup, "wall": wall, "pace": pace}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--structures", type=Path, required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sources", nargs="+", required=True, metavar="SOURCE:COUNT")
    args = parser.parse_args()
    costs = []
    print("| source | processes | structures | start-up, s | all, s | atoms/s |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.config.resolve(), args.structures, Path(folder))
        for item in args.sources:
            source, _, count = item.partition(":")
            for processes in args.processes:
                found = bench.measure(source, int(count or 100), processes)
                print(
                    f"| {source} | {processes} | {found['structures']} | {found['startup']:.1f} | "
                    f"{found['wall']:.1f} | {found['pace']:.3g} |",
                    flush=True,
                )
            hours = [ATOMS / found["pace"] * processes / cores / 3600 for cores in CORES]
            costs.append(f"| {source} | {' | '.join(f'{h:.3g}' for h in hours)} |")
    print(f"\nHours for {ATOMS:,} atoms (100,000 structures of 200) on so many cores:\n")
    print(f"| source | {' | '.join(map(str, CORES))} |")
    print("|---|---|---|---|")
    print("\n".join(costs))


if __name__ == "__main__":
    main()
