"""Load a study's configuration and validate it: the schema, then the rules between keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml
from pretraining.study import embeddings, generation, stability
from pretraining.study.queries import (
    datasets_read,
    fitted_zero,
    has_own_labels,
    label_source,
    largest_pool,
    unknown,
)
from pretraining.study.schema import validate_config
from pretraining.study.sources import unknown_placeholders


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a configuration file, validate it with the schema and fill in the defaults.

    Raises
    ------
    UserError
        If the file is missing, is not YAML or breaks a rule of
        ``workflow/schemas/config.schema.yaml``.
    """
    return validate_config(read_yaml(path), str(path))


def validate_study(
    config: dict[str, Any], file: str, root: str | Path | None = None
) -> dict[str, Any]:
    """Validate the configuration of a whole study, which must configure everything it names.

    Parameters
    ----------
    config
        The configuration as read.
    file
        Its name, for messages.
    root
        Folder that paths are relative to; if given, the files must exist.

    Returns
    -------
    dict
        The configuration with its defaults.

    Raises
    ------
    UserError
        For the first broken rule, naming the key, its value and what is allowed.
    """
    for section in ("datasets", "sources", "experiments"):
        if section not in config:
            raise UserError(f"{file}: section '{section}' is missing; see config/README.md")
    config = validate_config(config, file)
    for problem in _problems(config):
        raise UserError(f"{file}: {problem}")
    if root is not None:
        for key, path in _named_files(config):
            if not (Path(root) / path).is_file():
                raise UserError(f"{file}: {key}: no such file: '{path}'; put it there or name it")
    return config


