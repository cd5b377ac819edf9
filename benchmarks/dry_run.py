"""Time dry runs of the paper's grid and of a larger one, and the start of a single job.

    python benchmarks/dry_run.py --runs 703 10000

It needs no data. Times are processor times and wall times.
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

import yaml

ROOT = Path(__file__).resolve().parents[1]

PARTS = ("Snakefile", "workflow", "envs", "profiles", "resources", "config", "requirements.lock")


def grid_config(runs: int) -> tuple[dict, int]:
    """Return the paper's configuration with enough seeds for `runs` trainings, and their number."""
    from pretraining.runtime.files import read_yaml
    from pretraining.study.config import validate_study
    from pretraining.study.grid import grid_table

    config = read_yaml(ROOT / "config/config.yaml")
    number = len(grid_table(validate_study(config, "config.yaml")))
    seeds = 1
    while number < runs:
        seeds += 1
        for experiment in config["experiments"].values():
            for key in ("finetune_seeds", "direct_seeds"):
                have = len(experiment.get(key, [1]))
                experiment[key] = list(range(1, max(have, seeds) + 1))
        number = len(grid_table(validate_study(config, "config.yaml")))
    return config, number


def timed(folder: Path, *command: str) -> tuple[float, float, str]:
    """Run a command; return its wall time and processor time (s), and its output."""
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

    head = ("training runs", "jobs", "dry run, s", "processor, s", "jobs/s")
    head += ("dry run when finished, s", "processor, s", "start of a job, s", "status, s")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for runs in args.runs:
        with tempfile.TemporaryDirectory() as temporary:
            print(row(Path(temporary), runs), flush=True)


def row(folder: Path, runs: int) -> str:
    """Measure one grid in its own folder; return a row of the table."""
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
    program = ("workflow/scripts/status.py", "--config", "config/large.yaml")
    status, *_ = timed(folder, sys.executable, *program)
    # A job's own Snakemake reads the Snakefile for one output before the job starts.
    target = "results/settings/direct.yaml"
    start, *_ = timed(folder, *snakemake, "--dry-run", "--quiet", "all", "--", target)
    finish(folder, timed(folder, *snakemake, "--dry-run")[2])
    done, done_cpu, _ = timed(folder, *snakemake, "--dry-run", "--quiet", "rules")
    numbers = f"{clock:.1f} | {cpu:.1f} | {jobs / clock:,.0f} | {done:.1f} | {done_cpu:.1f}"
    return f"| {number:,} | {jobs:,} | {numbers} | {start:.1f} | {status:.1f} |"


def finish(folder: Path, output: str) -> None:
    """Make an empty file for each output that a dry run announces, all with the same time."""
    now = time.time()
    for line in output.splitlines():
        if line.startswith("    output: "):
            for name in line.removeprefix("    output: ").split(", "):
                # Read at the start, if it exists: an empty one is an error.
                if not name.endswith("summary.json"):
                    file = folder / name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()
                    os.utime(file, (now, now))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
