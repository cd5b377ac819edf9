"""State of a study, as text for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pretraining.runtime.lease import running, worker
from pretraining.study.estimate import expected_seconds, hours_of, on_gpu
from pretraining.study.generation import trajectory_files
from pretraining.study.grid import select, stability_models
from pretraining.study.queries import datasets_read, label_source
from pretraining.training.progress import DONE, STATES, Progress, log_of, modified, run_progress

REMARKS = {"stopped": " (killed, or at a limit; Snakemake resumes them)"}


def run_table(config: dict[str, Any], grid: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return the training runs of a study with their progress.

    `costs` is the table of :func:`pretraining.study.estimate.published_costs`.

    Returns
    -------
    pandas.DataFrame
        The grid without imported weights, with ``progress`` (:class:`Progress`), its ``state``,
        ``measured`` (h) and ``remaining`` (h; 0 of a finished run).
    """
    table = grid[~grid["imported"]].reset_index(drop=True)
    progress = [run_progress(config["results"], path) for path in table["path"]]
    table["progress"] = pd.Series(progress, dtype=object)
    table["state"] = [p.state for p in progress]
    table["measured"] = [p.seconds / 3600 for p in progress]
    table["gpu"] = [on_gpu(config["training"]) if p.on_gpu is None else p.on_gpu for p in progress]
    done = table["state"].isin(DONE)
    finished = (3600 * table["measured"]).where(done & (table["measured"] > 0))
    expected = expected_seconds(config, table, costs, finished) / 3600
    table["remaining"] = (expected - table["measured"]).clip(lower=0).mask(done, 0.0)
    return table


def summary(
    config: dict[str, Any], grid: pd.DataFrame, table: pd.DataFrame, sizes: bool, names: int
) -> str:
    """Return the state of a study, given its grid and the table of :func:`run_table`.

    With `sizes`, each number of structures has its own line. At most `names` runs of one state are
    named.
    """
    counts = table["state"].value_counts()
    states = ", ".join(f"{counts[state]:,} {state}" for state in STATES if state in counts)
    lines = [f"{config['results']}: {len(table):,} training runs: {states}", _hours(table)]
    lines += [hours_of(config, bool(table["state"].isin(DONE).any())), ""]
    lines.append(_counts(table, sizes))
    for state, title in (("running", "Running"), ("failed", "Failed"), ("stopped", "Stopped")):
        rows = table[table["state"] == state]
        if not rows.empty:
            lines += ["", f"{title}{REMARKS.get(state, '')}:"]
            lines += [line for row in rows[:names].itertuples() for line in _named(config, row)]
            if len(rows) > names:
                lines.append(f"  … and {len(rows) - names:,} more (--names {len(rows)})")
    others = [*_labels(config, grid), *_trajectories(config, grid)]
    return "\n".join([*lines, *([""] if others else []), *others])


def _hours(table: pd.DataFrame) -> str:
    done, gpu = table["state"].isin(DONE), table["gpu"]
    sums = {
        "GPU h measured": table.loc[done & gpu, "measured"].sum(),
        "h measured on CPUs": table.loc[done & ~gpu, "measured"].sum(),
        "h in unfinished runs": table.loc[~done, "measured"].sum(),
    }
    parts = [f"{_number(hours)} {what}" for what, hours in sums.items() if hours]
    left = table["remaining"].sum()
    of = "GPU h" if left and gpu[~done].all() else "h"
    return f"{', '.join(parts) or 'nothing measured so far'}; about {_number(left)} {of} left"


def _number(hours: float) -> str:
    return f"{hours:,.{1 if hours >= 10 else 2}f}"


def _counts(table: pd.DataFrame, sizes: bool) -> str:
    """Return a table of runs by kind, data and source."""
    shown = [state for state in STATES if (table["state"] == state).any()]
    of = np.where(table["kind"] == "pretrain", table["structures"], table["target"])
    keys = ["kind", "of", "source", "transform", *(["npre", "n"] if sizes else [])]
    rows = [["", "runs", *shown, "h", "h left"]]
    for key, part in table.assign(of=of).groupby(keys, sort=False):
        counts = part["state"].value_counts()
        words = [word for word in key[:4] if word != "none"]
        words += [f"{name} {n:,}" for name, n in zip(keys[4:], key[4:], strict=True) if n]
        numbers = [str(counts[state]) if state in counts else "·" for state in shown]
        hours = [_number(part["measured"].sum()), _number(part["remaining"].sum())]
        rows.append([" ".join(words), str(len(part)), *numbers, *hours])
    sides = ["left", *["right"] * (len(rows[0]) - 1)]
    return pd.DataFrame(rows).to_markdown(
        index=False, headers=(), tablefmt="plain", colalign=sides, disable_numparse=True
    )


