"""Time dry runs of the paper's grid and of a larger one, and the start of a single job.

Example
-------
    python benchmarks/dry_run.py --runs 703 10000

It needs no data: the configurations are made here. Times are of the processor, and of the clock.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "workflow"))

import yaml

from pretraining.config import read_config, validate_study
from pretraining.grid import grid_table

PARTS = ("Snakefile", "workflow", "envs", "profiles", "resources", "config", "requirements.lock")


def grid_config(runs: int) -> tuple[dict, int]:
    """Return the paper's configuration with as many seeds as make a grid of `runs` trainings."""
    config = read_config(ROOT / "config/config.yaml")
    seeds = 0
    while True:
        number = len(grid_table(validate_study(config, "config.yaml")))
        if number >= runs:
            return config, number
        seeds = max(seeds + 1, round(7 * runs / number) if not seeds else 0)
        for experiment in config["experiments"].values():
            for key in ("finetune_seeds", "direct_seeds"):
                have = experiment.get(key, [1])
                experiment[key] = list(range(1, max(len(have), seeds) + 1))


def timed(folder: Path, *command: str) -> tuple[float, float, str]:
    """Run a command; return its time by the clock and the processor, and its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    process = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    clock = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(process.stdout)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return clock, cpu, process.stdout


def jobs_of(output: str) -> int:
    """Return the number of jobs that a dry run announces."""
    words = next(line.split() for line in output.splitlines() if line.startswith("total"))
    return int(words[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[703, 10_000])
    args = parser.parse_args()

    print("| training runs | jobs | dry run, s | processor, s | jobs/s | finished: dry run, s |", end="")
    print(" start of a job, s | status, s |")
    print("|---|---|---|---|---|---|---|---|")
    for runs in args.runs:
        with tempfile.TemporaryDirectory() as temporary:
            print(row(Path(temporary), runs), flush=True)


def row(folder: Path, runs: int) -> str:
    """Measure one grid in a folder of its own."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    config, number = grid_config(runs)
    (folder / "config/large.yaml").write_text(yaml.safe_dump(config))
    snakemake = ("snakemake", "--configfile", "config/large.yaml")
    clock, cpu, output = timed(folder, *snakemake, "--dry-run", "--quiet", "rules")
    jobs = jobs_of(output)
    # A job on a cluster starts as this one, which reads the Snakefile again for one output.
    target = "results/settings/direct.yaml"
    timed(folder, *snakemake, "--cores", "1", "--", target)
    alone = ("--cores", "1", "--force", "--nolock", "--quiet", "all", "--mode", "remote")
    start, *_ = timed(folder, *snakemake, *alone, "--target-jobs", "settings:part=direct")
    status, *_ = timed(
        folder, sys.executable, "workflow/scripts/status.py", "--config", "config/large.yaml"
    )
    finish(folder)
    done, *_ = timed(folder, *snakemake, "--dry-run", "--quiet", "rules")
    return (
        f"| {number:,} | {jobs:,} | {clock:.1f} | {cpu:.1f} | {jobs / clock:,.0f} | {done:.1f} "
        f"| {start:.1f} | {status:.1f} |"
    )


def finish(folder: Path) -> None:
    """Make an empty file of each output, all of one time."""


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
