"""Select the runs that a table or a figure compares.

A comparison by label source needs one target, set of structures, transform and pre-training size
(by size: one source). Where the caller leaves one open, the value with runs for most of what is
compared is chosen. All seeds are kept, of the pre-training (unless one is given) as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from pretraining.results.runs_table import TRAINED, tested_on, unique_runs
from pretraining.runtime.errors import UserError


@dataclass(frozen=True)
class Selection:
    """Values to select; None leaves one open."""

    target: str | None = None
    source: str | None = None
    structures: str | None = None
    transform: str | None = None
    npre: int | None = None
    preseed: str | None = None


@dataclass(frozen=True)
class Selected:
    """The runs of one comparison.

    Attributes
    ----------
    runs
        Direct and fine-tuning runs, each once.
    untuned
        Pre-trained models on the same target, before fine-tuning.
    sources
        The label sources' own errors on the same target.
    chosen
        The selection, with all that the comparison needs filled in.
    notes
        What was left out, in sentences.
    published
        ``kind``, ``source``, ``npre``, ``metric`` and ``value`` of published errors of label
        sources and of untuned models.
    """

    runs: pd.DataFrame
    untuned: pd.DataFrame
    sources: pd.DataFrame
    chosen: Selection
    notes: tuple[str, ...]
    published: pd.DataFrame | None = None


def select(
    runs: pd.DataFrame,
    wanted: Selection | None = None,
    *,
    compare: str = "source",
    what: str = "runs table",
) -> Selected:
    """Select the runs of one comparison.

    Raises a `UserError` if nothing is left, or the same run is listed twice with different results.

    Parameters
    ----------
    compare
        ``source`` (one pre-training size, all label sources) or ``npre`` (one label source, all
        pre-training sizes).
    what
        The table's name in messages.
    """
    wanted = wanted or Selection()
    trained = _trained(runs, what)
    if wanted.target is None:
        wanted = replace(wanted, target=_choose(trained, "target", compare))
    trained = _where(trained, "target", wanted.target, what)
    direct = trained[trained["kind"] == "direct"]
    tuned = trained[trained["kind"] == "finetune"]
    by_size = compare == "npre"
    one = {"source", "structures", "transform"} if by_size else {"structures", "transform", "npre"}
    notes = []
    for column in ("source", "structures", "transform", "npre", "preseed"):
        value = getattr(wanted, column)
        if tuned.empty or (value is None and column not in one):
            continue
        if value is None:
            value = _choose(tuned, column, compare)
            wanted = replace(wanted, **{column: value})
        before = set(tuned[compare])
        tuned = _where(tuned, column, value, what)
        if left_out := before - set(tuned[compare]):
            names = ", ".join(map(str, sorted(left_out)))
            notes.append(f"{compare} {names} left out: no runs with {column} {value}")
    model = {c: value for c, value in asdict(wanted).items() if c != "target" and value is not None}
    source = {c: value for c, value in model.items() if c == "source"}
    return Selected(
        runs=unique_runs(pd.concat([direct, tuned]), what),
        untuned=tested_on(runs, "pretrain", wanted.target, model),
        sources=tested_on(runs, "source", wanted.target, source),
        chosen=wanted,
        notes=tuple(notes),
    )


def select_each(
    runs: pd.DataFrame,
    wanted: Selection | None = None,
    *,
    compare: str = "source",
    what: str = "runs table",
) -> list[Selected]:
    """Select one comparison per transform (all on the same target), or that of a given one."""
    wanted = wanted or Selection()
    target = wanted.target or _choose(_trained(runs, what), "target", compare)
    rows = runs[(runs["kind"] == "finetune") & (runs["target"] == target)]
    transforms = sorted(rows["transform"].unique(), key=lambda name: (name != "none", name))
    if wanted.transform is not None or not transforms:
        transforms = [wanted.transform]
    return [
        select(runs, replace(wanted, target=target, transform=name), compare=compare, what=what)
        for name in transforms
    ]


def _trained(runs: pd.DataFrame, what: str) -> pd.DataFrame:
    trained = runs[runs["kind"].isin(TRAINED)]
    if trained.empty:
        raise UserError(f"{what}: no row of kind direct or finetune")
    return trained


def _choose(rows: pd.DataFrame, column: str, over: str):
    """The value of `column` with rows for most values of `over`, then with the most rows.

    Of tied pre-training sizes the largest is chosen, however many runs each has.
    """
    values = rows.groupby(column)[over].agg(["nunique", "size"])

    def rank(value):
        spread, size = values.loc[value]
        return (-spread, -value) if column == "npre" else (-spread, -size, value != "none", value)

    return min(values.index, key=rank)


def _where(rows: pd.DataFrame, column: str, value, what: str) -> pd.DataFrame:
    kept = rows[rows[column] == value]
    if kept.empty:
        there = ", ".join(str(v) for v in sorted(rows[column].unique()))
        raise UserError(f"{what}: no runs with {column} {value!r}; there are: {there}")
    return kept


def sets_tested(runs: pd.DataFrame, target: str) -> list[str]:
    """The target, and the other datasets that its models were tested on."""
    there = runs[(runs["kind"] == "transfer") & (runs["trained_on"] == target)]
    return [target, *sorted(there["target"].unique())]


def on_test_set(runs: pd.DataFrame, target: str, tested: str) -> pd.DataFrame:
    """The runs on a target with their errors on the dataset `tested`.

    Rows of kind ``transfer`` become direct and fine-tuned runs of `tested`.
    """
    if tested == target:
        return runs
    there = runs[runs["target"] == tested]
    moved = there[(there["kind"] == "transfer") & (there["trained_on"] == target)]
    kind = moved["source"].map(lambda source: "direct" if source == "none" else "finetune")
    others = there[there["kind"].isin(("pretrain", "source"))]
    return pd.concat([moved.assign(kind=kind, trained_on=""), others], ignore_index=True)


def nearest_size(selections: Sequence[Selected], wanted: int) -> int:
    """The number of structures with runs that is nearest, as a ratio, to the wanted one."""
    sizes = sorted({int(n) for selected in selections for n in selected.runs["n"]}, reverse=True)
    return min(sizes, key=lambda n: abs(np.log(n / wanted)))
