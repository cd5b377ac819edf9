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

from pretraining.data.energy_references import Reference, make_reference
from pretraining.data.readers import Raw, open_raw
from pretraining.data.sanity.duplicates import near_duplicates
from pretraining.data.sanity.units import unit_warnings
from pretraining.data.screening import Filter, Kept, read_raw
from pretraining.data.splits import Split, split_structures
from pretraining.data.store import GROUPS, Store, StoreWriter
from pretraining.data.summary import Statistics, as_markdown
from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import remove, write_text
from pretraining.runtime.records import write_record
from pretraining.study.elements import unknown


def prepare(
    config: Mapping[str, Any],
    name: str,
    root: Path,
    out: Path,
    summary: Path | None = None,
    sizes: Sequence[int] = (),
    source_reference: Path | None = None,
    handlers: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Prepare a dataset of the configuration and return its summary.

    Raises a `UserError` naming the dataset, and the structure or file at fault.

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
    handlers
        Elements that the sources and models know that are to handle the set, by their name.
    """
    if name not in config.get("datasets", {}):
        known = ", ".join(config.get("datasets", {})) or "none"
        raise UserError(f"no dataset '{name}' in the configuration (known: {known})")
    dataset = config["datasets"][name]
    scratch = out.with_name(f".{out.name}.{os.getpid()}.raw.h5")
    try:
        transform = dataset.get("transform", {})
        if isinstance(transform, str):
            transform = Transform.from_settings(transform, config.get("transforms", {}))
        else:
            transform = Transform(**transform)
        filters = [Filter(entry) for entry in dataset.get("filters", [])]
        raw = open_raw(dataset, root)
        kept = read_raw(raw, dataset, filters, scratch)
        for handler, known in (handlers or {}).items():
            missing = [e for e in kept.elements if transform.elements.get(e, e) not in known]
            if missing:
                fault = unknown(handler, name, missing, known)
                raise UserError(f"structure {kept.elements[missing[0]]}: {fault}")
        with Store(scratch, verify=False) as store:
            result = _write(
                store, kept, raw, dataset, name, filters, out, sizes, source_reference, transform
            )
        with Store(out, verify=False) as store:
            # Of a scaled set forces are no gradient, as they are meant to be.
            gradient = transform.scale == 1 or transform.scale_forces
            result["notes"] += unit_warnings(store) if gradient else []
            result["notes"] += near_duplicates(store) if store.has_labels else []
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
    transform: Transform,
) -> dict[str, Any]:
    """Split, subtract the energy reference, transform, write the final store and summarise it."""
    split = dataset.get("split", {})
    parts = split_structures(len(store), split, kept.own or None, kept.groups or None)
    _check_sizes(parts, sizes)
    reference = Reference("none")
    if store.has_labels:
        reference = make_reference(
            dataset.get("energy_reference", {"auto": True}),
            sorted(kept.elements),
            _pool(store, parts.train),
            source_reference,
            kept.isolated,
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
                row = transform.apply(row)
                nearest = kept.nearest[i] and kept.nearest[i] * transform.scale
                written.append((writer.add_arrays(row, store.info(i)), group))
                for statistics in (groups[group], groups["all"]):
                    statistics.add(row, nearest, kept.config_types[i])
        checksum = writer.finish(len(parts.val), len(parts.test), provenance)
    return {
        "dataset": name,
        "title": dataset.get("title", name),
        "checksum": checksum,
        "origin": raw.origin,
        "counts": {
            "raw": kept.n_raw,
            "excluded": kept.n_excluded,
            "dropped": [{"filter": str(f), "structures": f.n_dropped} for f in filters]
            + [
                {"filter": f"isolated atoms of {element}", "structures": len(energies)}
                for element, energies in kept.isolated.items()
            ],
            "kept": len(store),
            **{group: len(getattr(parts, group)) for group in GROUPS},
        },
        "notes": _notes(kept, groups["all"], reference, written, parts.note)
        + _one_sided(store, parts),
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
    kept: Kept,
    everything: Statistics,
    reference: Reference,
    written: Sequence[tuple[int, str]],
    split: str | None,
) -> list[str]:
    notes = [f"split: {split}"] if split else []
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


def _one_sided(store: Store, parts: Split) -> list[str]:
    """Return notes of kept entries that vary in the set, but not in its validation or test part."""
    notes = []
    for key in store.info_names:
        values = store.column(key).astype(str)
        for name, part in (("validation", parts.val), ("test", parts.test)):
            if len(part) > 1 and len(set(values[part])) == 1 < len(set(values)):
                notes.append(
                    f"split: all {len(part):,} {name} structures have the {key} {values[part][0]}, "
                    f"one of {len(set(values)):,}: another split.seed, or larger parts, mix them"
                )
    return notes
