"""Results of the checks of label sources: derived numbers, remarks, table and page."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase.eos import EquationOfState
from ase.units import GPa

from pretraining.runtime.errors import UserError
from pretraining.runtime.records import read_record
from pretraining.runtime.tables import markdown
from pretraining.study.titles import SourceStyle, order_sources, title_of

# Volumes are fitted within this distance of the lowest one, in units of its lattice parameter.
FIT_RANGE = 0.055
# A smaller jump, in eV or as a part of the energy change around it, is not reported.
SMALLEST_JUMP = 0.01
SMALLEST_PART = 0.05
# A smaller change of the energy with the order of atoms, eV/atom, is not reported.
SMALLEST_CHANGE = 1e-3
NAN = float("nan")
# End of a column's name, its head on the page and its format.
NUMBERS = {
    "_distance": ("{} distance, Å", ".3f"),
    "_a": ("{} *a*, Å", ".3f"),
    "_energy": ("{} energy, eV", ".3f"),
    "_bulk_modulus": ("{} *B*, GPa", ".0f"),
    "_force_deviation": ("{} cell, eV/Å", ".2g"),
}
EXPLANATION = (
    "Energies are relative to the isolated atom of the same source, whose own energy is the "
    "code's: dimers in eV, crystals in eV/atom. Lattice parameters, energies and bulk moduli come "
    "from the Birch–Murnaghan equation; crystals with a fixed *c* have no modulus. The last "
    "columns are the largest deviation of a force component from −d*E*/d*x* by central "
    "differences in a rattled and in a stretched cell; above {:g} % of the largest force in the "
    "cell it counts as inconsistent.\n"
)


def read_checks(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the results of ``check_source.py``; a missing or unreadable one is a `UserError`."""
    results = []
    for path in paths:
        if not path.is_file():
            raise UserError(f"no result {path}; make it with check_source.py")
        result = read_record(path)
        try:
            results.append({key: result[key] for key in ("source", "status", "reason")} | result)
        except KeyError:
            raise UserError(f"{path} is no result of check_source.py; make it again") from None
    return results


def columns_of(curve: Mapping[str, Any], *names: str) -> list[np.ndarray]:
    """Columns of a curve's points, in the order of `x`."""
    points = sorted(curve["points"], key=lambda point: point["x"])
    return [np.array([point[name] for point in points]) for name in names]


def equation_of_state(curve: Mapping[str, Any]) -> dict[str, float]:
    """Lattice parameter, energy and bulk modulus at the minimum of a crystal's curve.

    The Birch-Murnaghan equation is fitted to the volumes near the lowest energy. With a fixed `c`
    it is only a smooth form, without a bulk modulus. Returns ``a`` (Å), ``energy`` (eV/atom) and
    ``bulk_modulus`` (GPa); NaN if the curve has no minimum within its range.
    """
    nothing = {"a": NAN, "energy": NAN, "bulk_modulus": NAN}
    x, volume, energy = columns_of(curve, "x", "volume", "energy")
    lowest = int(np.argmin(energy)) if len(x) else 0
    if not 0 < lowest < len(x) - 1:
        return nothing
    near = np.abs(x / x[lowest] - 1) <= FIT_RANGE
    if near.sum() < 5:
        return nothing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            v0, e0, bulk_modulus = EquationOfState(
                volume[near], energy[near], eos="birchmurnaghan"
            ).fit(warn=False)
    except (RuntimeError, ValueError):
        return nothing
    if not volume[near].min() < v0 < volume[near].max():
        return nothing
    power = np.log(x[lowest + 1] / x[lowest]) / np.log(volume[lowest + 1] / volume[lowest])
    isotropic = abs(power - 1 / 3) < 0.01
    return {
        "a": float(x[lowest] * (v0 / volume[lowest]) ** power),
        "energy": float(e0 / curve["atoms"]),
        "bulk_modulus": float(bulk_modulus / GPa) if isotropic else NAN,
    }


def dimer_minimum(curve: Mapping[str, Any]) -> dict[str, float]:
    """Distance (Å) and energy (eV) of a dimer's minimum, from a polynomial through five points.

    NaN if the lowest energy is at an end of the curve.
    """
    x, energy = columns_of(curve, "x", "energy")
    lowest = int(np.argmin(energy)) if len(x) else 0
    if len(x) < 5 or not 0 < lowest < len(x) - 1:
        return {"distance": NAN, "energy": NAN}
    first = min(max(lowest - 2, 0), len(x) - 5)
    near = slice(first, first + 5)
    # Distances are evenly spaced on a logarithmic scale.
    form = np.polynomial.Polynomial.fit(np.log(x[near]), energy[near], 4)
    grid = np.linspace(np.log(x[lowest - 1]), np.log(x[lowest + 1]), 2001)
    best = int(np.argmin(form(grid)))
    return {"distance": float(np.exp(grid[best])), "energy": float(form(grid[best]))}


