"""Config queries: what follows from one entry of a configuration.

Imported in every job of Snakemake: only the standard library.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

# Energy references that are fitted; the others are energies of isolated atoms.
FITTED = ("least_squares", "median_shift")
# Samples of a map of atomic environments: base samples span it, the others are placed on it.
SAMPLE_ROLES = ("base", "project")
TORCH_SIM = "torch-sim"  # the engine that moves several replicas together
# Keys of a dataset that give its structures, and of a source that give its labels.
STRUCTURE_KEYS = ("load_atoms", "path", "generate", "prototypes")
LABEL_KEYS = ("calculator", "own_labels", "published_labels")
# Sections of a dataset that may name a source.
DATASET_SOURCES = ("energy_reference", "generate", "labels")
# The file by which a folder is a deepmd system, and the suffixes of its files.
DEEPMD, DEEPMD_PARTS = "type.raw", (".raw", ".npy")
# What identifies a pre-training, and the published weights that replace it.
PRETRAINING_KEYS = ("structures", "transform", "source", "npre", "seed")
# Test set of the published Table 1, as `published_as` of a dataset names it.
PUBLISHED_TARGET = "C-GAP-17"
FRACTION = 0.1
MAX_TEST = 1000
MAX_VAL = 100


def pretrained_here(config: Mapping[str, Any], experiment: Mapping[str, Any]) -> list[tuple]:
    """Return the pre-trainings of an experiment that no published weights replace.

    Only these read the structures and the labels of a source; each is a tuple of the values of
    `PRETRAINING_KEYS`.
    """
    weights = config["pretrained_weights"]
    imported = {tuple(entry[key] for key in PRETRAINING_KEYS) for entry in weights}
    named = [experiment[key] for key in ("transforms", "sources", "pretrain_sizes")]
    every = product([experiment["structures"]], *named, experiment["pretrain_seeds"])
    return [pretraining for pretraining in every if pretraining not in imported]


def datasets_tested(config: Mapping[str, Any]) -> set[str]:
    """Return the datasets whose test sets a study reads: targets and further test sets."""
    experiments = config["experiments"].values()
    return {name for e in experiments for name in (e["target"], *e["also_test"])}


def datasets_read(config: Mapping[str, Any]) -> set[str]:
    """Return the datasets that a study reads: those of experiments, maps and dynamics."""
    experiments, maps = config["experiments"].values(), config["embeddings"].values()
    starts = [test["start"] for test in config["dynamics"].values()]
    return (
        datasets_tested(config)
        | {structures for e in experiments for structures, *_ in pretrained_here(config, e)}
        | {sample["dataset"] for m in maps for sample in (*m["base"], *m["project"])}
        | {start["dataset"] for start in starts if "dataset" in start}
    )


def sources_read(config: Mapping[str, Any]) -> set[str]:
    """Return the label sources of a study: of its pre-trainings, and of the datasets it reads."""
    experiments = config["experiments"].values()
    datasets = [config["datasets"][name] for name in datasets_read(config)]
    of_datasets = (d.get(key, {}).get("source") for d in datasets for key in DATASET_SOURCES)
    read = {source for e in experiments for _, _, source, *_ in pretrained_here(config, e)}
    return (read | {verifier(config, source) for source in read} | set(of_datasets)) - {None}


def verifier(config: Mapping[str, Any], source: str) -> str | None:
    """Return the source that published labels are compared with; None for the set's own labels."""
    return config["sources"][source].get("published_labels", {}).get("verify_with")


def paths_of(dataset: Mapping[str, Any]) -> list[str]:
    """Return what a dataset names as its files, those of its own test and validation parts last."""
    split = dataset.get("split", {})
    named = (dataset.get("path"), split.get("val_path"), split.get("test_path"))
    return list(dict.fromkeys(path for paths in named if paths for path in _as_list(paths)))


def has_own_split(split: Mapping[str, Any]) -> bool:
    """Return whether a set says itself which of its structures are for testing."""
    return "key" in split or "test_path" in split


def structure_files(path: str | Sequence[str], root: Path) -> list[str]:
    """Return the files that a dataset's `path` names, relative to `root`.

    A pattern stands for its files in the order of their names, a folder for the deepmd systems
    below it. What is not there remains as it is.
    """
    files: list[str] = []
    for name in [path] if isinstance(path, str) else path:
        found = [] if (root / name).exists() else glob.glob(name, root_dir=root, recursive=True)
        for each in sorted(found) or [name]:
            inside = sorted((root / each).rglob("*")) if (root / each).is_dir() else []
            parts = [f for f in inside if f.suffix in DEEPMD_PARTS or f.name == "nopbc"]
            files += [str(Path(each) / file.relative_to(root / each)) for file in parts] or [each]
    return list(dict.fromkeys(files))


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
    return n - 1 if has_own_split(split) else n - sum(split_sizes(n, split))


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


def code_in(network: Any) -> Iterator[str]:
    """Yield the import paths that building a network calls, and what may stand for one.

    `network` is the section of that name, or the configuration in a model file.
    """
    if isinstance(network, Mapping):
        model = network.get("model")
        if isinstance(model, str) and "." in model:
            yield model
        if "_target_" in network:
            yield str(network["_target_"])
        network = list(network.values())
    if isinstance(network, list | tuple):
        for value in network:
            yield from code_in(value)
    elif isinstance(network, str) and "${" in network:
        yield network


def address_faults(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield key and fault of addresses of a dataset, a source or weights that are not allowed.

    What is downloaded stays in the repository, and comes through https or has a SHA-256.
    """
    for index, file in enumerate(entry.get("files", [])):
        for key, reason in address_faults(file):
            yield f"files[{index}].{key}", reason
    if "url" not in entry:
        return
    key = "file" if "file" in entry else "path"
    for path in _as_list(entry.get(key, [])):
        if path.startswith(("/", "~")) or ".." in path.split("/"):
            yield key, f"'{path}' has a url, and may leave the repository: give a path inside it"
    for url in _as_list(entry["url"]):
        if not url.startswith("https://") and "sha256" not in entry:
            yield "url", f"'{url}' is no https:// address: give the file's sha256 as well"


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
