"""Config views: the keys of a configuration that each kind of job reads.

Each view is a settings file of its own: editing another key does not rerun the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pretraining.runtime.files import file_sha256
from pretraining.study.generation import trajectory_files
from pretraining.study.queries import samples_of
from pretraining.study.settings import KINDS, RUNTIME_OPTIONS
from pretraining.study.sources import DECISIVE_KEYS

ADDRESS_KEYS = ("url", "from")
STUDY_KEYS = ("results", "datasets", "sources", "transforms", "pretrained_weights")
# Keys of an experiment, a source and a sample that only figures read.
EXPERIMENT_STYLE = ("compare", "embedding", "title")
SOURCE_STYLE = ("title", "kind", "colour", "marker")
SAMPLE_STYLE = ("title", "colour", "shown")
# Keys of a generated dataset that differ between trajectories.
TRAJECTORY_KEYS = ("densities", "anneal_temperatures", "replicas", "exclude")
# Keys of a stability test that do not change a given trajectory.
TEST_KEYS = ("title", "models", "replicas", "batch", "start", "snapshots")


def config_view(config: Mapping[str, Any], view: str) -> dict[str, Any]:
    """Return the keys of a validated configuration that one kind of job reads.

    Parameters
    ----------
    view
        ``study`` (the keys that decide runs and results), ``pretrain~TRANSFORM``, ``direct``,
        ``finetune``, ``styles``, ``dataset~NAME``, ``generate~NAME``, ``source~NAME`` (the keys
        that decide its labels), ``files~NAME`` (its files to retrieve), ``check~NAME``,
        ``weights~FILE``, of maps ``descriptors~MAP~SAMPLE``, ``embedding~MAP``, ``umap~MAP`` (its
        style), and of stability tests ``dynamics~NAME``, ``start~NAME``.
    """
    section, _, name = view.partition("~")
    match section:
        case "study":
            experiments = {
                n: _without(e, EXPERIMENT_STYLE) for n, e in config["experiments"].items()
            }
            return _only(config, STUDY_KEYS) | {"experiments": experiments}
        case "pretrain" | "direct" | "finetune":
            # The command line passes the runtime options.
            training = _without(config["training"], (*RUNTIME_OPTIONS, *KINDS))
            return {
                "network": config["network"],
                "training": training | config["training"][section],
                "transforms": {name: config["transforms"][name]} if name else {},
            }
        case "styles":
            sources, datasets = config["sources"].items(), config["datasets"].items()
            transforms = config["transforms"].items()
            return {
                "sources": {n: _only(s, SOURCE_STYLE) for n, s in sources},
                "datasets": {
                    n: {"title": n} | _only(d, ("title", "published_as")) for n, d in datasets
                },
                "transforms": {n: _only(t, ("elements", "scale", "cutoff")) for n, t in transforms},
                "figures": _figure_style(config["figures"]),
            }
        case "dataset":
            return {"datasets": {name: dataset_view(config, name)}}
        case "generate":
            dataset = config["datasets"][name]
            shared = _without(dataset["generate"], TRAJECTORY_KEYS)
            # The name keeps the random numbers of two datasets apart.
            own = {"dataset": name, "clash_distance": dataset["checks"]["min_distance"]}
            source = config_view(config, f"source~{shared['source']}")
            return {"generate": shared | own, **source}
        case "source":
            return {"sources": {name: _only(config["sources"][name], DECISIVE_KEYS)}}
        case "check":
            source = _without(config["sources"][name], ("title", "about"))
            return {"sources": {name: source}, "check_sources": config["check_sources"]}
        case "files":
            # A new address of the same file is no reason to label again.
            files = [_without(file, ADDRESS_KEYS) for file in config["sources"][name]["files"]]
            return {"sources": {name: {"files": files}}}
        case "weights":
            weights = config["pretrained_weights"]
            return {"pretrained_weights": [w for w in weights if Path(w["file"]).name == name]}
        case "descriptors":
            return _descriptors_view(config, *name.split("~"))
        case "embedding":
            return _only(config["embeddings"][name], ("n_neighbors", "min_dist", "seed"))
        case "umap":
            return _map_style(config, name)
        case "dynamics":
            return {"dynamics": _without(config["dynamics"][name], TEST_KEYS)}
        case "start":
            return {"start": config["dynamics"][name]["start"]}
    raise ValueError(f"no view {view}")


def _figure_style(figures: Mapping[str, Any]) -> dict[str, Any]:
    look = _only(figures, ("width", "style"))
    file = Path(figures.get("style", ""))
    return look | ({"style_sha256": file_sha256(file)} if file.is_file() else {})


def dataset_view(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the keys that decide a prepared set; of a generated one, the trajectories' files."""
    dataset = config["datasets"][name]
    view = _without(dataset, ("generate", "title", "about", "published_as"))
    if "generate" in dataset:
        view |= {"path": trajectory_files(config, name), "format": "extxyz"}
    if isinstance(dataset.get("transform"), str):
        view["transform"] = config["transforms"][dataset["transform"]]
    return view


def _descriptors_view(config: Mapping[str, Any], embedding: str, name: str) -> dict[str, Any]:
    entry = config["embeddings"][embedding]
    sample = dict(samples_of(entry)[name])
    transform = _only(config["transforms"][sample["transform"]], ("elements", "scale"))
    # A stretched structure has stretched bonds.
    if "neighbour_radius" in config["figures"]:
        radius = config["figures"]["neighbour_radius"] * transform.get("scale", 1.0)
        sample.setdefault("neighbour_radius", radius)
    return {
        "descriptor": entry["descriptor"],
        "seed": entry["seed"],
        "sample": _without(sample, (*SAMPLE_STYLE, "role", "name")),
        "transforms": {sample["transform"]: transform},
    }


def _map_style(config: Mapping[str, Any], embedding: str) -> dict[str, Any]:
    entry = config["embeddings"][embedding]
    samples = {}
    for name, sample in samples_of(entry).items():
        title = config["datasets"][sample["dataset"]].get("title", sample["dataset"])
        samples[name] = {"title": title} | _only(sample, (*SAMPLE_STYLE, "role"))
    colour_by = entry["colour_by"]
    return {
        "colour_by": [colour_by] if isinstance(colour_by, str) else colour_by,
        "samples": samples,
    }


def _only(entry: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key in tuple(keys)}


def _without(entry: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in tuple(keys)}
