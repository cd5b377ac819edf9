"""Survival of the trajectories of an MD stability test: curves, table and page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pretraining.data.geometry import FOLDS, LAYERING, SPACINGS
from pretraining.runtime.errors import UserError, whole
from pretraining.runtime.records import check_output, read_record
from pretraining.runtime.tables import markdown

KINDS = {"direct": "direct", "finetune": "fine-tuned", "pretrain": "pre-trained"}
SP2 = "fold_3"
LAST = 0.1  # final values are means over this last share of a trajectory
# Heads and formats of the page's two tables.
GROUPS = {
    "group": ("models", ""),
    "trajectories": ("trajectories", "d"),
    "survived": ("survived", "d"),
    "share": ("share (%)", ">"),
    "median": ("half have failed at (ps)", "g"),
    "first": ("first failure (ps)", "g"),
    "sp2": ("sp² at the end (%)", ".0f"),
    "layering": ("layering at the end", ".3f"),
}
TRAJECTORIES = {
    "group": ("models", ""),
    "seed": ("seed", "g"),
    "replica": ("replica", "g"),
    "time_ps": ("lasted (ps)", "g"),
    "first_five_fold_ps": ("first 5-fold atom (ps)", "g"),
    "end": ("end", ""),
}
IDENTITY = ("kind", "target", "structures", "transform", "source", "npre", "preseed", "n", "seed")


def kaplan_meier(times: Sequence[float], failed: Sequence[bool]) -> pd.DataFrame:
    """Estimate the surviving share of trajectories from when each ended, and whether it failed.

    Kaplan and Meier, J. Am. Stat. Assoc. 53, 457 (1958): S(t) = Π (1 - d_i/n_i) over the times
    t_i ≤ t of failures, with d_i failures among the n_i trajectories alive just before.
    The standard error is Greenwood's, S √(Σ d_i / n_i (n_i - d_i)).

    Returns
    -------
    pandas.DataFrame
        ``time_ps``, ``at_risk``, ``failures``, ``censored``, ``survival``, ``standard_error``: a
        row for the start and each distinct time, in order.
    """
    times, failed = np.asarray(times, dtype=float), np.asarray(failed, dtype=bool)
    rows = [(0.0, len(times), 0, 0, 1.0, 0.0)]
    share, spread = 1.0, 0.0
    for time in np.unique(times):
        at_risk = int((times >= time).sum())
        failures = int((failed & (times == time)).sum())
        censored = int((~failed & (times == time)).sum())
        share *= 1 - failures / at_risk
        if failures < at_risk:
            spread += failures / (at_risk * (at_risk - failures))
        rows.append((time, at_risk, failures, censored, share, share * np.sqrt(spread)))
    columns = ["time_ps", "at_risk", "failures", "censored", "survival", "standard_error"]
    return pd.DataFrame(rows, columns=columns)


def median_time(curve: pd.DataFrame) -> float:
    """Return the time at which half have failed; infinity if more than half survive."""
    half = curve.loc[curve["survival"] <= 0.5, "time_ps"]
    return float(half.iloc[0]) if len(half) else np.inf


def identity_of(outcome: Path) -> dict[str, str]:
    """Return the model and replica of a trajectory, from the path of its outcome."""
    parts = list(outcome.parts[:-1])
    named = {}
    while "~" in parts[-1]:
        key, value = parts.pop().split("~", 1)
        named[key] = value
    return {"kind": {"imported": "pretrain"}.get(parts[-1], parts[-1])} | named


def summarise(outcomes: Sequence[Path]) -> pd.DataFrame:
    """Return a row for each trajectory of a test.

    Raises a `UserError` if there is no trajectory.

    Returns
    -------
    pandas.DataFrame
        Identity of the model, ``replica``, ``group`` (title of its curve), ``status``,
        ``time_ps``, ``planned_ps``, ``criterion``, ``reason``, ``first_five_fold_ps`` (first time
        with an atom of five neighbours or more, else NaN), ``sp2_start``, ``sp2_end`` and
        ``layering_end`` (means over the last tenth), ``steps_per_second`` and ``folder``.
    """
    if not outcomes:
        raise UserError("no trajectory of this test has ended yet")
    rows = []
    for path in outcomes:
        outcome = read_record(path)
        counts = read_counts(path.parent)
        over = counts[list(FOLDS[5:])].sum(axis=1) > 0
        end = counts[counts["time_ps"] >= (1 - LAST) * counts["time_ps"].iloc[-1]]
        row = dict.fromkeys(IDENTITY, "") | identity_of(path)
        row |= {key: outcome[key] for key in ("status", "time_ps", "planned_ps")}
        row |= {key: outcome[key] or "" for key in ("criterion", "reason")}
        row |= {
            "first_five_fold_ps": counts.loc[over, "time_ps"].min(),
            "sp2_start": counts[SP2].iloc[0] / outcome["n_atoms"],
            "sp2_end": end[SP2].mean() / outcome["n_atoms"],
            "layering_end": end[LAYERING].mean(),
            "steps_per_second": outcome["steps_per_second"],
            "folder": str(path.parent),
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    table.insert(0, "group", groups_of(table))
    for column in ("npre", "n", "seed", "replica"):
        table[column] = pd.to_numeric(table[column])
    rank = table["kind"].map({kind: i for i, kind in enumerate(KINDS)})
    order = ["_rank", "n", "npre", "group", "seed", "replica"]
    ordered = table.assign(_rank=rank).sort_values(order, kind="stable")
    return ordered.drop(columns="_rank").reset_index(drop=True)


def read_counts(folder: str | Path) -> pd.DataFrame:
    """Read a trajectory's atoms by number of neighbours, and its layering."""
    path = Path(folder) / "coordination.csv"
    check_output(path, path.with_name("outcome.json"))
    with whole(path):
        table = pd.read_csv(path)
        return table[["time_ps", *FOLDS, LAYERING]]


