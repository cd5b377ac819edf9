"""Evaluate a label source on a few structures: dimer, crystals, finite differences, lone atom.

This runs in the source's interpreter: only the standard library, numpy, ASE and PyYAML.
:mod:`pretraining.labels.check.summary` interprets the numbers.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pretraining.labels.check.probes import Probe, effort_of, plan
from pretraining.labels.evaluate import (
    isolated_energies,
    make_calculator,
    provenance,
    refuse_written_files,
)
from pretraining.labels.pool import Outcome, evaluate_all
from pretraining.runtime.errors import UserError
from pretraining.study.sources import Source, expand, parameter_files

INSTALLED = "installed"
NOT_INSTALLED = "not installed"
FAILED = "failed"


def unavailable(source: Source, status: str, reason: str) -> dict[str, Any]:
    """Result for a source that was not evaluated."""
    return {
        "source": source.name,
        "status": status,
        "reason": " ".join(reason.split()),
        "install": how_to_get(source),
    }


def how_to_get(source: Source) -> str:
    """How to get a source's code and its missing files."""
    texts = [source.install.strip()] if source.install else []
    for file in source.files:
        if os.path.exists(expand(file["path"])):
            continue
        texts.append(f"{file['path']} is from {file.get('from') or file.get('url')}")
        if "url" in file:
            texts[-1] += ", and `snakemake retrieve` fetches it if an experiment uses the source"
    return "; ".join(texts)


def is_missing(error: UserError) -> bool:
    """Whether a calculator could not be made because its code, a file or a model is missing.

    A calculator that refuses its arguments is installed.
    """
    cause = error.__cause__
    return (
        cause is None
        or isinstance(cause, (UserError, ImportError, OSError))
        or type(cause).__name__.endswith("NotFound")
    )


def check_source(source: Source, kind: str, elements: Sequence[str], settings: Mapping) -> dict:
    """Evaluate a source on the structures of all its elements.

    `kind` is ``empirical``, ``ml`` or ``dft`` (fewer structures), `settings` the section
    ``check_sources`` of the configuration.

    Returns
    -------
    dict
        ``status``; for an installed source ``reference_ev`` (isolated atoms), ``curves`` (points
        of ``x`` in Å, ``energy`` of the cell in eV relative to isolated atoms, and the ``force``
        that stretches a dimer, eV/Å), ``forces`` (analytic and numerical, eV/Å), ``speed``,
        ``errors`` (structures that failed, with reason) and ``left_out`` (number of structures
        that the time limit left out).
    """
    started = time.monotonic()
    source = replace(source, time_limit=min(source.time_limit, settings["time_limit"]))
    files = parameter_files(source)
    try:
        make_calculator(source)
    except UserError as error:
        return unavailable(source, NOT_INSTALLED if is_missing(error) else FAILED, str(error))
    reference: dict[str, float] = {}
    errors = []
    for element in elements:
        try:
            reference[element] = isolated_energies(source, [element])[element]
        except UserError as error:
            errors.append({"structure": f"isolated {element} atom", "reason": str(error)})
    box = settings["dimer_vacuum"] if source.isolated_atom.get("pbc") else None
    effort = effort_of(kind, settings["points"])
    plans = [list(plan(e, settings["crystals"], effort, box)) for e in elements]
    probes = [probe for probes in plans for probe in probes]
    outcomes: dict[int, Outcome] = {}
    made_with = None
    try:
        for index, outcome in evaluate_all(source, [probe.atoms for probe in probes]):
            outcomes[index] = outcome
            made_with = made_with or outcome.made_with
            if time.monotonic() - started > settings["time_limit"]:
                break
        refuse_written_files(source, files)
    except UserError as error:
        errors.append({"structure": "the calculator", "reason": str(error)})
    done = [(probes[index], outcomes[index]) for index in sorted(outcomes)]
    errors += [{"structure": str(p), "reason": o.error} for p, o in done if o.error]
    good = [(probe, outcome) for probe, outcome in done if not outcome.error]
    reason = None
    if not good:
        reason = "; ".join(dict.fromkeys(error["reason"] for error in errors)) or "no time"
    return {
        "source": source.name,
        "status": INSTALLED if good else FAILED,
        "reason": reason,
        "install": how_to_get(source),
        "provenance": provenance(source, reference, [made_with] if made_with else []),
        "reference_ev": reference,
        "curves": curves_of(good, reference),
        "forces": forces_of(good, effort.step),
        "speed": speed_of(good),
        "evaluated": len(good),
        "errors": errors,
        "left_out": len(probes) - len(outcomes),
        "seconds": time.monotonic() - started,
    }


