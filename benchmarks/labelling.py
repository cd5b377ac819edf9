"""Measure how fast label sources label, with one process and with several at once.

    python benchmarks/labelling.py --config config/demo.yaml \\
        --structures resources/demo/synthetic.extxyz --sources lcbop_lammps:200 dft:2

Every process runs `workflow/scripts/label.py` on structures of its own, in the source's own
interpreter; the time of a process that labels one structure is subtracted as start-up.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from ase.io import read

ROOT = Path(__file__).resolve().parents[1]
LABEL = ROOT / "workflow" / "scripts" / "label.py"


def label_at_once(command: list[str], slices: list[str], folder: Path) -> float:
    """Wall time (s) of one labelling process a slice, all at once."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    running = [
        subprocess.Popen(
            [*command, "--index", part, "--out", str(folder / f"{number}.extxyz")],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        for number, part in enumerate(slices)
    ]
    if any([process.wait() for process in running]):
        sys.exit(f"error: {' '.join(command)} failed")
    return time.perf_counter() - started


def measure(config: Path, source: str, structures: Path, count: int, processes: int) -> dict:
    """Start-up time (s) and pace of `processes` processes labelling `count` structures each."""
    entry = yaml.safe_load(config.read_text())["sources"][source]
    command = [entry.get("python", sys.executable), str(LABEL), "--config", str(config)]
    command += ["--source", source]
    slices = [f"{k * count}:{(k + 1) * count}" for k in range(processes)]
    atoms = sum(map(len, read(structures, f":{processes * count}")))
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "reference.json"
        elements = sorted(set(read(structures, 0).get_chemical_symbols()))
        subprocess.run(
            [*command, "--write-reference", str(reference), "--elements", *elements], check=True
        )
        command += ["--reference", str(reference), "--structures", str(structures)]
        startup = label_at_once(
            command, [f"{k * count}:{k * count + 1}" for k in range(processes)], Path(folder)
        )
        wall = label_at_once(command, slices, Path(folder))
    one_each = processes * atoms / (processes * count)
    seconds = max(wall - startup, 1e-9)
    return {"startup": startup, "wall": wall, "pace": (atoms - one_each) / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--structures", type=Path, required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sources", nargs="+", required=True, metavar="SOURCE:COUNT")
    args = parser.parse_args()
    available = len(read(args.structures, ":"))
    print("| source | processes | structures each | one structure, s | all, s | atoms/s |")
    print("|---|---|---|---|---|---|")
    for item in args.sources:
        source, _, count = item.partition(":")
        for processes in args.processes:
            each = min(int(count or 100), available // processes)
            found = measure(args.config, source, args.structures, each, processes)
            print(
                f"| {source} | {processes} | {each} | {found['startup']:.1f} | "
                f"{found['wall']:.1f} | {found['pace']:.3g} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
