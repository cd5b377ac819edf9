"""Data efficiency: how few DFT-labelled structures a pre-trained model needs.

A pre-trained model whose accuracy with n structures equals that of direct training with N is N / n
times as data-efficient. The seeds of a cell are those of pre-training and fine-tuning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import numpy as np
import pandas as pd

from pretraining.results.cost import undisturbed_times
from pretraining.results.runs_table import MODEL, RMSE, TRAINED, tested_on, unique_runs
from pretraining.results.seed_statistics import AGGREGATES, cell_of, sort_by_source, with_titles
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown
from pretraining.study.titles import UNITS, SourceStyle, title_of

TIME_RATIOS = ("train_time_ratio_min", "train_time_ratio_max")
SERIES = ("target", *MODEL, "metric", "aggregate")
# Columns that are printed under another name.
HEADS = {"npre": "pre-training", "aggregate": "seeds", "untuned_reaches": "untuned reaches"}


def efficiency(runs: pd.DataFrame, target: str | None = None) -> pd.DataFrame:
    """The fewest fine-tuning structures that equal direct training on N, on one target or on all.

    Raises a `UserError` if there are no runs on the target, or a run is listed twice with different
    results.

    Returns
    -------
    pandas.DataFrame
        One row for each target, metric, aggregate, pre-training and N (``n_direct``) that beats
        all smaller: ``rmse_direct``, ``n_finetune``, ``rmse_finetune``, ``ratio`` = n_direct /
        n_finetune (all three empty if no fine-tuning reaches ``rmse_direct``), ``at_least`` (true
        if the smallest size suffices: the true ratio can be larger), ``seeds_direct``,
        ``seeds_finetune``, of which ``unconverged_direct`` and ``unconverged_finetune`` were still
        improving at max_epochs, ``train_time_ratio_min`` and ``_max`` (see :func:`_time_ratios`),
        ``rmse_untuned`` and ``untuned_reaches`` (whether the pre-trained model reaches
        ``rmse_direct`` without any structure).
    """
    runs = _on(runs, target)
    rows = []
    for name, tuned, direct in _comparisons(runs):
        tested = tested_on(runs, "pretrain", name["target"], {c: name[c] for c in MODEL})
        untuned = getattr(cell_of(tested, RMSE[name["metric"]]), name["aggregate"])
        reached, without = _curve(tuned, name), _curve(direct, name)
        for n_direct, (rmse, seeds, late) in without.items():
            if rmse >= min((v for n, (v, *_) in without.items() if n < n_direct), default=np.inf):
                continue
            row = {
                **name,
                "n_direct": n_direct,
                "rmse_direct": rmse,
                "seeds_direct": seeds,
                "unconverged_direct": late,
                "rmse_untuned": untuned,
                "untuned_reaches": "" if np.isnan(untuned) else str(untuned <= rmse).lower(),
            }
            enough = [n for n, (value, *_) in reached.items() if value <= rmse]
            if enough:
                n = min(enough)
                times = _time_ratios(tuned[tuned["n"] == n], direct[direct["n"] == n_direct])
                row |= {
                    "n_finetune": n,
                    "rmse_finetune": reached[n][0],
                    "seeds_finetune": reached[n][1],
                    "unconverged_finetune": reached[n][2],
                    "ratio": n_direct / n,
                    "at_least": str(n == min(reached)).lower(),
                } | dict(zip(TIME_RATIOS, times, strict=True))
            rows.append(row)
    columns = [*SERIES, "n_direct", "rmse_direct", "n_finetune", "rmse_finetune"]
    columns += ["ratio", "at_least", "seeds_direct", "seeds_finetune", *TIME_RATIOS]
    columns += ["rmse_untuned", "untuned_reaches", "unconverged_direct", "unconverged_finetune"]
    table = pd.DataFrame(rows, columns=columns)
    whole = ("n_finetune", "seeds_finetune", "unconverged_finetune")
    return table.astype(dict.fromkeys(whole, "Int64"))


def gains(runs: pd.DataFrame, target: str | None = None) -> pd.DataFrame:
    """The gain of pre-training at the same number of structures.

    Returns
    -------
    pandas.DataFrame
        One row for each target, metric, aggregate, pre-training and n: ``rmse_direct``,
        ``rmse_finetune``, ``gain`` (their difference, positive if pre-training helps),
        ``gain_percent`` (of the direct error), ``train_time_ratio_min`` and ``_max`` (see
        :func:`_time_ratios`).
    """
    runs = _on(runs, target)
    rows = []
    for name, tuned, direct in _comparisons(runs):
        without = _curve(direct, name)
        for n, (value, _, late) in _curve(tuned, name).items():
            if n in without:
                times = _time_ratios(tuned[tuned["n"] == n], direct[direct["n"] == n])
                row = {**name, "n": n, "rmse_direct": without[n][0], "rmse_finetune": value}
                row |= {"unconverged_direct": without[n][2], "unconverged_finetune": late}
                rows.append(row | dict(zip(TIME_RATIOS, times, strict=True)))
    columns = [*SERIES, "n", "rmse_direct", "rmse_finetune", *TIME_RATIOS]
    columns += ["unconverged_direct", "unconverged_finetune"]
    table = pd.DataFrame(rows, columns=columns)
    table["gain"] = table["rmse_direct"] - table["rmse_finetune"]
    table["gain_percent"] = 100 * table["gain"] / table["rmse_direct"]
    return table


def _on(runs: pd.DataFrame, target: str | None) -> pd.DataFrame:
    """The runs on a target, or all, with the times of those that did not share their GPU."""
    runs = runs.assign(train_time_s=undisturbed_times(runs))
    if target is None:
        return runs
    rows = runs[runs["target"] == target]
    if rows.empty:
        there = sorted(set(runs["target"]) - {""})
        raise UserError(f"no runs with target {target!r}; there are: {', '.join(there)}")
    return rows


def _comparisons(runs: pd.DataFrame) -> Iterator[tuple[dict, pd.DataFrame, pd.DataFrame]]:
    """Name, fine-tuning runs and direct runs of each :data:`SERIES`."""
    trained = unique_runs(runs[runs["kind"].isin(TRAINED)])
    for target, rows in trained.groupby("target"):
        direct = rows[rows["kind"] == "direct"]
        if direct.empty:
            continue
        for model, tuned in rows[rows["kind"] == "finetune"].groupby(list(MODEL)):
            if (tuned["status"] == "missing").all():
                continue
            for how in product(RMSE, AGGREGATES):
                yield dict(zip(SERIES, (target, *model, *how), strict=True)), tuned, direct


def _curve(rows: pd.DataFrame, name: Mapping) -> dict[int, tuple[float, int, int]]:
    """Error, seeds, and unconverged ones of these, for each n with a finite result."""
    points = {}
    for n, group in rows.groupby("n"):
        cell = cell_of(group, RMSE[name["metric"]])
        value = getattr(cell, name["aggregate"])
        if np.isfinite(value):
            points[int(n)] = (value, cell.count, cell.unconverged)
    return points


def _time_ratios(tuned: pd.DataFrame, direct: pd.DataFrame) -> tuple[float, float]:
    """Smallest and largest ratio of the training times, direct over fine-tuning, of all seeds.

    The time is that of the training steps and validations, without imports, compiling and final
    tests, and without the pre-training. NaN without times, or with times of different devices.
    """
    tuned, direct = (rows[rows["train_time_s"] > 0] for rows in (tuned, direct))
    both = pd.concat([tuned, direct])
    mixed = any(both[name].nunique() > 1 for name in ("device", "device_name") if name in both)
    if tuned.empty or direct.empty or mixed:
        return np.nan, np.nan
    times, longer = tuned["train_time_s"], direct["train_time_s"]
    return float(longer.min() / times.max()), float(longer.max() / times.min())


def sentence(row: Mapping, styles: Mapping[str, SourceStyle] | None = None) -> str:
    """One result in words, e.g. ``25 instead of 800 (32×) in energy, best of seeds, …``."""
    bound = "at least " if row["at_least"] == "true" else ""
    text = (
        f"{row['n_finetune']} instead of {row['n_direct']} ({bound}{row['ratio']:.3g}×) in "
        f"{row['metric']}, {row['aggregate']} of seeds, {title_of(row['source'], styles)}, "
        f"{row['npre']:,} pre-training structures"
    )
    if row["transform"] != "none":
        text += f", {row['transform']}"
    text += f": {row['rmse_finetune']:.3g} against {row['rmse_direct']:.3g} {UNITS[row['metric']]}"
    if np.isfinite(row["train_time_ratio_min"]):
        text += f", training time ratio {_range(row)}"
    late = [
        f"{row[f'unconverged_{side}']} of {row[f'seeds_{side}']} {kind}"
        for side, kind in (("direct", "direct"), ("finetune", "fine-tuned"))
        if row[f"unconverged_{side}"]
    ]
    if late:
        text += f" († not converged: {' and '.join(late)} runs were still improving at max_epochs)"
    return text


def _range(row: Mapping) -> str:
    """The training time ratio from the fastest to the slowest seeds, empty without times."""
    ends = [f"{row[f'train_time_ratio_{end}']:.2g}" for end in ("min", "max")]
    return "" if "nan" in ends else " to ".join(dict.fromkeys(ends))


def _ratios(best: pd.DataFrame, styles: Mapping[str, SourceStyle] | None) -> str:
    """The table of the largest ratios, and what its signs mean."""
    best = sort_by_source(
        best, ["target", "metric", "aggregate", "transform", "source", "npre"], styles
    )
    found = best["ratio"].notna()
    late = best["unconverged_direct"] + best["unconverged_finetune"].fillna(0) > 0
    counts = [f" ({row.seeds_finetune}/{row.seeds_direct})" for row in best.itertuples()]
    counts = [count + "†" * bool(mark) for count, mark in zip(counts, late, strict=True)]
    bounds = best["at_least"].eq("true").map({True: "≥ ", False: ""})
    printed = with_titles(best, styles).assign(
        aggregate=best["aggregate"] + pd.Series(counts, index=best.index).where(found, ""),
        n_direct=best["n_direct"].where(found),
        ratio=(bounds + best["ratio"].map("{:.3g}".format)).where(found, "none reached"),
    )
    printed["training time ratio"] = best.apply(_range, axis=1)
    heads = HEADS | {"n_finetune": "fine-tuning on", "n_direct": "instead of"}
    columns = ["target", "source", "transform", "npre", "metric", "aggregate", *list(heads)[-2:]]
    columns += ["ratio", "training time ratio", "untuned_reaches"]
    formats = {"pre-training": ",", "fine-tuning on": ".0f", "instead of": ".0f"}
    formats |= {"ratio": ">", "training time ratio": ">"}
    text = "\n" + markdown(printed[columns].rename(columns=heads), formats)
    text += (
        "\nThe largest ratio of each pre-training; (k/m): k seeds fine-tuned, m direct, † some of "
        "them still improving at max_epochs: train longer to compare. ≥: the smallest size with "
        "runs is already enough. Times are those of the training steps, without the pre-training, "
        "which is paid once; none where a GPU was shared. Untuned reaches: whether the pre-trained "
        "model is as accurate with no DFT-labelled structure at all.\n"
    )
    return text


def as_markdown(
    table: pd.DataFrame,
    styles: Mapping[str, SourceStyle] | None = None,
    claims: pd.DataFrame | None = None,
) -> str:
    """The largest ratio of each pre-training in Markdown, the best results in words first.

    `claims` is as :func:`.published.claims_of_efficiency` returns it.
    """
    # A pre-training that never reaches direct training keeps a row without ratio.
    best = table.sort_values("ratio", ascending=False, kind="stable").drop_duplicates(list(SERIES))
    text = "# Data efficiency\n\n"
    if best.empty:
        return text + "Nothing to compare: no target has both direct and fine-tuned results.\n"
    # As many structures instead of as many say nothing.
    best = best[best["ratio"] != 1]
    if best["ratio"].isna().all():
        text += "No fine-tuned model is yet as accurate as direct training on more structures.\n"
    for _, group in best.dropna(subset="ratio").groupby(["target", "metric", "aggregate"]):
        # Of equally efficient models, the one with the least pre-training.
        row = group.sort_values(["ratio", "npre", "source"], ascending=[False, True, True]).iloc[0]
        text += f"- {row['target']}: {sentence(row, styles)}.\n"
    if len(best):
        text += _ratios(best, styles)
    if claims is not None and claims["computed"].notna().any():
        claims = claims[claims["computed"].notna()]
        printed = with_titles(claims, styles).assign(
            quantity=claims["quantity"].str.replace("_", " "),
            published=claims["relation"] + claims["value"].map(" {:g}".format),
        )
        columns = ["quantity", "target", "metric", "aggregate", "source", "npre", "n", "computed"]
        columns += ["published", "difference", "unit", "origin"]
        printed = printed[columns].rename(columns=HEADS)
        formats = {"pre-training": ">", "n": ">", "computed": ".3g", "published": ">"}
        text += "\n## Published numbers\n\n" + markdown(printed, formats | {"difference": "+.3g"})
    return text
