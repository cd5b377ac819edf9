"""What the checks of label sources say: derived numbers, verdicts and remarks.

Energies are relative to the isolated atom of the source itself.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.eos import EquationOfState
from ase.units import GPa

from pretraining.runtime.errors import UserError

# Volumes are fitted this far from the lowest one, in units of its lattice parameter.
FIT_RANGE = 0.055
# A jump below this, eV, or below this part of the change that it is in, is not worth a word.
SMALLEST_JUMP = 0.01
SMALLEST_PART = 0.05
# Nor is, where a structure is but written otherwise, such a change of the energy, eV/atom.
SMALLEST_CHANGE = 1e-3
NAN = float("nan")


def read_checks(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the results of ``check_source.py``.

    Raises
    ------
    UserError
        If one is missing or is none.
    """
    results = []
    for path in paths:
        try:
            result = json.loads(Path(path).read_text(encoding="utf-8"))
            results.append({key: result[key] for key in ("source", "status", "reason")} | result)
        except FileNotFoundError:
            raise UserError(f"no result {path}; make it with check_source.py") from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is no result of check_source.py; make it again") from None
    return results


def equation_of_state(curve: Mapping[str, Any]) -> dict[str, float]:
    """Lattice parameter, energy and bulk modulus at the minimum of a crystal's curve.

    The Birch-Murnaghan equation is fitted to the volumes near the lowest energy. Where the lattice
    parameter is not the cube root of the volume, because `c` is fixed, it is no more than a smooth
    form and its modulus is not one of the crystal.

    Returns
    -------
    dict
        ``a`` (Å), ``energy`` (eV/atom) and ``bulk_modulus`` (GPa); NaN where the curve has no
        minimum within its range.
    """
    nothing = {"a": NAN, "energy": NAN, "bulk_modulus": NAN}
    points = sorted(curve["points"], key=lambda point: point["x"])
    x, volume, energy = (np.array([p[key] for p in points]) for key in ("x", "volume", "energy"))
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
    """Distance (Å) and energy (eV) of a dimer's minimum, by a polynomial through five points.

    NaN where the lowest energy is at an end of the curve.
    """
    points = sorted(curve["points"], key=lambda point: point["x"])
    x, energy = (np.array([point[key] for point in points]) for key in ("x", "energy"))
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
    """The largest step of a dimer's energy that its forces do not explain.

    Between two distances the energy of a smooth potential changes by their distance times a force
    between the smallest and the largest one there. What it changes beyond that, the forces of two
    points on either side taken, is a jump.

    Returns
    -------
    dict or None
        ``distance`` (Å) and ``energy`` (eV); None if there is no jump to speak of.
    """
    points = sorted(curve["points"], key=lambda point: point["x"])
    x, energy, force = (np.array([p[key] for p in points]) for key in ("x", "energy", "force"))
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


def force_deviation(cell: Mapping[str, Any]) -> tuple[float, float]:
    """Largest deviation of a force component from ``-dE/dx``, and the largest force, eV/Å."""
    components = np.array(cell["components"], dtype=float).reshape(-1, 2)
    if not len(components):
        return NAN, float(cell["largest_force"])
    return float(np.abs(components[:, 0] - components[:, 1]).max()), float(cell["largest_force"])


def summarise(result: Mapping[str, Any], tolerance: float) -> list[dict[str, Any]]:
    """Rows of the table, one an element, for one source.

    Parameters
    ----------
    result
        What ``check_source.py`` wrote.
    tolerance
        Deviation of a force, in units of the largest force in the cell, that counts as
        inconsistent.

    Returns
    -------
    list of dict
        ``source``, ``status``, ``element``, ``remarks`` (list of text) and the numbers:
        ``isolated_atom_energy`` (eV, what the code gives), ``dimer_distance`` and ``dimer_energy``,
        for each crystal ``NAME_a``, ``NAME_energy``, ``NAME_bulk_modulus`` and, but for the first,
        ``NAME_minus_FIRST`` (meV/atom), for each rattled cell ``NAME_force_deviation`` and
        ``NAME_largest_force``. A source of which nothing was evaluated has one row without an
        element.
    """
    first = {"source": result["source"], "status": result["status"]}
    if not result.get("curves") and not result.get("forces"):
        return [first | {"element": "", "remarks": [], "reason": result["reason"]}]
    speed = result.get("speed") or {}
    first |= {"atoms_per_second": speed.get("atoms_per_second", NAN)}
    elements = {part["element"]: None for part in [*result["curves"], *result["forces"]]}
    rows = [first | _of_element(result, element, tolerance) for element in elements]
    rows[0]["remarks"] += _of_errors(result)
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
            remarks.append(f"{element} {name} has no minimum in the range that was evaluated")
        if name not in ("dimer", base):
            difference = values["energy"] - row[f"{base}_energy"]
            row[f"{name}_minus_{base}"] = 1000 * difference
    for cell in result["forces"]:
        if cell["element"] != element:
            continue
        deviation, scale = force_deviation(cell)
        row[f"{cell['name']}_force_deviation"] = deviation
        row[f"{cell['name']}_largest_force"] = scale
        if deviation > tolerance * scale:
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
    return row | {"remarks": remarks, "consistent": _verdict(result, element, tolerance)}


def _verdict(result: Mapping[str, Any], element: str, tolerance: float) -> str:
    """Whether the forces are those of the energy: ``yes``, or in which cells they are not."""
    cells = [cell for cell in result["forces"] if cell["element"] == element]
    pairs = {cell["name"]: force_deviation(cell) for cell in cells}
    wrong = [name for name, (deviation, scale) in pairs.items() if deviation > tolerance * scale]
    if not any(np.isfinite(deviation) for deviation, _ in pairs.values()):
        return "unknown"
    return f"not when {' and '.join(wrong)}" if wrong else "yes"


def _of_errors(result: Mapping[str, Any]) -> list[str]:
    remarks = []
    errors = result.get("errors", [])
    if errors:
        more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
        reason = errors[0]["reason"].rstrip(".")
        remarks.append(f"not evaluated: {errors[0]['structure']} ({reason}){more}")
    if result.get("left_out"):
        remarks.append(f"{result['left_out']} structures were left out for want of time")
    return remarks
