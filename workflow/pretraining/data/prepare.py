"""Prepare a dataset: filter, check, split, subtract the energy reference, store.

The raw structures are read once, one at a time, into a temporary store. If none is broken, they are
copied in their final order. Memory holds one structure, and a few numbers of each.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from pretraining.data.energy_references import Reference, make_reference
from pretraining.data.geometry import density
from pretraining.data.readers import Raw, open_raw
from pretraining.data.screening import Filter, Kept, read_raw
from pretraining.data.splits import Split, split_structures
from pretraining.data.store import GROUPS, Store, StoreWriter
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import remove, write_text
from pretraining.runtime.records import write_record


def prepare(
    config: Mapping[str, Any],
    name: str,
    root: Path,
    out: Path,
    summary: Path | None = None,
    sizes: Sequence[int] = (),
    source_reference: Path | None = None,
) -> dict[str, Any]:
    """Prepare a dataset of the configuration and return its summary.

    Parameters
    ----------
    root
        The repository's root, to which paths are relative.
    out
        Store to write.
    summary
        JSON summary to write, with a page beside it (suffix ``.md``).
    sizes
        Training sizes that the training pool must allow.
    source_reference
        JSON file of isolated-atom energies of the energy reference's label source.

    Raises
    ------
    UserError
        Naming the dataset, and the structure or file at fault.
    """
    if name not in config["datasets"]:
        known = ", ".join(config["datasets"])
        raise UserError(f"no dataset '{name}' in the configuration (known: {known})")
    dataset = config["datasets"][name]
    scratch = out.with_name(f".{out.name}.{os.getpid()}.raw.h5")
    try:
        filters = [Filter(entry) for entry in dataset.get("filters", [])]
        raw = open_raw(dataset, root)
        kept = read_raw(raw, dataset, filters, scratch)
        with Store(scratch, verify=False) as store:
            result = _write(store, kept, raw, dataset, name, filters, out, sizes, source_reference)
    except UserError as error:
        raise UserError(f"dataset '{name}': {error}") from error
    finally:
        remove(scratch)
    if summary is not None:
        write_record(summary, result)
        write_text(summary.with_suffix(".md"), as_markdown(result))
    return result


def _pool(store: Store, rows: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    for i in rows:
        row = store.arrays(int(i))
        yield row["numbers"], float(row["energy"])


def _write(
    store: Store,
    kept: Kept,
    raw: Raw,
    dataset: Mapping[str, Any],
    name: str,
    filters: Sequence[Filter],
    out: Path,
    sizes: Sequence[int],
    source_reference: Path | None,
) -> dict[str, Any]:
    """Split, subtract the energy reference, write the final store and summarise it."""
    split = dataset.get("split", {})
    parts = split_structures(len(store), split, kept.own or None, kept.groups or None)
    _check_sizes(parts, sizes)
    reference = Reference("none")
    if store.has_labels:
        reference = make_reference(
            dataset.get("energy_reference", {"none": True}),
            sorted(kept.elements),
            _pool(store, parts.train),
            source_reference,
        )
    groups = {group: Statistics() for group in (*GROUPS, "all")}
    written: list[tuple[int, str]] = []  # first row with the same structure, and the part
    provenance = {
        "dataset": name,
        "origin": raw.origin,
        "settings": {key: dataset[key] for key in sorted(dataset)},
        "energy_reference": reference.as_dict(),
    }
    with StoreWriter(out, store.has_labels, store.info_names) as writer:
        for group in GROUPS:
            for i in map(int, getattr(parts, group)):
                row = store.arrays(i)
                if store.has_labels:
                    row["energy"] = row["energy"] - reference.of(row["numbers"])
                written.append((writer.add_arrays(row, store.info(i)), group))
                for statistics in (groups[group], groups["all"]):
                    statistics.add(row, kept.nearest[i], kept.config_types[i])
        checksum = writer.finish(len(parts.val), len(parts.test), provenance)
    return {
        "dataset": name,
        "title": dataset.get("title", name),
        "checksum": checksum,
        "origin": raw.origin,
        "counts": {
            "raw": kept.n_raw,
            "excluded": kept.n_excluded,
            "dropped": [{"filter": str(f), "structures": f.n_dropped} for f in filters],
            "kept": len(store),
            **{group: len(getattr(parts, group)) for group in GROUPS},
        },
        "notes": _notes(kept, groups["all"], reference, written),
        "labelled": store.has_labels,
        "energy_reference": reference.as_dict(),
        "groups": {group: statistics.as_dict() for group, statistics in groups.items()},
    }


def _check_sizes(parts: Split, sizes: Sequence[int]) -> None:
    too_large = sorted(size for size in sizes if size > len(parts.train))
    if too_large:
        raise UserError(
            f"the training pool has {len(parts.train):,} structures, but the sizes "
            f"{', '.join(f'{size:,}' for size in too_large)} are needed: lower them, or give more "
            "structures"
        )


def _notes(
    kept: Kept, everything: Statistics, reference: Reference, written: Sequence[tuple[int, str]]
) -> list[str]:
    notes = []
    if kept.n_own_unused:
        notes.append(
            f"{kept.n_own_unused:,} structures have an entry 'split' that is not used: split.key "
            "is not set"
        )
    if len(everything.periodic) > 1:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in sorted(everything.periodic.items()))
        notes.append(f"periodic and non-periodic structures are mixed: {kinds}")
    repeated = sum(first < row for row, (first, _) in enumerate(written))
    if repeated:
        notes.append(f"{repeated:,} structures repeat an earlier one: labelled only once")
    pairs = Counter((written[first][1], group) for first, group in written)
    across = {(first, second): n for (first, second), n in pairs.items() if first != second}
    for (first, second), n in sorted(across.items()):
        notes.append(f"{n:,} structures of the {second} part are also in the {first} part")
    if reference.note is not None:
        notes.append(f"energy reference: {reference.note}")
    return notes


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
