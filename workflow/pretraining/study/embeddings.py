"""Which atomic environments a map shows, as the configuration's `embeddings` say it.

A *sample* is a number of environments (atoms with their neighbours) of one prepared set. Base
samples span the map, projected ones are placed on it. What a job computes and how the map is drawn
are told apart, so that another colour computes nothing.

Nothing but the standard library is imported: Snakemake executes this in every job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

ROLES = ("base", "project")
# What is looked up for the figure alone.
STYLE_KEYS = ("title", "colour", "shown")


def samples_of(embedding: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the samples of a map by name, with their ``role``, base samples first.

    A sample without a name has that of its dataset and transform. Of two of the same name the
    first is kept; :func:`problems` tells.
    """
    named: dict[str, dict[str, Any]] = {}
    for role in ROLES:
        for sample in embedding[role]:
            named.setdefault(name_of(sample), {**sample, "role": role})
    return named


def name_of(sample: Mapping[str, Any]) -> str:
    """Return the name of a sample."""
    if "name" in sample:
        return sample["name"]
    transform = sample["transform"]
    return sample["dataset"] + ("" if transform == "none" else f"-{transform}")


def names_of(embedding: Mapping[str, Any], role: str) -> list[str]:
    """Return the names of a map's samples of one role."""
    return [name for name, sample in samples_of(embedding).items() if sample["role"] == role]


def problems(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the map `name` of a configuration, beyond its schema."""
    embedding = config["embeddings"][name]
    seen = set()
    for role in ROLES:
        for index, sample in enumerate(embedding[role]):
            where = f"embeddings.{name}.{role}[{index}]"
            for key, section in (("dataset", "datasets"), ("transform", "transforms")):
                if sample[key] not in config[section]:
                    allowed = ", ".join(config[section])
                    yield (
                        f"{where}.{key}: '{sample[key]}' is not one of the configured {section}; "
                        f"allowed: {allowed}"
                    )
                    return
            if name_of(sample) in seen:
                yield f"{where}: there are two samples '{name_of(sample)}'; give this one a name"
            seen.add(name_of(sample))
            dataset = config["datasets"][sample["dataset"]]
            for key in sample["where"]:
                if key not in dataset["keep"]:
                    yield (
                        f"{where}.where: '{key}' is not carried along; add it to "
                        f"datasets.{sample['dataset']}.keep"
                    )
            own = dataset.get("labels", {}).keys() & {"energy", "per_atom_energy"}
            if role == "base" and "energy" in embedding["colour_by"] and not own:
                yield (
                    f"embeddings.{name}.colour_by: '{sample['dataset']}' has no energies; name "
                    f"their key in its labels, or colour by something else"
                )


def descriptors_part(config: Mapping[str, Any], embedding: str, name: str) -> dict[str, Any]:
    """Return what the descriptors of one sample depend on."""
    entry = config["embeddings"][embedding]
    sample = dict(samples_of(entry)[name])
    changes = config["transforms"][sample["transform"]].items()
    transform = {key: value for key, value in changes if key in ("elements", "scale")}
    # A stretched structure has stretched bonds.
    radius = config["figures"]["neighbour_radius"] * transform.get("scale", 1.0)
    sample.setdefault("neighbour_radius", radius)
    dropped = (*STYLE_KEYS, "role", "name")
    return {
        "descriptor": entry["descriptor"],
        "seed": entry["seed"],
        "sample": {key: value for key, value in sample.items() if key not in dropped},
        "transforms": {sample["transform"]: transform},
    }


def embedding_part(config: Mapping[str, Any], embedding: str) -> dict[str, Any]:
    """Return what a map depends on beside its descriptors."""
    entry = config["embeddings"][embedding]
    return {key: entry[key] for key in ("n_neighbors", "min_dist", "seed")}


def style_part(config: Mapping[str, Any], embedding: str) -> dict[str, Any]:
    """Return how a map is drawn."""
    entry = config["embeddings"][embedding]
    titles = {name: dataset.get("title", name) for name, dataset in config["datasets"].items()}
    samples = {}
    for name, sample in samples_of(entry).items():
        style = {key: sample[key] for key in (*STYLE_KEYS, "role") if key in sample}
        samples[name] = {"title": titles[sample["dataset"]], **style}
    colour_by = entry["colour_by"]
    return {
        "colour_by": [colour_by] if isinstance(colour_by, str) else colour_by,
        "samples": samples,
    }