def curves_of(good: Sequence[tuple[Probe, Outcome]], reference: Mapping) -> list[dict[str, Any]]:
    """Energies of the dimer and of each crystal against distance and lattice parameter.

    Without an isolated atom these are the code's own energies.
    """
    curves: dict[tuple[str, str], dict] = {}
    for probe, outcome in good:
        if probe.kind not in ("crystal", "dimer"):
            continue
        n = len(probe.atoms)
        point = {
            "x": probe.x,
            "energy": outcome.energy - n * reference.get(probe.element, 0.0),
            "seconds": outcome.seconds,
        }
        if probe.kind == "dimer":
            point["force"] = float(outcome.forces[1, 2] - outcome.forces[0, 2]) / 2
        else:
            point["volume"] = float(probe.atoms.get_volume())
        curve = {"kind": probe.kind, "element": probe.element, "name": probe.name, "atoms": n}
        curve = curves.setdefault((probe.element, probe.name), {**curve, "points": []})
        curve["points"].append(point)
    return list(curves.values())


def forces_of(good: Sequence[tuple[Probe, Outcome]], step: float) -> list[dict[str, Any]]:
    """Force components of each rattled cell beside ``-dE/dx`` by central differences.

    ``moved`` is the change of energy (eV/atom) and forces (eV/Å) if the same structure is
    translated and its atoms are in reverse order.
    """
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for probe, outcome in good:
        if probe.kind not in ("forces", "moved"):
            continue
        cell = cells.setdefault((probe.element, probe.name), {"displaced": {}})
        if probe.component >= 0:
            cell["displaced"].setdefault(probe.component, {})[probe.x] = outcome.energy
        else:
            cell[probe.kind] = outcome
    found = []
    for (element, name), cell in cells.items():
        if "forces" not in cell:
            continue
        own, moved = cell["forces"], None
        if "moved" in cell:
            other = cell["moved"]
            moved = {
                "energy": abs(other.energy - own.energy) / len(own.forces),
                "force": float(np.abs(other.forces[::-1] - own.forces).max()),
            }
        components = [
            [float(own.forces.ravel()[component]), (pair[-step] - pair[step]) / (2 * step)]
            for component, pair in cell["displaced"].items()
            if len(pair) == 2
        ]
        found.append(
            {
                "element": element,
                "name": name,
                "atoms": len(own.forces),
                "largest_force": float(np.linalg.norm(own.forces, axis=1).max()),
                "components": components,
                "moved": moved,
            }
        )
    return found


def speed_of(good: Sequence[tuple[Probe, Outcome]]) -> dict[str, float] | None:
    """Seconds per evaluation of the large cell, or of the largest crystal without one."""
    kind = "speed" if any(p.kind == "speed" for p, _ in good) else "crystal"
    timed = [(len(p.atoms), o.seconds) for p, o in good if p.kind == kind]
    if not timed:
        return None
    atoms = max(n for n, _ in timed)
    # The median: a first evaluation may include setup.
    seconds = float(np.median([s for n, s in timed if n == atoms]))
    return {"atoms": atoms, "seconds": seconds, "atoms_per_second": atoms / seconds}
