"""Which trainings share a GPU, and what a run that has finished keeps while the others go on.

Trainings that share an allocation of Slurm are one job to Snakemake (a group): if one fails, or the
job is requeued, it calls all of them again, and first deletes their outputs. So each keeps a copy,
which a later process of the same Snakemake run takes back. Another Snakemake run trains anew.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from pretraining.runtime.slurm import PACKED
from pretraining.runtime.stop import say
from pretraining.study.settings import digest

if TYPE_CHECKING:  # not installed where networks are trained
    import pandas as pd

OUTPUTS = ("model.ckpt", "curve.csv", "metrics.json")
KEPT, OWNER = ".finished", "owner"
# In the environment of a Snakemake that goes on after failures.
APART = "PRETRAINING_PACKED_APART"


def packs(
    grid: pd.DataFrame, seconds: dict[str, float], size: int, apart: bool = False
) -> dict[str, str]:
    """Share out the trainings to packs of at most `size` of a kind.

    None takes more than twice as long as another of its pack, and those come together whose
    pre-trainings end at about the same time: a pack starts when all of them have ended.

    Parameters
    ----------
    grid
        Table of :func:`pretraining.study.grid.grid_table`.
    seconds
        Expected time of each run, s, by its path.
    size
        Most runs of a pack.
    apart
        Whether the runs of a pack have the same pre-training, so that none waits for another's.

    Returns
    -------
    dict
        Name of the pack of each run, by the run's path. It depends on nothing but the pack's runs.
    """
    runs = grid[~grid["imported"]].sort_values(["structures", "npre", "n", "seed"], kind="stable")

    def alike(run: tuple) -> tuple[str, int, str]:
        doublings = math.floor(math.log2(max(seconds[run.path], 1.0)))
        return run.kind, doublings, run.parent if apart else ""

    found = {}
    ordered = sorted(runs.itertuples(), key=lambda run: (*alike(run), seconds.get(run.parent, 0.0)))
    for (kind, *_), group in groupby(ordered, alike):
        paths = [run.path for run in group]
        count = math.ceil(len(paths) / size)
        for number in range(count):
            # As many in each as can be.
            pack = paths[number * len(paths) // count : (number + 1) * len(paths) // count]
            found |= dict.fromkeys(pack, f"{kind}s~{digest(pack)[:8]}")
    return found


def keep(folder: Path) -> None:
    """Keep a copy of a run's outputs, if it may share its job with others."""
    owner = os.environ.get(PACKED)
    if owner is None:
        return
    kept = folder / KEPT
    drop(folder)
    try:
        kept.mkdir()
        for name in OUTPUTS:
            _link(folder / name, kept / name)
        (kept / OWNER).write_text(owner, encoding="utf-8")
    except OSError as error:
        # The run has finished all the same.
        say(f"{folder}: no copy was kept ({error}): if its job fails, it is trained again")


def take_back(folder: Path, config_hash: str) -> bool:
    """Put a run's outputs back in place, and return whether they are there.

    Parameters
    ----------
    folder
        The run's folder.
    config_hash
        What its metrics say if it is this very run.
    """
    kept, owner = folder / KEPT, os.environ.get(PACKED)
    try:
        if owner is None or (kept / OWNER).read_text(encoding="utf-8") != owner:
            return False
        metrics = json.loads((kept / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if metrics["config_hash"] != config_hash:
        return False
    try:
        for name in OUTPUTS:
            _link(kept / name, folder / name)
            # Not older than what it was made from, whose times Snakemake may have renewed.
            os.utime(folder / name)
    except OSError:
        return False
    return True


def drop(folder: Path) -> None:
    """Drop the copy of a run's outputs."""
    shutil.rmtree(folder / KEPT, ignore_errors=True)


def drop_all(folders: Iterable[Path]) -> None:
    """Drop the copies of all runs: the Snakemake run ends that could call them again."""
    for folder in folders:
        drop(folder)


def _link(source: Path, target: Path) -> None:
    """Make a hard link, which takes no room; a copy where the file system has none."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
