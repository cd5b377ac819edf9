"""Accept results that were copied from elsewhere, as far as they are of this configuration.

Snakemake decides by times, which copying changes, and by what it noted where the results were
made. Here all results get one time, and Snakemake is made to note them as its own (``--touch``).
What is not of this configuration gets an earlier time and no note: Snakemake makes it again, and
all that follows from it, and nothing else.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pretraining.operations.acceptance import Checker, Refusal
from pretraining.operations.portable import changed_settings
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_atomically

# Files that tell by their times what goes on.
APART = {"logs", "state"}
# Snakemake, but it does not pause before each file for the sake of coarse clocks (all files get one
# time afterwards), nor stop at an intermediate file that was not copied.
SNAKEMAKE = """
import sys
from snakemake.cli import main
from snakemake import dag
from snakemake.executors import touch

async def accept(self, job, files):
    pass

touch.Executor.SLEEPING_TIME = 0
dag.DAG.handle_ensure = accept
main(sys.argv[1:])
"""
FILES_A_CALL = 200


def examine(
    config: dict[str, Any], grid: pd.DataFrame
) -> tuple[Checker, list[Refusal], dict[Path, dict[str, Any]]]:
    """Look at all results of a study.

    Returns
    -------
    checker
        With the numbers of training runs.
    refusals
        What is not of this configuration.
    settings
        Settings files to write, and what they should hold.

    Raises
    ------
    UserError
        If there are no results.
    """
    if not (Path(config["results"]) / "settings").is_dir():
        raise UserError(
            f"{config['results']}: no settings/ there; copy the whole folder of results, which "
            "tells by them how they were made"
        )
    checker = Checker(config, grid)
    refusals = [*checker.runs(), *checker.tests(), *checker.dynamics()]
    settings = {}
    for file, wanted, refused in changed_settings(config):
        settings[file] = wanted
        refusals += refused
    return checker, refusals, settings


def accept(
    config: dict[str, Any],
    config_file: Path,
    refusals: Iterable[Refusal],
    settings: dict[Path, dict[str, Any]],
    targets: list[str],
) -> str:
    """Have Snakemake take the results for its own, but for those that are refused.

    Parameters
    ----------
    config, config_file
        The configuration, and the file with it.
    refusals, settings
        As of :func:`examine`.
    targets
        What Snakemake is asked for; nothing stands for its default target.

    Returns
    -------
    str
        What Snakemake would do now.

    Raises
    ------
    UserError
        If Snakemake is at work here, or cannot make sense of the configuration.
    """
    for file, content in settings.items():
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_atomically(file, lambda tmp, text=text: tmp.write_text(text, encoding="utf-8"))
    results = Path(config["results"])
    _set_times(_files(results), time.time())
    options = ["--configfile", str(config_file), "--"]
    touched = _snakemake(
        "--touch", "--forceall", "--cores=1", "--latency-wait=0", *options, *targets
    )
    if touched.returncode:
        raise UserError(f"snakemake --touch: {_last_line(touched.stdout)}")
    refused = [str(file) for refusal in refusals for file in refusal.files]
    for start in range(0, len(refused), FILES_A_CALL):
        files = refused[start : start + FILES_A_CALL]
        _snakemake("--configfile", str(config_file), "--cleanup-metadata", *files)
    now = time.time()
    _set_times(_files(results), now)
    _set_times(map(Path, refused), now - 3600)
    return _snakemake("--dry-run", "--quiet=rules", *options).stdout


def locked(folder: Path) -> bool:
    """Whether a Snakemake is at work in a folder, or was killed there."""
    locks = folder / ".snakemake/locks"
    return locks.is_dir() and any(locks.iterdir())


def _snakemake(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", SNAKEMAKE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "failed")


def _files(results: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(results):
        folders[:] = [name for name in folders if name not in APART]
        yield from (Path(folder) / name for name in names if not name.endswith("running.json"))


def _set_times(files: Iterable[Path], at: float) -> None:
    for file in files:
        os.utime(file, (at, at))
