"""Maps of atomic environments: the section `embeddings` of a configuration.

A *sample* is a number of environments (atoms with their neighbours) of one prepared set. Base
samples span the map; projected ones are placed on it.
Imported in every job of Snakemake: only the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pretraining.study.queries import unknown

ROLES = ("base", "project")


def samples_of(embedding: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the samples of a map by name, with their ``role``, base samples first."""
    named: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        for sample in embedding[role]:
            named.setdefault(name_of(sample), {**sample, "role": role})
    return named


def name_of(sample: Mapping[str, Any]) -> str:
    """Return the name of a sample; the default is that of its dataset and transform."""
    if "name" in sample:
        return sample["name"]
    transform = sample["transform"]
    return sample["dataset"] + ("" if transform == "none" else f"-{transform}")


def names_of(embedding: Mapping[str, Any], role: str) -> list[str]:
    """Return the names of a map's samples of one role."""
    return [name for name, sample in samples_of(embedding).items() if sample["role"] == role]


def problems(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the broken rules between keys of the map `name`."""
    embedding = config["embeddings"][name]
    seen = set()
    for role in ROLES:
        for index, sample in enumerate(embedding[role]):
            where = f"embeddings.{name}.{role}[{index}]"
            yield from unknown(config, f"{where}.dataset", sample["dataset"], "datasets")
            yield from unknown(config, f"{where}.transform", sample["transform"], "transforms")
            if name_of(sample) in seen:
                yield f"{where}: there are two samples '{name_of(sample)}'; give this one a name"
            seen.add(name_of(sample))
            dataset = config["datasets"][sample["dataset"]]
            for key in sample["where"]:
                if key not in dataset["keep"]:
                    yield (
                        f"{where}.where: '{key}' is not kept; add it to "
                        f"datasets.{sample['dataset']}.keep"
                    )
            own = dataset.get("labels", {}).keys() & {"energy", "per_atom_energy"}
            if role == "base" and "energy" in embedding["colour_by"] and not own:
                yield (
                    f"embeddings.{name}.colour_by: '{sample['dataset']}' has no energies; name "
                    f"their key in its labels, or colour by something else"
                )