def _named(config: dict[str, Any], row: Any) -> Iterator[str]:
    """Yield the lines of one run that is running, has failed or was stopped."""
    progress: Progress = row.progress
    facts = [] if progress.epoch is None else [f"epoch {progress.epoch}"]
    if progress.phase not in ("", "training"):
        facts.append(progress.phase)
    if progress.seconds:
        facts.append(f"trained for {_time(progress.seconds)}")
    if progress.by:
        facts.append(progress.by)
    if progress.quiet is not None:
        facts.append(f"last word {_time(progress.quiet)} ago")
    name = row.path.removeprefix("runs/")
    yield f"  {name}: {', '.join(facts)}" if facts else f"  {name}"
    if row.state == "failed":
        yield from _failure(config["results"], row.path, progress)


def _failure(results: str, path: str, progress: Progress) -> Iterator[str]:
    """Yield why a run has failed, where its log is, and how to run it again."""
    yield f"    {progress.message or 'it ended without a message: it was killed'}"
    yield f"    log:   {log_of(results, path)}"
    yield f"    again: snakemake [the same options] {results}/{path}/metrics.json"


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def failures(
    config: dict[str, Any], grid: pd.DataFrame, since: float, interrupted: bool = False
) -> str:
    """Return what has failed since a time (s since the epoch), with its cure.

    `interrupted`: the user has stopped Snakemake, and its jobs with it.
    """
    if interrupted:
        return "You interrupted it: start it again with the same command, and it goes on from there"
    lines, logs = [], Path(config["results"], "logs")
    runs = grid.loc[~grid["imported"], "path"]
    of_runs = {log_of(config["results"], path): path for path in runs}
    for log in sorted(logs.rglob("*.log")):
        if modified(log) < since:
            continue
        if path := of_runs.get(log):
            progress = run_progress(config["results"], path)
            # An interrupted run leaves a message; a killed one does not.
            if progress.state == "failed" or (progress.state == "stopped" and not progress.message):
                lines.append(f"  {path.removeprefix('runs/')}")
                lines += _failure(config["results"], path, progress)
        elif message := _error_in(log):
            lines += [f"  {log.relative_to(logs).with_suffix('')}", f"    {message}"]
            lines.append(f"    log:   {log}")
    return "\n".join(["Failed:", *lines]) if lines else ""


def _error_in(log: Path) -> str:
    """Return the last error line of a log without its sign; empty if it has none."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = (line for line in reversed(lines) if line.startswith("error: "))
    return next(errors, "").removeprefix("error: ")


def _labels(config: dict[str, Any], grid: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each dataset and source whose label chunks are computed here."""
    runs, chunk_size = grid[~grid["imported"]], config["labelling"]["chunk_size"]
    sizes: dict[tuple[str, str], int] = {}
    pretrained = select(runs, kind="pretrain").groupby(["structures", "source"])["npre"].max()
    for (dataset, source), npre in pretrained.items():
        if "calculator" in config["sources"].get(source, {}):
            sizes[dataset, source] = npre
    for target, n in runs[runs["target"] != ""].groupby("target")["n"].max().items():
        if source := label_source(config["datasets"][target]):
            sizes[target, source] = max(sizes.get((target, source), 0), n)
    for (dataset, source), size in sizes.items():
        folder = Path(config["results"], "labels", dataset, source, "chunks")
        names = ["eval", *(f"{number:05d}" for number in range(math.ceil(size / chunk_size)))]
        files = [folder / f"{name}.extxyz" for name in names]
        yield _line(f"labels of {dataset} by {source}", "chunks", files, map(running, files))


def _trajectories(config: dict[str, Any], grid: pd.DataFrame) -> Iterator[str]:
    """Yield a line for each generated dataset and each stability test."""
    used = datasets_read(config)
    for name, dataset in config["datasets"].items():
        if "generate" in dataset and name in used:
            files = [Path(file) for file in trajectory_files(config, name)]
            yield _line(f"structures {name}", "trajectories", files, map(running, files))
    for name, test in config["dynamics"].items():
        files = [
            Path(config["results"], "dynamics", name, model, f"replica~{replica}", "outcome.json")
            for model in stability_models(config, grid, name)
            for replica in range(1, test["replicas"] + 1)
        ]
        leases = [file.with_name("running.json") for file in files]
        yield _line(f"dynamics {name}", "trajectories", files, leases)


def _line(what: str, unit: str, files: list[Path], leases: Iterable[Path]) -> str:
    """Count the files that are there, and the missing ones with a process at work."""
    missing = [lease for file, lease in zip(files, leases, strict=True) if not file.is_file()]
    parts = [f"{len(files) - len(missing):,} of {len(files):,} {unit}"]
    if at_work := sum(worker(lease) is not None for lease in missing):
        parts.append(f"{at_work:,} running")
    return f"{what}: {', '.join(parts)}"