def largest_jump(curve: Mapping[str, Any]) -> dict[str, float] | None:
    """Largest step of a dimer's energy that its forces do not explain.

    Between two points the energy of a smooth potential changes by their distance times a force
    between the smallest and the largest one nearby (two points on either side). The rest is a jump.

    Returns its ``distance`` (Å) and ``energy`` (eV); None if every jump is negligible.
    """
    x, energy, force = columns_of(curve, "x", "energy", "force")
    jumps = []
    for i in range(len(x) - 1):
        forces = force[max(i - 1, 0) : i + 3]
        width = x[i + 1] - x[i]
        change = energy[i + 1] - energy[i]
        beyond = max(-forces.max() * width - change, change + forces.min() * width, 0.0)
        if beyond > max(SMALLEST_JUMP, SMALLEST_PART * abs(change)):
            jumps.append((float(beyond), float(x[i] + width / 2)))
    if not jumps:
        return None
    size, place = max(jumps)
    return {"distance": place, "energy": size}


def summarise(result: Mapping[str, Any], tolerance: float) -> list[dict[str, Any]]:
    """Rows of the table for one source, one for each element.

    `tolerance` is the largest consistent deviation of a force, in units of the largest force in the
    cell.

    Returns
    -------
    list of dict
        ``source``, ``status``, ``element``, ``remarks`` (list of text) and the numbers:
        ``isolated_atom_energy`` (eV, the code's own), ``dimer_distance`` (Å), ``dimer_energy``
        (eV); for each crystal ``NAME_a`` (Å), ``NAME_energy`` (eV/atom), ``NAME_bulk_modulus``
        (GPa) and, except for the first, ``NAME_minus_FIRST`` (meV/atom); for each rattled cell
        ``NAME_force_deviation`` and ``NAME_largest_force`` (eV/Å). A source without results has one
        row without an element.
    """
    first = {"source": result["source"], "status": result["status"]}
    if not result.get("curves") and not result.get("forces"):
        return [first | {"element": "", "remarks": [], "reason": result["reason"]}]
    speed = result.get("speed") or {}
    first |= {"atoms_per_second": speed.get("atoms_per_second", NAN)}
    elements = {part["element"]: None for part in [*result["curves"], *result["forces"]]}
    rows = [first | _of_element(result, element, tolerance) for element in elements]
    errors = result.get("errors")
    if errors:
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        reason = errors[0]["reason"].rstrip(".")
        rows[0]["remarks"].append(f"not evaluated: {errors[0]['structure']} ({reason}){more}")
    if result.get("left_out"):
        rows[0]["remarks"].append(f"{result['left_out']} structures were left out: no time")
    return rows


def _of_element(result: Mapping[str, Any], element: str, tolerance: float) -> dict[str, Any]:
    atom = result["reference_ev"].get(element, NAN)
    row: dict[str, Any] = {"element": element, "isolated_atom_energy": atom}
    remarks: list[str] = []
    if element not in result["reference_ev"]:
        remarks.append(f"no energy of an isolated {element} atom: energies are the code's own")
    base = None
    for curve in result["curves"]:
        if curve["element"] != element:
            continue
        name = curve["name"]
        if curve["kind"] == "dimer":
            values = dimer_minimum(curve)
            jump = largest_jump(curve)
            if jump:
                remarks.append(
                    f"the dimer's energy jumps by {jump['energy']:.2g} eV, or its forces are not "
                    f"−dE/dx, at {jump['distance']:.2f} Å"
                )
        else:
            values = equation_of_state(curve)
            base = base or name
        row |= {f"{name}_{key}": value for key, value in values.items()}
        if not np.isfinite(values["energy"]):
            remarks.append(f"{element} {name} has no minimum in the evaluated range")
        if name not in ("dimer", base):
            difference = values["energy"] - row[f"{base}_energy"]
            row[f"{name}_minus_{base}"] = 1000 * difference
    deviations, wrong = [], []
    for cell in result["forces"]:
        if cell["element"] != element:
            continue
        deviation = max((abs(force - slope) for force, slope in cell["components"]), default=NAN)
        scale = cell["largest_force"]
        deviations.append(deviation)
        row[f"{cell['name']}_force_deviation"] = deviation
        row[f"{cell['name']}_largest_force"] = scale
        if deviation > tolerance * scale:
            wrong.append(cell["name"])
            remarks.append(
                f"forces are not −dE/dx in the {cell['name']} {element} cell: off by up to "
                f"{deviation:.2g} eV/Å, {100 * deviation / scale:.2g} % of its largest force"
            )
        moved = cell.get("moved") or {"energy": NAN, "force": NAN}
        if moved["energy"] > SMALLEST_CHANGE or moved["force"] > tolerance * scale:
            remarks.append(
                f"the {cell['name']} {element} cell, translated and its atoms in another order, "
                f"differs in energy by {1000 * moved['energy']:.2f} meV/atom and in a force by up "
                f"to {moved['force']:.2g} eV/Å"
            )
    consistent = f"not when {' and '.join(wrong)}" if wrong else "yes"
    if not np.isfinite(deviations).any():
        consistent = "unknown"
    return row | {"remarks": remarks, "consistent": consistent}


