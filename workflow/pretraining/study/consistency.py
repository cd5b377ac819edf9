"""Rules between keys of a configuration, which its schema cannot express."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from pretraining.study.generation import (
    ANNEAL,
    FIRST_FIVE_FOLD,
    LAMMPSLIB,
    TOLERANCE,
    duration_ps,
    steps_of,
    structures_of,
    trajectories,
)
from pretraining.study.network import network_problems
from pretraining.study.queries import (
    LABEL_KEYS,
    PRETRAINING_KEYS,
    SAMPLE_ROLES,
    STRUCTURE_KEYS,
    address_faults,
    fitted_zero,
    has_own_labels,
    label_source,
    largest_pool,
    pretrained_here,
    sample_name,
    verifier,
)
from pretraining.study.sources import unknown_placeholders

# A study has fewer labelling jobs for a set.
MOST_CHUNKS = 100_000


def problems(config: dict[str, Any]) -> Iterator[str]:
    """Yield every broken rule between keys of a configuration with its defaults."""
    for section in ("datasets", "sources"):
        for name, entry in config[section].items():
            for key, reason in address_faults(entry):
                yield f"{section}.{name}.{key}: {reason}"
    for name, dataset in config["datasets"].items():
        yield from _dataset_problems(name, config)
        if "generate" in dataset:
            yield from _generation_problems(name, config)
    yield from network_problems(config["network"])
    yield from _comparison_problems(config)
    for name, source in config["sources"].items():
        yield from _given_twice(f"sources.{name}", source, LABEL_KEYS)
        for key in sorted(source["kwargs"].keys() & source["neutral_kwargs"].keys()):
            yield f"sources.{name}.neutral_kwargs.{key}: it is in kwargs too; keep one"
        for key in ("args", "kwargs", "neutral_kwargs", "preload"):
            for text in unknown_placeholders(source[key]):
                yield (
                    f"sources.{name}.{key}: unknown placeholder '{text}'; allowed: {{config}}, "
                    f"{{root}}, {{prefix}}, {{package:NAME}}"
                )
    if config["metrics_from"] == "shipped" and "shipped" not in config:
        yield "metrics_from: the study ships no results; name their table in the key 'shipped'"
    yield from _weights_problems(config)
    yield from _figure_problems(config)
    for name in config["experiments"]:
        yield from _experiment_problems(name, config)
    for name in config["embeddings"]:
        yield from _map_problems(name, config)
    for name in config["dynamics"]:
        yield from _stability_problems(name, config)


def _comparison_problems(config: dict[str, Any]) -> Iterator[str]:
    for section, names in config["compare_sources"].items():
        for index, name in enumerate(names):
            where = f"compare_sources.{section}[{index}]"
            yield from _unknown(config, where, name, section)
            if section == "datasets":
                yield from _without_structures(config, name, where)
            elif "calculator" not in config["sources"][name]:
                yield f"sources.{name}: give a calculator; its labels are read by {where}"


def _dataset_problems(name: str, config: dict[str, Any]) -> Iterator[str]:
    dataset = config["datasets"][name]
    yield from _given_twice(f"datasets.{name}", dataset, STRUCTURE_KEYS)
    if "distort" in dataset and has_own_labels(dataset):
        yield (
            f"datasets.{name}.labels: distorted structures have other labels than their originals: "
            "leave them out, or give a source that computes them"
        )
    if isinstance(transform := dataset.get("transform", {}), str):
        yield from _unknown(config, f"datasets.{name}.transform", transform, "transforms")
    reference = dataset["energy_reference"]
    uses = {
        "energy_reference": (reference.get("source"), "evaluate the isolated atoms with"),
        "labels": (label_source(dataset), "label with"),
    }
    for key, (source, purpose) in uses.items():
        if source is not None:
            yield from _unknown(config, f"datasets.{name}.{key}.source", source, "sources")
            if "calculator" not in config["sources"][source]:
                yield f"datasets.{name}.{key}.source: '{source}' has no calculator to {purpose}"
    fixed = reference.keys() & {"given", "isolated_atoms", "source"}
    if fixed and not has_own_labels(dataset):
        yield (
            f"datasets.{name}.energy_reference.{fixed.pop()}: the set has no labels to "
            f"subtract it from; those of a source are relative to its isolated atoms already"
        )
    if "val" in dataset["split"] and "key" not in dataset["split"]:
        yield f"datasets.{name}.split.val: needs split.key, the info key with the set's split"
    if "test_path" in dataset["split"] and "key" in dataset["split"]:
        yield f"datasets.{name}.split: give only one of: key | test_path"
    if "test_path" in dataset["split"] and dataset.keys() & {"load_atoms", "generate", "distort"}:
        yield f"datasets.{name}.split.test_path: only beside path; leave it out"


def _generation_problems(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    dataset = config["datasets"][name]
    generate, where = dataset["generate"], f"datasets.{name}.generate"
    for key in ("densities", "anneal_temperatures"):
        entry = generate.get(key)
        if isinstance(entry, Mapping) and entry["stop"] < entry["start"]:
            ends = f"stop {entry['stop']:g} is below start {entry['start']:g}"
            yield f"{where}.{key}: {ends}: exchange them"
    yield from _source_problems(where, generate, config)
    yield from _stage_problems(where, generate)
    atoms, per_formula = generate["atoms"], sum(generate["composition"].values())
    if atoms % per_formula:
        yield f"{where}.atoms: {atoms} is no multiple of the {per_formula} atoms of the composition"
    every = [trajectory.name for trajectory in trajectories({**generate, "exclude": []})]
    names = set(every)
    if len(names) < len(every):
        twice = next(name for name in every if every.count(name) > 1)
        yield f"{where}.densities: two trajectories are called '{twice}': give other values"
    for other in sorted(set(generate["exclude"]) - names):
        yield f"{where}.exclude: no trajectory is called '{other}'; the first is '{min(names)}'"
    if names <= set(generate["exclude"]):
        yield f"{where}.exclude: no trajectory is left; name fewer"
    made = structures_of(generate)
    if dataset["structures"] != made:
        yield f"datasets.{name}.structures: generate makes {made}; leave the number out"
    if dataset.get("format", "extxyz") != "extxyz" or "sha256" in dataset:
        yield f"datasets.{name}: format and sha256 are of files, and the set is generated"


def _source_problems(
    where: str, generate: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    name = generate["source"]
    yield from _unknown(config, f"{where}.source", name, "sources")
    source = config["sources"][name]
    if "calculator" not in source:
        yield f"{where}.source: '{name}' has no calculator to drive the dynamics with"
    if generate["engine"] == "lammps" and source["calculator"] != LAMMPSLIB:
        yield f"{where}.engine: source '{name}' is no LAMMPS pair style: choose ase or auto"
    for element in generate["composition"]:
        if element not in source["elements"]:
            known = ", ".join(source["elements"])
            yield f"{where}.composition: source '{name}' does not know {element}; it knows: {known}"


def _stage_problems(where: str, protocol: Mapping[str, Any]) -> Iterator[str]:
    timestep, every = protocol["timestep_fs"], protocol["frame_every_ps"]
    if not steps_of(every, timestep):
        steps = f"a whole number of steps of {timestep:g} fs"
        yield f"{where}.frame_every_ps: {every:g} ps is not {steps}"
    annealed = any(ANNEAL in stage.values() for stage in protocol["stages"])
    for index, stage in enumerate(protocol["stages"]):
        if not _is_whole(stage["ps"] / every):
            fault = f"{stage['ps']:g} ps is no multiple of the {every:g} ps from frame to frame"
            yield f"{where}.stages[{index}].ps: {fault}"
    if annealed and "anneal_temperatures" not in protocol:
        yield f"{where}.anneal_temperatures: missing; a stage has the temperature '{ANNEAL}'"
    if not annealed and "anneal_temperatures" in protocol:
        yield f"{where}.anneal_temperatures: no stage has the temperature '{ANNEAL}'; remove them"


def _weights_problems(config: dict[str, Any]) -> Iterator[str]:
    files = [Path(weights["file"]) for weights in config["pretrained_weights"]]
    sections = {"structures": "datasets", "source": "sources", "transform": "transforms"}
    for index, weights in enumerate(config["pretrained_weights"]):
        where = f"pretrained_weights[{index}]"
        for key, reason in address_faults(weights):
            yield f"{where}.{key}: {reason}"
        for key, section in sections.items():
            yield from _unknown(config, f"{where}.{key}", weights[key], section)
        # The record of their retrieval has the file's name.
        file = files[index]
        if any(file.name == other.name and file != other for other in files):
            yield f"{where}.file: another file has the name '{file.name}'; rename one"


def _figure_problems(config: dict[str, Any]) -> Iterator[str]:
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
    for section in ("sources", "transforms"):
        for index, value in enumerate(experiment[section]):
            yield from _unknown(config, f"{where}.{section}[{index}]", value, section)
    if "embedding" in experiment:
        yield from _unknown(config, f"{where}.embedding", experiment["embedding"], "embeddings")
    for index, value in enumerate(experiment["also_test"]):
        key = f"{where}.also_test[{index}]"
        yield from _unknown(config, key, value, "datasets")
        if value == experiment["target"]:
            yield f"{key}: '{value}' is the target, on which every model is tested anyway"
        if "labels" not in config["datasets"].get(value, {}):
            yield f"{key}: '{value}' has no labels to test with"
        yield from _without_structures(config, value, key)
    yield from _without_structures(config, experiment["target"], f"{where}.target")
    target = config["datasets"][experiment["target"]]
    yield from _pretraining_problems(where, experiment, config)
    if "labels" not in target:
        yield (
            f"{where}.target: '{experiment['target']}' has no labels; name their keys, or a "
            f"source that computes them, in datasets.{experiment['target']}.labels"
        )
    for key, role in (("sizes", "target"), ("pretrain_sizes", "structures")):
        dataset = config["datasets"][experiment[role]]
        pool = largest_pool(dataset) if dataset.keys() & set(STRUCTURE_KEYS) else None
        labelled = key == "pretrain_sizes" or label_source(dataset) is not None
        for index, size in enumerate(experiment[key]):
            if labelled and size > MOST_CHUNKS * (chunk := config["labelling"]["chunk_size"]):
                yield (
                    f"{where}.{key}[{index}]: {size:,} structures in chunks of {chunk:,} are more "
                    f"than {MOST_CHUNKS:,} labelling jobs: lower it, or raise labelling.chunk_size"
                )
            if pool is not None and size > pool:
                yield (
                    f"{where}.{key}[{index}]: {size} is more than the pool of "
                    f"'{experiment[role]}', at most {pool} training structures"
                )


def _pretraining_problems(
    where: str, experiment: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what the pre-trainings lack that no published weights replace."""
    for pretraining in pretrained_here(config, experiment):
        values = ", ".join(map("{} {}".format, PRETRAINING_KEYS, pretraining))
        reader = f"a pre-training of {where} that pretrained_weights lacks: {values}"
        structures, _, source, *_ = pretraining
        yield from _without_structures(config, structures, reader)
        keys = config["sources"][source].keys()
        if not keys & set(LABEL_KEYS):
            choice = " | ".join(LABEL_KEYS)
            yield f"sources.{source}: give one of: {choice}; its labels are read by {reader}"
        if "own_labels" in keys and not has_own_labels(config["datasets"][structures]):
            yield (
                f"sources.{source}.own_labels: '{structures}' has no labels; "
                f"name their keys in datasets.{structures}.labels"
            )
        if "published_labels" in keys:
            key, name = f"sources.{source}.published_labels", verifier(config, source)
            if name is not None:
                yield from _unknown(config, f"{key}.verify_with", name, "sources")
                if "calculator" not in config["sources"][name]:
                    yield f"{key}.verify_with: '{name}' has no calculator to compare with"
            elif not has_own_labels(config["datasets"][structures]):
                yield (
                    f"{key}: nothing to compare them with: give verify_with, a source with a "
                    f"calculator, or datasets.{structures}.labels, the set's own"
                )
        zeros = [fitted_zero(config["datasets"][d]) for d in (experiment["target"], structures)]
        if zeros[0] != zeros[1]:
            kinds = [f"fitted ({zero})" if zero else "that of isolated atoms" for zero in zeros]
            yield (
                f"{where}: the energy zero of target '{experiment['target']}' is {kinds[0]}, "
                f"that of structures '{structures}' is {kinds[1]}: give both "
                f"the same energy_reference, or fine-tuning starts several eV/atom off"
            )


