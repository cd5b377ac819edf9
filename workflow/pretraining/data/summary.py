"""Summary of a prepared set: statistics of its parts, as JSON and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from pretraining.data.geometry import density
from pretraining.data.store import GROUPS


class Statistics:
    """Running statistics of a group of structures; holds a few numbers of each."""

    def __init__(self) -> None:
        self.elements: Counter[int] = Counter()
        self.config_types: Counter[str] = Counter()
        self.periodic: Counter[str] = Counter()
        self._sizes: list[int] = []
        self._densities: list[float] = []
        self._nearest: list[float] = []
        self._energies: list[float] = []
        self._square = 0.0
        self._largest = 0.0

    def add(
        self, row: Mapping[str, np.ndarray], nearest: float | None, config_type: str | None
    ) -> None:
        """Count a structure, given its arrays in the store and its shortest distance (Å)."""
        n = len(row["numbers"])
        self._sizes.append(n)
        elements, counts = np.unique(row["numbers"], return_counts=True)
        self.elements.update(dict(zip(elements.tolist(), counts.tolist(), strict=True)))
        self.periodic["".join("T" if axis else "F" for axis in row["pbc"])] += 1
        if config_type is not None:
            self.config_types[str(config_type)] += 1
        rho = density(row["numbers"], row["cell"], row["pbc"])
        if rho is not None:
            self._densities.append(rho)
        if nearest is not None:
            self._nearest.append(nearest)
        if "forces" in row:
            self._energies.append(float(row["energy"]) / n)
            self._square += float((row["forces"] ** 2).sum())
            norms = np.linalg.norm(row["forces"], axis=1)
            self._largest = max(self._largest, float(norms.max()))

    def as_dict(self) -> dict[str, Any]:
        """Return the statistics that exist, in eV, Å and g/cm³."""
        atoms = sum(self._sizes)
        out: dict[str, Any] = {"structures": len(self._sizes), "atoms": atoms}
        if not self._sizes:
            return out
        out["atoms_per_structure"] = _range(self._sizes)
        out["composition"] = {
            chemical_symbols[z]: count / atoms for z, count in sorted(self.elements.items())
        }
        out["periodic"] = dict(sorted(self.periodic.items()))
        if self._densities:
            out["density_g_cm3"] = _range(self._densities)
        if self._nearest:
            out["min_distance_angstrom"] = min(self._nearest)
        if self._energies:
            out["energy_ev_per_atom"] = {
                **_range(self._energies),
                "mean": float(np.mean(self._energies)),
                "std": float(np.std(self._energies)),
            }
            out["force_ev_per_angstrom"] = {
                "component_rms": float(np.sqrt(self._square / (3 * atoms))),
                "max_norm": self._largest,
            }
        if self.config_types:
            out["config_types"] = dict(sorted(self.config_types.items()))
        return out


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "max": max(values)}


def as_markdown(summary: Mapping[str, Any]) -> str:
    """Return the summary of a prepared set as a page of Markdown."""
    counts = summary["counts"]
    lines = [f"# {summary['title']}", ""]
    lines += [f"{counts['raw']:,} raw structures, {counts['kept']:,} kept.", ""]
    for entry in counts["dropped"]:
        lines.append(f"- {entry['structures']:,} dropped by the filter *{entry['filter']}*")
    if counts["excluded"]:
        lines.append(f"- {counts['excluded']:,} excluded by the configuration")
    lines += [f"- {note}" for note in summary["notes"]]
    reference = summary["energy_reference"]
    terms = ", ".join(f"{element} {e:.6f} eV" for element, e in reference["energies"].items())
    text = f"- energy reference: {reference['kind']}"
    if terms:
        text += f" ({terms})"
    if "n_fitted" in reference:
        text += f", fitted to the {reference['n_fitted']:,} structures of the training pool"
    lines += [text, f"- content (SHA-256): {summary['checksum']}", ""]
    groups = [summary["groups"][group] for group in (*GROUPS, "all")]
    lines += ["| | validation | test | training pool | all |", "|---|---|---|---|---|"]
    for title, form in _ROWS:
        cells = [_cell(group, form) for group in groups]
        if any(cells):
            lines.append(f"| {title} | {' | '.join(cells)} |")
    for kind in groups[-1].get("config_types", {}):
        cells = [f"{group.get('config_types', {}).get(kind, 0):,}" for group in groups]
        lines.append(f"| config_type {kind} | {' | '.join(cells)} |")
    lines += ["", "Training on *n* structures means the first *n* of the training pool. The "]
    lines[-1] += "validation set is the same whatever *n* is."
    return "\n".join(lines) + "\n"


_ROWS = (
    ("structures", "{structures:,}"),
    ("atoms", "{atoms:,}"),
    ("atoms in a structure", "{atoms_per_structure[min]:,} to {atoms_per_structure[max]:,}"),
    ("density, g/cm³", "{density_g_cm3[min]:.2f} to {density_g_cm3[max]:.2f}"),
    ("shortest distance, Å", "{min_distance_angstrom:.3f}"),
    ("energy, eV/atom", "{energy_ev_per_atom[min]:.3f} to {energy_ev_per_atom[max]:.3f}"),
    (
        "energy, mean ± std, eV/atom",
        "{energy_ev_per_atom[mean]:.3f} ± {energy_ev_per_atom[std]:.3f}",
    ),
    ("force component, rms, eV/Å", "{force_ev_per_angstrom[component_rms]:.3f}"),
    ("largest force, eV/Å", "{force_ev_per_angstrom[max_norm]:.2f}"),
)


def _cell(group: Mapping[str, Any], form: str) -> str:
    try:
        return form.format(**group)
    except KeyError:
        return ""
