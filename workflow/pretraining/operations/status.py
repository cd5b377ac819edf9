"""Where a study stands, as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from pretraining.operations.other_jobs import other_jobs
from pretraining.study.estimate import estimated_seconds
from pretraining.training.progress import DONE, STATES, Progress, log_of, modified, run_progress

REMARKS = {"stopped": " (killed, or at a limit; Snakemake goes on with them where they were)"}


def run_table(config: dict[str, Any], grid: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of a study that are trained here, and how far each has come.

    Parameters
    ----------
    config
        A validated configuration.
    grid
        Table of :func:`pretraining.study.grid.grid_table`.
    costs
        Table of :func:`pretraining.study.estimate.published_costs`.

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
    table["gpu"] = [p.on_gpu is not False for p in progress]
    done = table["state"].isin(DONE)
    finished = (3600 * table["measured"]).where(done & (table["measured"] > 0))
    expected = estimated_seconds(table, costs, finished) / 3600
    table["remaining"] = (expected - table["measured"]).clip(lower=0).mask(done, 0.0)
    return table


def summary(
    config: dict[str, Any], grid: pd.DataFrame, table: pd.DataFrame, sizes: bool, names: int
) -> str:
    """Return the state of a study.

    Parameters
    ----------
    config
        A validated configuration.
    grid
        Table of :func:`pretraining.study.grid.grid_table`.
    table
        Table of :func:`run_table`.
    sizes
        Whether every size has a line of its own.
    names
        At most so many runs of a state are named.
    """
    counts = table["state"].value_counts()
    told = ", ".join(f"{counts[state]:,} {state}" for state in STATES if state in counts)
    lines = [f"{config['results']}: {len(table):,} training runs: {told}", _hours(table), ""]
    lines += _counts(table, sizes)
    for state, title in (("running", "Running"), ("failed", "Failed"), ("stopped", "Stopped")):
        rows = table[table["state"] == state]
        if not rows.empty:
            lines += ["", f"{title}{REMARKS.get(state, '')}:"]
            lines += [line for row in rows[:names].itertuples() for line in _named(config, row)]
            if len(rows) > names:
                lines.append(f"  … and {len(rows) - names:,} more (--names {len(rows)})")
    others = list(other_jobs(config, grid))
    if others:
        lines += ["", *others]
    return "\n".join(lines)


def _hours(table: pd.DataFrame) -> str:
    done = table["state"].isin(DONE)
    parts = [f"{_number(table.loc[done & table['gpu'], 'measured'].sum())} GPU h measured"]
    for rows, what in ((done & ~table["gpu"], "h on CPUs"), (~done, "h in unfinished runs")):
        hours = table.loc[rows, "measured"].sum()
        if hours:
            parts.append(f"{_number(hours)} {what}")
    return f"{', '.join(parts)}; about {_number(table['remaining'].sum())} h left"


def _number(hours: float) -> str:
    return f"{hours:,.{1 if hours >= 10 else 2}f}"


def _counts(table: pd.DataFrame, sizes: bool) -> Iterator[str]:
    """Yield a table of the numbers of runs by kind, data and source."""
    shown = [state for state in STATES if (table["state"] == state).any()]
    of = np.where(table["kind"] == "pretrain", table["structures"], table["target"])
    table = table.assign(of=of)
    keys = ["kind", "of", "source", "transform", *(["npre", "n"] if sizes else [])]
    rows = [["", "runs", *shown, "h", "h left"]]
    for key, part in table.groupby(keys, sort=False):
        counts = part["state"].value_counts()
        label = " ".join(word for word in key[:4] if word != "none")
        if sizes:
            label += f" npre {key[4]:,}" * bool(key[4]) + f" n {key[5]:,}" * bool(key[5])
        numbers = [str(counts[state]) if state in counts else "·" for state in shown]
        hours = [_number(part["measured"].sum()), _number(part["remaining"].sum())]
        rows.append([label, str(len(part)), *numbers, *hours])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "  ".join(cells).rstrip()


def _named(config: dict[str, Any], row: Any) -> Iterator[str]:
    """Yield what is to be said of one run that is running, has failed or was stopped."""
    progress: Progress = row.progress
    said = [] if progress.epoch is None else [f"epoch {progress.epoch}"]
    if progress.seconds:
        said.append(f"trained for {_time(progress.seconds)}")
    if progress.by:
        said.append(progress.by)
    if progress.quiet is not None:
        said.append(f"last word {_time(progress.quiet)} ago")
    yield f"  {row.path.removeprefix('runs/')}" + f": {', '.join(said)}" * bool(said)
    if row.state == "failed":
        yield from (f"    {line}" for line in failure_lines(config["results"], row.path, progress))


def failure_lines(results: str, path: str, progress: Progress) -> list[str]:
    """Return why a run has failed, where its log is, and how to run only it again."""
    return [
        progress.message or "it ended without a word: it was killed",
        f"log:   {log_of(results, path)}",
        f"again: snakemake [the same options] {results}/{path}/metrics.json",
    ]


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def failures(config: dict[str, Any], grid: pd.DataFrame, since: float) -> str:
    """Return which runs have failed since a time (s since the epoch), each with its cure."""
    lines = []
    for path in grid.loc[~grid["imported"], "path"]:
        if modified(log_of(config["results"], path)) < since:
            continue
        progress = run_progress(config["results"], path)
        # An interrupted run says so; one that says nothing was killed.
        if progress.state == "failed" or (progress.state == "stopped" and not progress.message):
            lines.append(f"  {path.removeprefix('runs/')}")
            lines += [f"    {line}" for line in failure_lines(config["results"], path, progress)]
    return "\n".join(["Training runs that have failed:", *lines]) if lines else ""