def _map_problems(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    embedding = config["embeddings"][name]
    seen = set()
    for role in SAMPLE_ROLES:
        for index, sample in enumerate(embedding[role]):
            where = f"embeddings.{name}.{role}[{index}]"
            yield from _unknown(config, f"{where}.dataset", sample["dataset"], "datasets")
            yield from _unknown(config, f"{where}.transform", sample["transform"], "transforms")
            own_name = sample_name(sample)
            if own_name in seen:
                yield f"{where}: there are two samples '{own_name}'; give this one a name"
            seen.add(own_name)
            dataset = config["datasets"][sample["dataset"]]
            yield from _without_structures(config, sample["dataset"], where)
            yield from _not_kept(config, f"{where}.where", sample["where"], sample["dataset"])
            own = dataset.get("labels", {}).keys() & {"energy", "per_atom_energy"}
            if role == "base" and "energy" in embedding["colour_by"] and not own:
                yield (
                    f"embeddings.{name}.colour_by: '{sample['dataset']}' has no energies; name "
                    f"their key in its labels, or colour by something else"
                )


def _stability_problems(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    test = config["dynamics"][name]
    where = f"dynamics.{name}"
    for index, entry in enumerate(test["models"]):
        key = f"{where}.models[{index}].experiment"
        yield from _unknown(config, key, entry["experiment"], "experiments")
    start = test["start"]
    if "dataset" in start:
        yield from _unknown(config, f"{where}.start.dataset", start["dataset"], "datasets")
        yield from _without_structures(config, start["dataset"], f"{where}.start")
        for key in ("where", "nearest"):
            yield from _not_kept(config, f"{where}.start.{key}", start[key], start["dataset"])
    yield from _stage_problems(where, test)
    every, frame, timestep = (
        test[key] for key in ("log_every_ps", "frame_every_ps", "timestep_fs")
    )
    if not _is_whole(frame / every):
        yield f"{where}.log_every_ps: {every:g} ps must divide frame_every_ps, {frame:g}"
    if not _is_whole(1000 * every / timestep):
        yield f"{where}.log_every_ps: {every:g} ps must be a multiple of timestep_fs, {timestep:g}"
    for time in test["snapshots"]:
        if time != FIRST_FIVE_FOLD and time > duration_ps(test) + TOLERANCE:
            yield f"{where}.snapshots: {time:g} ps is after the end at {duration_ps(test):g} ps"


def _given_twice(where: str, entry: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    if len(entry.keys() & set(keys)) > 1:
        yield f"{where}: give only one of: {' | '.join(keys)}"


def _without_structures(config: Mapping[str, Any], dataset: str, reader: str) -> Iterator[str]:
    """Yield a problem if nothing gives the structures of a dataset that is read."""
    if not config["datasets"][dataset].keys() & set(STRUCTURE_KEYS):
        choice = " | ".join(STRUCTURE_KEYS)
        yield f"datasets.{dataset}: give one of: {choice}; its structures are read by {reader}"


def _not_kept(
    config: Mapping[str, Any], where: str, keys: Iterable[str], dataset: str
) -> Iterator[str]:
    for key in keys:
        if key not in config["datasets"][dataset]["keep"]:
            yield f"{where}: '{key}' is not kept; add it to datasets.{dataset}.keep"


def _is_whole(ratio: float) -> bool:
    return isfinite(ratio) and round(ratio) >= 1 and abs(ratio - round(ratio)) <= TOLERANCE * ratio


def _unknown(config: Mapping[str, Any], key: str, name: str, section: str) -> Iterator[str]:
    """Yield a problem if `name`, the value of `key`, is not in a section of the configuration."""
    if name not in config[section]:
        allowed = ", ".join(config[section]) or "none configured"
        yield f"{key}: '{name}' is not one of the configured {section}; allowed: {allowed}"
