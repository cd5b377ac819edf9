"""Which of all runs a table or a figure is about.

The runs table holds several targets, structures, transforms and pre-training sizes. A table by
label source needs one of each; what the caller leaves open is chosen by one rule: the value that
most of what is compared (label sources, or pre-training sizes) have runs for. Seeds are no choice:
unless one is asked for, the runs of all pre-training seeds are kept, and are part of the spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pretraining.results.runs_table import TRAINED, unique_runs
from pretraining.runtime.errors import UserError


@dataclass(frozen=True)
class Selection:
    """What is asked for; None leaves it open."""

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
        Rows of kind ``pretrain``: the pre-trained models as they are, on the same target.
    sources
        Rows of kind ``source``: the label sources' own errors on the same target.
    chosen
        The selection with everything filled in that the comparison needs.
    notes
        What was left out, in sentences.
    """

    runs: pd.DataFrame
    untuned: pd.DataFrame
    sources: pd.DataFrame
    chosen: Selection
    notes: tuple[str, ...]


# What a tie between two values is decided by, beyond the number of runs.
_PREFERENCE = {
    "npre": lambda value: -value,
    "transform": lambda value: (value != "none", value),
}


def _choose(rows: pd.DataFrame, column: str, over: str):
    """The value of `column` with rows for most values of `over`, then with the most rows."""
    values = rows.groupby(column)[over].agg(["nunique", "size"])
    prefer = _PREFERENCE.get(column, lambda value: value)
    # Ties between sizes go to the larger one, not to the one that happens to have more runs.
    early, late = (0, -1) if column == "npre" else (-1, 0)
    return min(
        values.index,
        key=lambda v: (
            -values.loc[v, "nunique"],
            early * values.loc[v, "size"],
            prefer(v),
            late * values.loc[v, "size"],
        ),
    )


def _wanted(rows: pd.DataFrame, column: str, value, what: str) -> pd.DataFrame:
    kept = rows[rows[column] == value]
    if kept.empty:
        there = ", ".join(str(v) for v in sorted(rows[column].unique()))
        raise UserError(f"{what}: no runs with {column} {value!r}; there are: {there}")
    return kept


def choose_target(runs: pd.DataFrame, over: str = "source") -> str:
    """The target with the most label sources (or sizes), then with the most runs."""
    trained = runs[runs["kind"].isin(TRAINED)]
    if trained.empty:
        raise UserError("the runs table has no row of kind direct or finetune")
    return _choose(trained, "target", over)


def select(
    runs: pd.DataFrame,
    wanted: Selection | None = None,
    *,
    compare: str = "source",
    what: str = "runs table",
) -> Selected:
    """Pick the runs of one comparison.

    Parameters
    ----------
    runs
        As :func:`pretraining.results.runs_table.read_runs` returns them.
    wanted
        Values asked for.
    compare
        ``source`` (one pre-training size, all label sources) or ``npre`` (one label source, all
        pre-training sizes).
    what
        The table's name in messages.

    Raises
    ------
    UserError
        If nothing is left, or the same run is listed twice with different results.
    """
    wanted = wanted or Selection()
    trained = runs[runs["kind"].isin(TRAINED)]
    if trained.empty:
        raise UserError(f"{what}: no row of kind direct or finetune")
    if wanted.target is None:
        wanted = replace(wanted, target=choose_target(runs, compare))
    trained = _wanted(trained, "target", wanted.target, what)
    direct = trained[trained["kind"] == "direct"]
    tuned = trained[trained["kind"] == "finetune"]
    order = ["structures", "transform"]
    order = ["source", *order] if compare == "npre" else [*order, "npre"]
    if wanted.preseed is not None:
        order.append("preseed")
    if wanted.source is not None and compare == "source":
        order = ["source", *order]
    if wanted.npre is not None and compare == "npre":
        order.append("npre")
    notes = []
    for column in order:
        if tuned.empty:
            break
        value = getattr(wanted, column)
        if value is None:
            value = _choose(tuned, column, compare)
            wanted = replace(wanted, **{column: value})
        before = set(tuned[compare])
        tuned = _wanted(tuned, column, value, what)
        if left_out := before - set(tuned[compare]):
            names = ", ".join(str(name) for name in sorted(left_out))
            notes.append(f"{compare} {names} left out: no runs with {column} {value}")
    kept = unique_runs(pd.concat([direct, tuned]), what)
    untuned = _same(runs, "pretrain", wanted, exact=order)
    sources = _same(runs, "source", wanted, exact=[c for c in order if c == "source"])
    return Selected(kept, untuned, sources, wanted, tuple(notes))


def select_each(
    runs: pd.DataFrame,
    wanted: Selection | None = None,
    *,
    compare: str = "source",
    what: str = "runs table",
) -> list[Selected]:
    """One comparison for each transform that the target has fine-tuning runs for.

    With a transform in `wanted` it is that one alone. Parameters and errors are those of
    :func:`select`.
    """
    wanted = wanted or Selection()
    target = wanted.target or choose_target(runs, compare)
    rows = runs[(runs["kind"] == "finetune") & (runs["target"] == target)]
    transforms = sorted(rows["transform"].unique(), key=_PREFERENCE["transform"])
    if wanted.transform is not None or not transforms:
        transforms = [wanted.transform]
    return [
        select(runs, replace(wanted, target=target, transform=name), compare=compare, what=what)
        for name in transforms
    ]


def _same(runs: pd.DataFrame, kind: str, chosen: Selection, exact: list[str]) -> pd.DataFrame:
    """Rows of `kind` on the chosen target that agree with the chosen values of `exact`."""
    rows = runs[(runs["kind"] == kind) & (runs["target"] == chosen.target)]
    for column in exact:
        value = getattr(chosen, column)
        if value is not None:
            # An empty cell says that the table does not tell this apart.
            rows = rows[(rows[column] == value) | (rows[column] == "")]
    return unique_runs(rows)


def sets_tested(runs: pd.DataFrame, target: str) -> list[str]:
    """The target, and the further datasets that its models were tested on."""
    there = runs[(runs["kind"] == "transfer") & (runs["trained_on"] == target)]
    return [target, *sorted(there["target"].unique())]


def moved_to(runs: pd.DataFrame, target: str, tested: str) -> pd.DataFrame:
    """The models that were trained on a target, with their errors on another test set.

    Rows of kind ``transfer`` become direct and fine-tuned runs of the dataset `tested`, so that
    they are selected and drawn as runs on a target are. Pre-trained models and label sources are
    those of the table.
    """
    if tested == target:
        return runs
    rows = runs[(runs["kind"] == "transfer") & (runs["trained_on"] == target)]
    rows = rows[rows["target"] == tested]
    kind = rows["source"].map(lambda source: "direct" if source == "none" else "finetune")
    others = runs[runs["kind"].isin(("pretrain", "source")) & (runs["target"] == tested)]
    return pd.concat([rows.assign(kind=kind, trained_on=""), others], ignore_index=True)


LABELS = {"energy": "energy RMSE (meV/atom)", "force": "force RMSE (eV/Å)"}


def nearest_size(selections: Sequence[Selected], wanted: int) -> int:
    """The number of structures that was run and is nearest, as a ratio, to the wanted one."""
    sizes = sorted({int(n) for selected in selections for n in selected.runs["n"]}, reverse=True)
    return min(sizes, key=lambda n: abs(np.log(n / wanted)))
