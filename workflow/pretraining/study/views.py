"""The part of a configuration that each kind of job reads: an edit reruns only those jobs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pretraining.study import embeddings as samples
from pretraining.study import generation as protocol
from pretraining.study import stability as robustness
from pretraining.study.queries import dataset_part
from pretraining.study.settings import KINDS, RUNTIME_OPTIONS

# What decides a source's labels, and how they are made: only the first is a reason to label again.
DECISIVE_KEYS = ("calculator", "args", "kwargs", "preload", "fresh_calculator", "isolated_atom")
STUDY_KEYS = ("results", "datasets", "sources", "transforms", "pretrained_weights")
# How an experiment is shown.
SHOWN_KEYS = ("compare", "embedding", "title")
ADDRESS_KEYS = ("url", "from")
SOURCE_OPTIONS = ("on_error", "time_limit", "python", "install", "neutral_kwargs")


def settings_part(config: dict[str, Any], part: str) -> dict[str, Any]:
    """Return the part of a validated configuration that one kind of job reads.

    Parameters
    ----------
    config
        A validated configuration.
    part
        ``configuration`` (all of it, which no job reads), ``study`` (what decides which runs and
        results there are), ``pretrain~TRANSFORM``, ``direct``, ``finetune``, ``styles``,
        ``dataset~NAME``, ``generate~NAME``, ``source~NAME`` (what decides its labels),
        ``files~NAME`` (what it retrieves), ``check~NAME``, ``weights~FILE``, or a part of a map
        of environments or of molecular dynamics.
    """
    section, _, name = part.partition("~")
    match section:
        case "configuration":
            return config
        case "study":
            experiments = config["experiments"].items()
            return {key: config[key] for key in STUDY_KEYS} | {
                "experiments": {
                    name: {k: v for k, v in experiment.items() if k not in SHOWN_KEYS}
                    for name, experiment in experiments
                }
            }
        case "pretrain" | "direct" | "finetune":
            # Only what this kind of run depends on: how it is carried out is told on the way.
            apart = (*RUNTIME_OPTIONS, *KINDS)
            training = {k: v for k, v in config["training"].items() if k not in apart}
            return {
                "network": config["network"],
                "training": training | config["training"][section],
                "transforms": {name: config["transforms"][name]} if name else {},
            }
        case "styles":
            sources = config["sources"].items()
            datasets, transforms = config["datasets"].items(), config["transforms"].items()
            shown = ("elements", "scale", "cutoff")
            return {
                "sources": {n: {k: s[k] for k in ("title", "kind")} for n, s in sources},
                "datasets": {n: {"title": d.get("title", n)} for n, d in datasets},
                "transforms": {n: {k: t[k] for k in shown if k in t} for n, t in transforms},
            }
        case "dataset":
            return {"datasets": {name: dataset_part(config, name)}}
        case "generate":
            dataset = config["datasets"][name]
            shared = protocol.protocol_of(dataset["generate"])
            # The name keeps the random numbers of two datasets apart.
            own = {"dataset": name, "clash_distance": dataset["checks"]["min_distance"]}
            source = source_part(config, shared["source"], DECISIVE_KEYS)
            return {"generate": shared | own, **source}
        case "check":
            source = config["sources"][name].items()
            return {
                "sources": {name: {k: v for k, v in source if k != "title"}},
                "check_sources": config["check_sources"],
            }
        case "files":
            # Not from where: a new address for the same file is no reason to label again.
            files = [
                {key: value for key, value in file.items() if key not in ADDRESS_KEYS}
                for file in config["sources"][name]["files"]
            ]
            return {"sources": {name: {"files": files}}}
        case "descriptors":
            return samples.descriptors_part(config, *name.split("~"))
        case "embedding":
            return samples.embedding_part(config, name)
        case "umap":
            return samples.style_part(config, name)
        case "dynamics":
            return robustness.protocol_part(config, name)
        case "start":
            return robustness.start_part(config, name)
        case "weights":
            weights = config["pretrained_weights"]
            return {"pretrained_weights": [w for w in weights if Path(w["file"]).name == name]}
        case _:
            return source_part(config, name, DECISIVE_KEYS)


def source_part(config: dict[str, Any], name: str, keys: Iterable[str]) -> dict[str, Any]:
    """Return the entry of a label source, cut down to `keys`."""
    source = config["sources"][name].items()
    return {"sources": {name: {key: value for key, value in source if key in keys}}}