def groups_of(table: pd.DataFrame) -> pd.Series:
    """Return the title of each trajectory's curve: its kind, and in what models of it differ."""
    titles = table["kind"].map(KINDS)
    words = {"n": "n = {}", "npre": "npre = {}", "source": "{}", "transform": "{}"}
    for _, part in table.groupby("kind"):
        telling = [column for column in words if part[column].nunique() > 1]
        for column in telling:
            texts = part[column].map(
                lambda value, form=words[column]: form.format(
                    f"{int(value):,}" if str(value).isdigit() else value
                )
            )
            titles.loc[part.index] = titles.loc[part.index] + ", " + texts
    return titles


def survival_curves(table: pd.DataFrame) -> pd.DataFrame:
    """Return the survival curve of each group, in the table's order."""
    curves = []
    for group, part in table.groupby("group", sort=False):
        curve = kaplan_meier(part["time_ps"], part["status"] == "failed")
        curve.insert(0, "group", group)
        curves.append(curve)
    return pd.concat(curves, ignore_index=True)


def as_markdown(table: pd.DataFrame) -> str:
    """Return a page with a summary by group and a line for each trajectory."""
    planned = " or ".join(f"{time:g}" for time in sorted(table["planned_ps"].unique()))
    reasons = table["criterion"] + ": " + table["reason"]
    ends = table.assign(end=reasons.where(table["status"] == "failed", "survived"))
    # Close-packed materials have neither three nor, for the first time, five neighbours.
    covalent = bool(table[["sp2_start", "sp2_end"]].any(axis=None))
    hidden = () if covalent else ("sp2", "first_five_fold_ps")
    groups, single = (
        {key: head for key, head in heads.items() if key not in hidden}
        for heads in (GROUPS, TRAJECTORIES)
    )
    measured = "sp² (three neighbours) and layering are means" if covalent else "Layering is a mean"
    return (
        f"{len(table)} trajectories of {planned} ps. The share that survives is Kaplan and Meier's "
        f"estimate with Greenwood's standard error. {measured} "
        "over the last tenth of each trajectory, failed ones included. Layering is the largest "
        f"peak of the structure factor at {SPACINGS[0]:g}–{SPACINGS[1]:g} Å over the number of "
        "atoms: 1 for perfect layers.\n\n"
        + markdown(_by_group(table), columns=groups)
        + "\n"
        + markdown(ends, columns=single)
    )


def _by_group(table: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for group, part in table.groupby("group", sort=False):
        failed = part["status"] == "failed"
        curve = kaplan_meier(part["time_ps"], failed)
        last = curve.iloc[-1]
        rows.append(
            {
                "group": group,
                "trajectories": len(part),
                "survived": (~failed).sum(),
                "share": f"{100 * last['survival']:.0f} ± {100 * last['standard_error']:.0f}",
                "median": median_time(curve),
                "first": part.loc[failed, "time_ps"].min(),
                "sp2": 100 * part["sp2_end"].mean(),
                "layering": part["layering_end"].mean(),
            }
        )
    return pd.DataFrame(rows).replace(np.inf, np.nan)