# ----------------------------------------------------------------------- table and page


def table_of_sources(
    results: Sequence[Mapping[str, Any]],
    tolerance: float,
    styles: Mapping[str, SourceStyle] | None = None,
) -> pd.DataFrame:
    """One row for each source and element, with the columns of :func:`summarise`."""
    order = order_sources([result["source"] for result in results], styles)
    results = sorted(results, key=lambda result: order.index(result["source"]))
    table = pd.DataFrame([row for result in results for row in summarise(result, tolerance)])
    table = table.reindex(columns=list(dict.fromkeys([*table, "consistent", "reason"])))
    table.insert(1, "title", [title_of(source, styles) for source in table["source"]])
    return table


def as_csv(table: pd.DataFrame) -> str:
    """The table as CSV, in the units of :func:`summarise`."""
    flat = table.assign(remarks=["; ".join(remarks) for remarks in table["remarks"]])
    last = ["consistent", "atoms_per_second", "reason", "remarks"]
    names = [name for name in flat if name not in last]
    return flat.reindex(columns=[*names, *last]).to_csv(index=False, float_format="%.6g")


def page(table: pd.DataFrame, results: Sequence[Mapping[str, Any]], tolerance: float) -> str:
    """Markdown page: all sources, numbers by element, remarks, sources without a result."""
    parts = ["# Label sources\n", _overview(table, results)]
    elements = [element for element in table["element"].unique() if element]
    for element in elements:
        parts += [f"## {element}\n", _numbers(table[table["element"] == element])]
    if elements:
        parts.append(EXPLANATION.format(100 * tolerance))
    rows = zip(table["title"], table["remarks"], strict=True)
    remarks = [f"- {title}: {remark}" for title, texts in rows for remark in texts]
    failures = [_failure(result) for result in results if result["reason"]]
    for head, lines in (("Remarks", remarks), ("Without result", failures)):
        if lines:
            parts += [f"## {head}\n", "\n".join(lines) + "\n"]
    return "\n".join(parts)


def _overview(table: pd.DataFrame, results: Sequence[Mapping[str, Any]]) -> str:
    by_name = {result["source"]: result for result in results}
    rows = []
    for source, part in table.groupby("source", sort=False):
        result = by_name[source]
        code = result.get("provenance", {}).get("code", {})
        words = [code.get(key) for key in ("package", "version", "kim_model")]
        rows.append(
            {
                "source": f"{part['title'].iloc[0]} (`{source}`)",
                "status": result["status"],
                "code": " ".join(word for word in words if word),
                "parameter files (SHA-256)": _files(result.get("provenance", {})),
                "structures": result.get("evaluated", 0),
                "atoms/s": _speed(result.get("speed")),
                "forces are −d*E*/d*x*": ", ".join(dict.fromkeys(part["consistent"].dropna())),
            }
        )
    return markdown(pd.DataFrame(rows))


def _speed(speed: Mapping[str, float] | None) -> str:
    """Atoms per second to three digits, with the size of the cell."""
    if not speed:
        return "–"
    value = speed["atoms_per_second"]
    text = f"{float(format(value, '.3g')):,.0f}" if value >= 100 else f"{value:.2g}"
    return f"{text} ({speed['atoms']} atoms)"


def _files(provenance: Mapping[str, Any]) -> str:
    """Named parameter files, without those whose names continue another's."""
    files = provenance.get("parameter_files_sha256", {})
    named = (f for f in files if not any(f.startswith(f"{other}.") for other in files))
    return ", ".join(f"{name} ({files[name][:8]})" for name in named)


def _failure(result: Mapping[str, Any]) -> str:
    install = result.get("install") or ""
    cure = f" To get it: {install}." if install not in result["reason"] else ""
    reason = result["reason"].removeprefix(f"source '{result['source']}': ").rstrip(".")
    return f"- `{result['source']}` {result['status'].replace('not', 'is not')}: {reason}.{cure}"


def _numbers(table: pd.DataFrame) -> str:
    """Numbers of one element, a row for each source; empty columns are left out."""
    columns = {}
    for name in table:
        end = next((end for end in NUMBERS if name.endswith(end)), None)
        if end is not None:
            head, form = NUMBERS[end]
            columns[name] = (head.format(name.removesuffix(end).replace("_", " ")), form)
        elif "_minus_" in name:
            columns[name] = (f"{name.replace('_minus_', ' − ')}, meV/atom", "+.0f")
    filled = [name for name in columns if table[name].notna().any()]
    # Crystals, then the dimer, then forces.
    filled.sort(key=lambda name: ("force" in name, "dimer" in name))
    return markdown(table, columns={"title": ("source", "")} | {n: columns[n] for n in filled})
