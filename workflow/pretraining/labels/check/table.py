"""The tables of the checked label sources, for people (Markdown) and programs (CSV)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pretraining.labels.check.summary import summarise
from pretraining.runtime.tables import markdown_table
from pretraining.study.titles import SourceStyle, order_sources, title_of

# What the name of a number ends in, the head of its column and how it is written.
NUMBERS = {
    "_distance": ("{} distance, Å", ".3f"),
    "_a": ("{} *a*, Å", ".3f"),
    "_energy": ("{} energy, eV", ".3f"),
    "_bulk_modulus": ("{} *B*, GPa", ".0f"),
    "_force_deviation": ("{} cell, eV/Å", ".2g"),
}


def table_of_sources(
    results: Sequence[Mapping[str, Any]],
    tolerance: float,
    styles: Mapping[str, SourceStyle] | None = None,
) -> pd.DataFrame:
    """One row a source and element, with the columns of :func:`source_summary.summarise`."""
    order = order_sources([result["source"] for result in results], styles)
    results = sorted(results, key=lambda result: order.index(result["source"]))
    table = pd.DataFrame([row for result in results for row in summarise(result, tolerance)])
    for name in ("consistent", "reason"):
        if name not in table:
            table[name] = None
    table.insert(1, "title", [title_of(source, styles) for source in table["source"]])
    return table


def as_csv(table: pd.DataFrame) -> str:
    """The table as CSV: distances and lattice parameters in Å, energies in eV (dimer) and eV/atom
    (crystals), differences of crystals in meV/atom, moduli in GPa, forces in eV/Å."""
    flat = table.assign(remarks=["; ".join(remarks) for remarks in table["remarks"]])
    last = ["consistent", "atoms_per_second", "reason", "remarks"]
    names = [name for name in flat if name not in last]
    return flat.reindex(columns=[*names, *last]).to_csv(index=False, float_format="%.6g")


def as_markdown(table: pd.DataFrame, results: Sequence[Mapping[str, Any]], tolerance: float) -> str:
    """The page: who is installed, the numbers by element, remarks, and what is missing."""
    by_name = {result["source"]: result for result in results}
    lines = ["# Label sources", "", *_overview(table, by_name), ""]
    elements = [element for element in table["element"].unique() if element]
    for element in elements:
        lines += [f"## {element}", "", *_numbers(table[table["element"] == element]), ""]
    if elements:
        lines += [
            "Energies are relative to the isolated atom of the same source, whose own energy is "
            "what the code gives: of the dimer in eV, of the crystals in eV/atom. Lattice "
            "parameters, energies and bulk moduli are those of the Birch–Murnaghan equation; where "
            "*c* is fixed there is no modulus. The last columns are the largest deviation of a "
            "force component from −d*E*/d*x* by central differences in a rattled and in a "
            f"stretched cell; above {100 * tolerance:g} % of the largest force in the cell it "
            "counts as inconsistent.",
            "",
        ]
    remarks = [
        f"- {row['title']}: {remark}" for _, row in table.iterrows() for remark in row["remarks"]
    ]
    if remarks:
        lines += ["## Remarks", "", *remarks, ""]
    missing = [result for result in results if result["reason"]]
    if missing:
        lines += ["## Without result", ""]
        for result in missing:
            install = result.get("install") or ""
            cure = f" To get it: {install}." if install not in result["reason"] else ""
            reason = result["reason"].removeprefix(f"source '{result['source']}': ").rstrip(".")
            status = result["status"].replace("not", "is not")
            lines.append(f"- `{result['source']}` {status}: {reason}.{cure}")
        lines.append("")
    return "\n".join(lines)


def _overview(table: pd.DataFrame, by_name: Mapping[str, Mapping]) -> list[str]:
    rows = []
    for source, part in table.groupby("source", sort=False):
        result = by_name[source]
        how = result.get("provenance", {})
        code = how.get("code", {})
        model = code.get("kim_model")
        files = [f"{name} ({sha[:8]})" for name, sha in _files(how)]
        rows.append(
            [
                f"{part['title'].iloc[0]} (`{source}`)",
                result["status"],
                f"{code.get('package', '')} {code.get('version') or ''} {model or ''}".strip(),
                ", ".join(files),
                f"{result.get('evaluated', 0)}",
                _speed(result.get("speed")),
                ", ".join(dict.fromkeys(part["consistent"].dropna())),
            ]
        )
    heads = ["source", "status", "code", "parameter files (SHA-256)", "structures", "atoms/s"]
    return markdown_table([*heads, "forces are −d*E*/d*x*"], rows).splitlines()


def _speed(speed: Mapping[str, float] | None) -> str:
    """Atoms a second, to three digits, and the size of the cell that they were counted in."""
    if not speed:
        return "–"
    value = speed["atoms_per_second"]
    text = f"{float(format(value, '.3g')):,.0f}" if value >= 100 else f"{value:.2g}"
    return f"{text} ({speed['atoms']} atoms)"


def _files(how: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The parameter files that name themselves; what only extends such a name goes without."""
    files = how.get("parameter_files_sha256", {})
    return [
        (name, sha)
        for name, sha in files.items()
        if not any(name.startswith(f"{other}.") for other in files)
    ]


def _numbers(table: pd.DataFrame) -> list[str]:
    """The numbers of one element, a row a source; only columns that have any."""
    columns = []
    for name in table:
        end = next((end for end in NUMBERS if name.endswith(end)), None)
        if end is not None:
            head, form = NUMBERS[end]
            columns.append((name, head.format(name.removesuffix(end).replace("_", " ")), form))
        elif "_minus_" in name:
            columns.append((name, f"{name.replace('_minus_', ' − ')}, meV/atom", "+.0f"))
    columns = [column for column in columns if np.isfinite(table[column[0]]).any()]
    # Crystals, the dimer, forces.
    columns.sort(key=lambda column: ("force" in column[0], "dimer" in column[0]))
    rows = [
        [row["title"], *(_number(row[name], form) for name, _, form in columns)]
        for _, row in table.iterrows()
    ]
    return markdown_table(["source", *(head for _, head, _ in columns)], rows).splitlines()


def _number(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, float) and np.isfinite(value) else "–"
