"""What the entries of a configuration say, looked up in one place.

Snakemake executes this in every job: it imports nothing but the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pretraining.study import embeddings as samples
from pretraining.study import generation as protocol
from pretraining.study.splits import split_sizes

# Energy references that are fitted; the others are energies of isolated atoms.
FITTED = ("least_squares", "median_shift")


def datasets_of(experiment: dict[str, Any]) -> list[str]:
    """Return the datasets that an experiment reads: target, structures, further test sets."""
    return [experiment["target"], experiment["structures"], *experiment.get("also_test", [])]


def datasets_read(config: Mapping[str, Any]) -> set[str]:
    """Return the datasets that a study reads: those of experiments, maps and dynamics."""
    maps = config.get("embeddings", {}).values()
    starts = [test["start"] for test in config.get("dynamics", {}).values()]
    return (
        {name for e in config["experiments"].values() for name in datasets_of(e)}
        | {sample["dataset"] for m in maps for sample in samples.samples_of(m).values()}
        | {start["dataset"] for start in starts if "dataset" in start}
    )


def label_source(dataset: dict[str, Any]) -> str | None:
    """Return the source that labels a dataset; None if its labels come with it, or it has none."""
    return dataset.get("labels", {}).get("source")


def has_own_labels(dataset: dict[str, Any]) -> bool:
    """Return whether labels come with a dataset."""
    return "labels" in dataset and label_source(dataset) is None


def fitted_zero(dataset: dict[str, Any]) -> str | None:
    """Return how the energy zero of a dataset is fitted to its training pool; None if it is not."""
    return next((fit for fit in FITTED if fit in dataset["energy_reference"]), None)


def largest_pool(dataset: dict[str, Any]) -> int | None:
    """Return the most training structures that a set can hold, or None if it is not known.

    The bound follows from the expected number of structures and the split; filters, which need
    the data itself, can only lower it, and are counted when the set is prepared.
    """
    if "structures" not in dataset:
        return None
    n = dataset["structures"] - len(dataset["exclude"])
    split = dataset["split"]
    if "key" in split:
        return n - 1
    n_val, n_test = split_sizes(n, split)
    return n - n_val - n_test


def trajectory_files(config: dict[str, Any], name: str) -> list[str]:
    """Return the trajectories of a generated dataset, in the order of their structures."""
    folder = f"{config['results']}/data/{name}/trajectories"
    runs = protocol.trajectories(config["datasets"][name]["generate"])
    return [f"{folder}/{run.name}.extxyz" for run in runs]


def dataset_part(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what the preparation of a dataset reads; a generated set is files by then.

    Another title, for one, is no reason to prepare again, and to train again what follows from it.
    """
    dataset = config["datasets"][name]
    rest = {key: value for key, value in dataset.items() if key not in ("generate", "title")}
    if "generate" not in dataset:
        return rest
    return rest | {"path": trajectory_files(config, name), "format": "extxyz"}
