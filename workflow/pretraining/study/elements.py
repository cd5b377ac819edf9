"""Elements of datasets, sources and models, compared before anything runs.

Imported in every job of Snakemake: it reads the first structure of extended XYZ files itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pretraining.study.queries import (
    DATASET_SOURCES,
    PRETRAINING_KEYS,
    datasets_read,
    pretrained_here,
)

PROPERTIES = re.compile(r'Properties="?([^\s"]+)')


def element_problems(config: Mapping[str, Any], root: Path) -> Iterator[str]:
    """Yield which source or model does not know an element of a structure that it is to handle.

    What is not known before the sets are prepared raises no problem here.
    """
    for name in sorted(datasets_read(config)):
        dataset = config["datasets"][name]
        found = set(_renamed(config, dataset.get("transform", "none"), elements_of(dataset, root)))
        for handler, known in handlers(config, name).items():
            missing = sorted(found - set(known))
            if missing:
                yield unknown(handler, name, missing, known)


def unknown(handler: str, dataset: str, missing: Iterable[str], known: Iterable[str]) -> str:
    """Return in words that a handler of a dataset does not know elements of it."""
    return (
        f"{handler} does not know {', '.join(missing)} of dataset '{dataset}'; it knows "
        f"{', '.join(known)}: choose another, or correct its elements"
    )


def handlers(config: Mapping[str, Any], dataset: str) -> dict[str, list[str]]:
    """Return the sources and models that handle a dataset, by key, with the elements they know."""
    found: dict[str, list[str]] = {}
    sources = config["sources"]
    for key in DATASET_SOURCES:
        source = config["datasets"][dataset].get(key, {}).get("source")
        if source is not None and "elements" in sources[source]:
            found[f"datasets.{dataset}.{key}.source: '{source}'"] = sources[source]["elements"]
    for name, experiment in config["experiments"].items():
        tested = [experiment["target"], *experiment["also_test"]]
        here = pretrained_here(config, experiment)
        imported = [w for w in config["pretrained_weights"] if _replaces(w, experiment, here)]
        for structures, transform, source, *_ in here:
            if "elements" not in sources[source]:
                continue
            where, known = f"experiments.{name}.sources: '{source}'", sources[source]["elements"]
            if dataset == structures:
                found[where] = known
            if dataset in tested:
                found[where + _after(transform)] = _renamed(config, transform, known)
        for weights in imported if dataset in tested else []:
            where = f"pretrained_weights: '{weights['file']}'{_after(weights['transform'])}"
            found[where] = _renamed(config, weights["transform"], weights.get("elements", ["C"]))
    return found


def _after(transform: str) -> str:
    return "" if transform == "none" else f" after the transform '{transform}'"


def _renamed(
    config: Mapping[str, Any], transform: str | Mapping[str, Any], elements: Iterable[str]
) -> list[str]:
    given = config["transforms"][transform] if isinstance(transform, str) else transform
    names = given.get("elements", {})
    return sorted({names.get(element, element) for element in elements})


def _replaces(
    weights: Mapping[str, Any], experiment: Mapping[str, Any], here: Sequence[tuple]
) -> bool:
    """Return whether published weights replace a pre-training of an experiment."""
    own = tuple(weights[key] for key in PRETRAINING_KEYS)
    every = pretrained_here({"pretrained_weights": []}, experiment)
    return own in every and own not in here


def elements_of(dataset: Mapping[str, Any], root: Path) -> set[str]:
    """Return elements that a dataset certainly has: of its composition, or its first structure."""
    if "generate" in dataset:
        return set(dataset["generate"]["composition"])
    paths = dataset.get("path", [])
    if dataset["filters"] or dataset["exclude"] or dataset.get("format", "extxyz") != "extxyz":
        return set()
    return set().union(
        *(_first(root / path) for path in ([paths] if isinstance(paths, str) else paths))
    )


def _first(path: Path) -> set[str]:
    """Return the elements of the first structure of an extended XYZ file; else none."""
    if path.suffix not in (".xyz", ".extxyz"):
        return set()
    try:
        with open(path, encoding="utf-8") as handle:
            number, header = int(handle.readline()), handle.readline()
            described = PROPERTIES.search(header)
            fields = described[1].split(":") if described else ["species", "S", "1"]
            place = fields[::3].index("species")
            column = sum(map(int, fields[2 : 3 * place : 3]))
            return {line.split()[column] for line in islice(handle, number)}
    except (OSError, ValueError, IndexError):
        return set()  # named when the set is prepared
