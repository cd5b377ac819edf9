"""What a schema cannot say of a configuration: the rules between its keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pretraining.study import embeddings as samples
from pretraining.study import generation as protocol
from pretraining.study import stability as robustness
from pretraining.study.queries import fitted_zero, has_own_labels, label_source, largest_pool
from pretraining.study.sources import unknown_placeholders


def problems(config: dict[str, Any]) -> Iterator[str]:
    """Yield every broken rule between keys of a configuration with its defaults."""
    for name in config["datasets"]:
        yield from _dataset_problems(name, config)
    for key, names in config["compare_sources"].items():
        for index, name in enumerate(names):
            yield from _unknown(config, f"compare_sources.{key}[{index}]", name, key)
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
        yield from samples.problems(name, config)
    for name in config["dynamics"]:
        yield from robustness.problems(name, config)


def _unknown(config: dict[str, Any], key: str, name: str, section: str) -> Iterator[str]:
    """Yield that `name`, the value of `key`, is not in a section of the configuration."""
    if name not in config[section]:
        allowed = ", ".join(config[section]) or "none configured"
        yield f"{key}: '{name}' is not one of the configured {section}; allowed: {allowed}"


def _dataset_problems(name: str, config: dict[str, Any]) -> Iterator[str]:
    dataset = config["datasets"][name]
    source = dataset["energy_reference"].get("source")
    if source is not None:
        yield from _unknown(config, f"datasets.{name}.energy_reference.source", source, "sources")
        if "calculator" not in config["sources"][source]:
            yield (
                f"datasets.{name}.energy_reference.source: '{source}' has no calculator to "
                f"evaluate the isolated atoms with"
            )
    fixed = dataset["energy_reference"].keys() & {"given", "source"}
    if fixed and not has_own_labels(dataset):
        yield (
            f"datasets.{name}.energy_reference.{fixed.pop()}: the set has no labels to "
            f"subtract it from; those of a source are relative to its isolated atoms already"
        )
    labeller = label_source(dataset)
    if labeller is not None:
        yield from _unknown(config, f"datasets.{name}.labels.source", labeller, "sources")
        if "calculator" not in config["sources"][labeller]:
            yield f"datasets.{name}.labels.source: '{labeller}' has no calculator to label with"
    if "generate" in dataset:
        yield from _generate_problems(name, dataset, config["sources"])
    if "val" in dataset["split"] and "key" not in dataset["split"]:
        yield f"datasets.{name}.split.val: needs split.key, the info key with the set's split"


def _generate_problems(name: str, dataset: dict, sources: dict) -> Iterator[str]:
    """Yield what is wrong with a dataset that is generated."""
    for key, fault in protocol.problems(dataset["generate"], sources):
        yield f"datasets.{name}.generate.{key}: {fault}"
    made = protocol.structures_of(dataset["generate"])
    if dataset["structures"] != made:
        yield f"datasets.{name}.structures: generate makes {made}; leave the number out"
    if dataset.get("format", "extxyz") != "extxyz" or "sha256" in dataset:
        yield f"datasets.{name}: format and sha256 are of files, and the set is generated"


def _weights_problems(config: dict[str, Any]) -> Iterator[str]:
    files = [Path(weights["file"]) for weights in config["pretrained_weights"]]
    for index, weights in enumerate(config["pretrained_weights"]):
        where = f"pretrained_weights[{index}]"
        for key in ("structures", "source", "transform"):
            section = {"structures": "datasets"}.get(key, f"{key}s")
            yield from _unknown(config, f"{where}.{key}", weights[key], section)
        # Their stamp is called after them.
        file = files[index]
        if any(file.name == other.name and file != other for other in files):
            yield f"{where}.file: another file is called '{file.name}', too"


def _figure_problems(config: dict[str, Any]) -> Iterator[str]:
    """Yield which experiment has the name of a figure that is not its own."""
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
        yield from _unknown(config, f"{where}.{key}", experiment[key], "datasets")
    for key, section in [("sources", "sources"), ("transforms", "transforms")]:
        for index, value in enumerate(experiment[key]):
            yield from _unknown(config, f"{where}.{key}[{index}]", value, section)
    if "embedding" in experiment:
        yield from _unknown(config, f"{where}.embedding", experiment["embedding"], "embeddings")
    for index, value in enumerate(experiment["also_test"]):
        key = f"{where}.also_test[{index}]"
        yield from _unknown(config, key, value, "datasets")
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
