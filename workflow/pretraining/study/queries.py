"""Config queries: what follows from one entry of a configuration.

Imported in every job of Snakemake: only the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

# Energy references that are fitted; the others are energies of isolated atoms.
FITTED = ("least_squares", "median_shift")
# Samples of a map of atomic environments: base samples span it, the others are placed on it.
SAMPLE_ROLES = ("base", "project")
TORCH_SIM = "torch-sim"  # the engine that moves several replicas together
FRACTION = 0.1
MAX_TEST = 1000
MAX_VAL = 100


def datasets_of(experiment: Mapping[str, Any]) -> list[str]:
    """Return the datasets that an experiment reads: target, structures, further test sets."""
    return [experiment["target"], experiment["structures"], *experiment.get("also_test", [])]


def datasets_read(config: Mapping[str, Any]) -> set[str]:
    """Return the datasets that a study reads: those of experiments, maps and dynamics."""
    maps = config.get("embeddings", {}).values()
    starts = [test["start"] for test in config.get("dynamics", {}).values()]
    return (
        {name for e in config["experiments"].values() for name in datasets_of(e)}
        | {sample["dataset"] for m in maps for sample in (*m["base"], *m["project"])}
        | {start["dataset"] for start in starts if "dataset" in start}
    )


def label_source(dataset: Mapping[str, Any]) -> str | None:
    """Return the source that labels a dataset; None if it has its own labels, or none."""
    return dataset.get("labels", {}).get("source")


def has_own_labels(dataset: Mapping[str, Any]) -> bool:
    """Return whether a dataset comes with labels."""
    return "labels" in dataset and label_source(dataset) is None


def fitted_zero(dataset: Mapping[str, Any]) -> str | None:
    """Return the fit of a dataset's energy zero; None for energies of isolated atoms."""
    return next((fit for fit in FITTED if fit in dataset["energy_reference"]), None)


def largest_pool(dataset: Mapping[str, Any]) -> int | None:
    """Return the maximum size of a dataset's training pool; None if unknown.

    It follows from the expected number of structures and the split. Filters may lower it: they are
    counted when the set is prepared.
    """
    if "structures" not in dataset:
        return None
    n = dataset["structures"] - len(dataset["exclude"])
    split = dataset["split"]
    return n - 1 if "key" in split else n - sum(split_sizes(n, split))


def split_sizes(n: int, split: Mapping[str, Any]) -> tuple[int, int]:
    """Return the sizes of the validation and the test set of `n` structures, after filters.

    `split` is the dataset's entry of that name; the set has no split of its own.
    """
    n_test = part_size(n, split, "test")
    return part_size(n - n_test, split, "val"), n_test


def part_size(n: int, split: Mapping[str, Any], part: str) -> int:
    """Return the size of the part ``val`` or ``test``, which is taken from `n` structures."""
    if split.get(f"n_{part}") is not None:
        return split[f"n_{part}"]
    limit = split.get(f"max_{part}", MAX_TEST if part == "test" else MAX_VAL)
    # Exact: n * 0.1 may be just below a whole number.
    return min(limit, int(n * Fraction(str(split.get("fraction", FRACTION)))))


def samples_of(embedding: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the samples of a map by name, with their ``role``, base samples first."""
    named: dict[str, dict[str, Any]] = {}
    for role in SAMPLE_ROLES:
        for sample in embedding[role]:
            named.setdefault(sample_name(sample), {**sample, "role": role})
    return named


def sample_name(sample: Mapping[str, Any]) -> str:
    """Return the name of a sample; the default is that of its dataset and transform."""
    if "name" in sample:
        return sample["name"]
    transform = sample["transform"]
    return sample["dataset"] + ("" if transform == "none" else f"-{transform}")


def sample_names(embedding: Mapping[str, Any], role: str) -> list[str]:
    """Return the names of a map's samples of one role."""
    return [name for name, sample in samples_of(embedding).items() if sample["role"] == role]


def replica_batches(test: Mapping[str, Any]) -> list[list[int]]:
    """Return the replicas of each torch-sim job of a test."""
    numbers, size = list(range(1, test["replicas"] + 1)), test["batch"]
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]
