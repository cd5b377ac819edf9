"""The comparison of label sources on one dataset, as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from pretraining.labels.compare.differences import ALL, OWN, Labels, spread
from pretraining.runtime.tables import markdown_table
from pretraining.study.titles import SourceStyle, title_of

ENERGY, FORCE = "energy_rmse_mev_per_atom", "force_rmse_ev_per_angstrom"
# What is called what, and how it is written.
RMSE = {ENERGY: ("Energy RMSE, meV/atom", ".1f"), FORCE: ("Force RMSE, eV/Å", ".3f")}
COLUMNS = {
    "shift_ev_per_atom": ("shift, eV/atom", "+.4f"),
    ENERGY: ("energy RMSE, meV/atom", ".1f"),
    "energy_mae_mev_per_atom": ("energy MAE, meV/atom", ".1f"),
    FORCE: ("force RMSE, eV/Å", ".3f"),
    "force_mae_ev_per_angstrom": ("force MAE, eV/Å", ".3f"),
}
HOW = (
    "Energies are compared after the median over the structures of the energy difference an atom "
    "has been subtracted, for each pair its own (*shift*: second minus first); forces by "
    "component, over all atoms. A structure that one of the two could not label is left out of "
    "that pair."
)


def name_of(source: str, styles: Mapping[str, SourceStyle] | None = None) -> str:
    """Title of a source, or what the dataset's own labels are called."""
    return "dataset's labels" if source == OWN else title_of(source, styles)


def as_markdown(
    title: str,
    table: pd.DataFrame,
    labels: Mapping[str, Labels],
    reference: str | None,
    styles: Mapping[str, SourceStyle] | None = None,
) -> str:
    """The page of one dataset.

    Parameters
    ----------
    title
        Of the dataset.
    table
        As :func:`pretraining.labels.compare.differences.compare` returns it.
    labels
        Labels by name, the reference first.
    reference
        Whose labels the others are held against; None if the dataset has none.
    """
    n = len(next(iter(labels.values())).energy)
    pairs = table[table["config_type"] == ALL]
    lines = [f"# Label sources on {title}", "", f"{n:,} validation and test structures. {HOW}", ""]
    if reference is not None:
        lines += _against(pairs[pairs["first"] == reference], labels[reference], reference, styles)
    if len(labels) > (1 if reference is None else 2):
        for column, (head, form) in RMSE.items():
            lines += [f"## {head}, of each pair", "", *_matrix(pairs, column, form, styles), ""]
    kinds = table[(table["config_type"] != ALL) & (table["first"] == reference)]
    if len(kinds):
        lines += _by_kind(kinds, reference, styles)
    failed = {name: part.errors for name, part in labels.items() if part.errors}
    if failed:
        lines += ["## Not labelled", ""]
        for name, errors in failed.items():
            index, reason = next(iter(errors.items()))
            some = "one structure" if len(errors) == 1 else f"{len(errors)} structures, the first"
            lines.append(f"- {name_of(name, styles)}: {some} with the index {index} ({reason})")
        lines.append("")
    return "\n".join(lines)


def _against(pairs: pd.DataFrame, own: Labels, reference: str, styles) -> list[str]:
    """Each source against the reference."""
    rows = [
        [name_of(row["second"], styles), f"{row['structures']:,}", f"{row['left_out']:,}"]
        + [_number(row[name], form) for name, (_, form) in COLUMNS.items()]
        for _, row in pairs.iterrows()
    ]
    heads = ["source", "structures", "left out", *(head for head, _ in COLUMNS.values())]
    size = spread(own)
    return [
        f"## Against the {name_of(reference, styles)}",
        "",
        *markdown_table(heads, rows).splitlines(),
        "",
        f"These labels themselves: energies have a standard deviation of {size['energy']:.0f} "
        f"meV/atom, force components a root mean square of {size['force']:.2f} eV/Å.",
        "",
    ]


def _matrix(pairs: pd.DataFrame, column: str, form: str, styles) -> list[str]:
    values = {(row["first"], row["second"]): row[column] for _, row in pairs.iterrows()}
    values |= {(second, first): value for (first, second), value in values.items()}
    names = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    rows = [
        [name_of(one, styles), *(_number(values.get((one, two)), form) for two in names)]
        for one in names
    ]
    return markdown_table(["", *(name_of(name, styles) for name in names)], rows).splitlines()


def _by_kind(kinds: pd.DataFrame, reference: str, styles) -> list[str]:
    """Errors against the reference by the kind of structure, with the shift of all structures."""
    lines = []
    names = list(dict.fromkeys(kinds["second"]))
    for column, (head, form) in RMSE.items():
        rows = []
        for kind, part in kinds.groupby("config_type"):
            values = part.set_index("second")
            cells = [_number(values.at[name, column], form) for name in names]
            rows.append([str(kind), f"{(part['structures'] + part['left_out']).max():,}", *cells])
        heads = ["config_type", "structures", *(name_of(name, styles) for name in names)]
        title = f"## {head}, against the {name_of(reference, styles)} by kind of structure"
        lines += [title, "", *markdown_table(heads, rows).splitlines(), ""]
    return lines


def _number(value: Any, form: str) -> str:
    return format(value, form) if value is not None and np.isfinite(value) else "–"
