"""Elements of datasets, sources and models, compared before anything runs.

Imported in every job of Snakemake: it reads the first structure of extended XYZ files itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
    names = datasets_read(config)
    found = {name: elements_of(config["datasets"][name], root) for name in names}
    for name in sorted(names):
        for key in DATASET_SOURCES:
            source = config["datasets"][name].get(key, {}).get("source")
            if source is not None:
                known = config["sources"][source].get("elements", found[name])
                yield from _unknown(f"datasets.{name}.{key}.source", source, known, name, found)
    for name, experiment in config["experiments"].items():
        tested = [experiment["target"], *experiment["also_test"]]
        for structures, transform, source, *_ in pretrained_here(config, experiment):
            known = config["sources"][source].get("elements")
            if known is None:
                continue
            where = f"experiments.{name}.sources"
            yield from _unknown(where, source, known, structures, found)
            renamed = config["transforms"][transform].get("elements", {})
            known = {renamed.get(element, element) for element in known}
            for dataset in tested:
                yield from _unknown(where, source, known, dataset, found, transform)
    for index, weights in enumerate(config["pretrained_weights"]):
        renamed = config["transforms"][weights["transform"]].get("elements", {})
        known = {renamed.get(element, element) for element in weights.get("elements", ["C"])}
        origin = tuple(weights[key] for key in PRETRAINING_KEYS)
        for experiment in config["experiments"].values():
            if origin in _pretrainings(experiment):
                where = f"pretrained_weights[{index}].elements"
                yield from _unknown(where, weights["file"], known, experiment["target"], found)


def _pretrainings(experiment: Mapping[str, Any]) -> set[tuple]:
    return set(pretrained_here({"pretrained_weights": []}, experiment))


def _unknown(
    where: str,
    source: str,
    known: Any,
    dataset: str,
    found: Mapping[str, set[str]],
    transform: str = "none",
) -> Iterator[str]:
    missing = sorted(found.get(dataset, set()) - set(known))
    if missing:
        after = "" if transform == "none" else f" after the transform '{transform}'"
        yield (
            f"{where}: '{source}' does not know {', '.join(missing)} of dataset '{dataset}'; "
            f"it knows{after}: {', '.join(sorted(known))}"
        )


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