def _named_files(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the key and the path of every file that the study reads."""
    for name in sorted(datasets_read(config)):
        dataset = config["datasets"][name]
        paths = [] if "url" in dataset else dataset.get("path", [])
        for path in [paths] if isinstance(paths, str) else paths:
            yield f"datasets.{name}.path", path
    for index, weights in enumerate(config["pretrained_weights"]):
        if "url" not in weights:
            yield f"pretrained_weights[{index}].file", weights["file"]
    for name, test in config["dynamics"].items():
        if "file" in test["start"]:
            yield f"dynamics.{name}.start.file", test["start"]["file"]


def _problems(config: dict[str, Any]) -> Iterator[str]:
    """Yield every broken rule between keys of a configuration with its defaults."""
    for name, dataset in config["datasets"].items():
        yield from _dataset_problems(name, config)
        if "generate" in dataset:
            yield from generation.problems(name, config)
    for key, names in config["compare_sources"].items():
        for index, name in enumerate(names):
            yield from unknown(config, f"compare_sources.{key}[{index}]", name, key)
    for name, source in config["sources"].items():
        for key in sorted(source["kwargs"].keys() & source["neutral_kwargs"].keys()):
            yield f"sources.{name}.neutral_kwargs.{key}: it is in kwargs too; keep one"
        for key in ("args", "kwargs", "neutral_kwargs", "preload"):
            for text in unknown_placeholders(source[key]):
                yield (
                    f"sources.{name}.{key}: unknown placeholder '{text}'; allowed: {{config}}, "
                    f"{{root}}, {{prefix}}, {{package:NAME}}"
                )
    yield from _weights_problems(config)
    yield from _figure_problems(config)
    for name in config["experiments"]:
        yield from _experiment_problems(name, config)
    for name in config["embeddings"]:
        yield from embeddings.problems(name, config)
    for name in config["dynamics"]:
        yield from stability.problems(name, config)


def _dataset_problems(name: str, config: dict[str, Any]) -> Iterator[str]:
    dataset = config["datasets"][name]
    reference = dataset["energy_reference"]
    uses = {
        "energy_reference": (reference.get("source"), "evaluate the isolated atoms with"),
        "labels": (label_source(dataset), "label with"),
    }
    for key, (source, purpose) in uses.items():
        if source is not None:
            yield from unknown(config, f"datasets.{name}.{key}.source", source, "sources")
            if "calculator" not in config["sources"][source]:
                yield f"datasets.{name}.{key}.source: '{source}' has no calculator to {purpose}"
    fixed = reference.keys() & {"given", "source"}
    if fixed and not has_own_labels(dataset):
        yield (
            f"datasets.{name}.energy_reference.{fixed.pop()}: the set has no labels to "
            f"subtract it from; those of a source are relative to its isolated atoms already"
        )
    if "val" in dataset["split"] and "key" not in dataset["split"]:
        yield f"datasets.{name}.split.val: needs split.key, the info key with the set's split"


def _weights_problems(config: dict[str, Any]) -> Iterator[str]:
    files = [Path(weights["file"]) for weights in config["pretrained_weights"]]
    for index, weights in enumerate(config["pretrained_weights"]):
        where = f"pretrained_weights[{index}]"
        for key in ("structures", "source", "transform"):
            section = {"structures": "datasets"}.get(key, f"{key}s")
            yield from unknown(config, f"{where}.{key}", weights[key], section)
        # The record of their retrieval has the file's name.
        file = files[index]
        if any(file.name == other.name and file != other for other in files):
            yield f"{where}.file: another file has the name '{file.name}'; rename one"


def _figure_problems(config: dict[str, Any]) -> Iterator[str]:
    """Yield the experiments with the name of another figure."""
    figures = {"sources", "students"}
    figures |= {f"umap-{name}" for name in config["embeddings"]}
    figures |= {f"md-{name}" for name in config["dynamics"]}
    figures |= {f"structures-{name}" for name, d in config["datasets"].items() if "generate" in d}
    for name in sorted(figures & config["experiments"].keys()):
        yield f"experiments.{name}: figures/{name}.pdf is another figure; give it another name"


def _experiment_problems(name: str, config: dict[str, Any]) -> Iterator[str]:
    experiment = config["experiments"][name]
    where = f"experiments.{name}"
    for key in ("target", "structures"):
        yield from unknown(config, f"{where}.{key}", experiment[key], "datasets")
    for section in ("sources", "transforms"):
        for index, value in enumerate(experiment[section]):
            yield from unknown(config, f"{where}.{section}[{index}]", value, section)
    if "embedding" in experiment:
        yield from unknown(config, f"{where}.embedding", experiment["embedding"], "embeddings")
    for index, value in enumerate(experiment["also_test"]):
        key = f"{where}.also_test[{index}]"
        yield from unknown(config, key, value, "datasets")
        if value == experiment["target"]:
            yield f"{key}: '{value}' is the target, on which every model is tested anyway"
        if "labels" not in config["datasets"].get(value, {}):
            yield f"{key}: '{value}' has no labels to test with"
    target, structures = (config["datasets"][experiment[k]] for k in ("target", "structures"))
    for source in experiment["sources"]:
        if "own_labels" in config["sources"].get(source, {}) and not has_own_labels(structures):
            yield (
                f"sources.{source}.own_labels: '{experiment['structures']}' has no labels; "
                f"name their keys in datasets.{experiment['structures']}.labels"
            )
    zeros = [fitted_zero(dataset) for dataset in (target, structures)]
    if zeros[0] != zeros[1]:
        kinds = [f"fitted ({zero})" if zero else "that of isolated atoms" for zero in zeros]
        yield (
            f"{where}: the energy zero of target '{experiment['target']}' is {kinds[0]}, "
            f"that of structures '{experiment['structures']}' is {kinds[1]}: give both "
            f"the same energy_reference, or fine-tuning starts several eV/atom off"
        )
    if "labels" not in target:
        yield (
            f"{where}.target: '{experiment['target']}' has no labels; name their keys, or a "
            f"source that computes them, in datasets.{experiment['target']}.labels"
        )
    for key, dataset_name, dataset in [
        ("sizes", experiment["target"], target),
        ("pretrain_sizes", experiment["structures"], structures),
    ]:
        pool = largest_pool(dataset)
        for index, size in enumerate(experiment[key]):
            if pool is not None and size > pool:
                yield (
                    f"{where}.{key}[{index}]: {size} is more than the pool of "
                    f"'{dataset_name}', at most {pool} training structures"
                )
