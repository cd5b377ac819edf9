"""Load and validate a study's configuration.

A fault is one line that names the file, the key, the value and what is allowed.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from pretraining import protocol, robustness, samples
from pretraining.errors import UserError
from pretraining.settings import KINDS, MACHINE_KEYS
from pretraining.sources import unknown_placeholders
from pretraining.splits import split_sizes

# Energy references that are fitted; the others are energies of isolated atoms.
FITTED = ("least_squares", "median_shift")
# What decides a source's labels, and how they are made: only the first is a reason to label again.
DECISIVE_KEYS = ("calculator", "args", "kwargs", "preload", "fresh_calculator", "isolated_atom")
ADDRESS_KEYS = ("url", "from")
CONDUCT_KEYS = ("on_error", "time_limit", "python", "install")
SCHEMA = Path(__file__).resolve().parents[1] / "schemas" / "config.schema.yaml"

__all__ = [
    "dataset_part",
    "datasets_of",
    "datasets_read",
    "largest_pool",
    "load_config",
    "read_config",
    "settings_part",
    "trajectory_files",
    "validate_config",
    "validate_study",
]


class UniqueKeyLoader(yaml.SafeLoader):
    """A YAML loader that refuses a key written twice, where YAML would keep the last."""


def _unique_mapping(loader: UniqueKeyLoader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for index, (key, (key_node, _)) in enumerate(zip(keys, node.value, strict=True)):
        if key in keys[:index]:
            line = key_node.start_mark.line + 1
            raise UserError(f"line {line}: key '{key}' is given twice; keep one")
    return loader.construct_mapping(node, deep=True)


UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def load_config(path: str | Path) -> dict[str, Any]:
    """Read a configuration file, validate it and fill in the defaults.

    Parameters
    ----------
    path
        A YAML file in the form of ``workflow/schemas/config.schema.yaml``.

    Returns
    -------
    dict
        The configuration with every default of the schema written out.

    Raises
    ------
    UserError
        In one line, for a file that is missing, is not YAML or breaks a rule.
    """
    return validate_config(read_config(path), str(path))


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a configuration file as it is written; a key given twice is an error, as is no file."""
    try:
        with open(path, encoding="utf-8") as handle:
            config = yaml.load(handle, Loader=UniqueKeyLoader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(config, dict):
        raise UserError(f"{path}: must be a mapping of keys to values, as config/config.yaml is")
    return config


def validate_study(
    config: dict[str, Any], file: str, root: str | Path | None = None
) -> dict[str, Any]:
    """Validate a configuration as a whole study: what it names must be configured too.

    A program that needs only a part, such as the label sources, takes a file with that part.

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
        In one line, for the first rule that is broken.
    """
    for section in ("datasets", "sources", "experiments"):
        if section not in config:
            raise UserError(f"{file}: section '{section}' is missing; see config/README.md")
    config = validate_config(config, file)
    for problem in _cross_checks(config):
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


def validate_config(config: dict[str, Any], file: str) -> dict[str, Any]:
    """Return a validated copy of `config` with its defaults; `file` names it in messages.

    Raises
    ------
    UserError
        In one line, for the first rule of the schema that is broken.
    """
    config = copy.deepcopy(config)
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))
    for key, value in config.items():
        # `--config allow_missing=true` arrives as text.
        if schema["properties"].get(key, {}).get("type") == "boolean" and isinstance(value, str):
            config[key] = {"true": True, "false": False}.get(value.lower(), value)
    error = best_match(Draft202012Validator(schema).iter_errors(config))
    if error is not None:
        raise UserError(f"{file}: {_describe(error)}")
    _set_defaults(config, schema, schema)
    for dataset in config.get("datasets", {}).values():
        if "generate" in dataset:
            dataset.setdefault("structures", protocol.structures_of(dataset["generate"]))
    config["transforms"] = {"none": {"scale": 1.0, "scale_forces": False}} | config["transforms"]
    return config


def _key(path: list[str | int]) -> str:
    """Write a path into the configuration as ``experiments.fig2.sizes[0]``."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".") or "top level"


def _describe(error: ValidationError) -> str:
    """Say in one line which key is wrong, its value and what is allowed."""
    path = list(error.absolute_path)
    where = _key(path)
    schema = error.schema if isinstance(error.schema, dict) else {}
    meaning = f" ({schema['description']})" if "description" in schema else ""
    match error.validator:
        case "additionalProperties":
            known = sorted(schema.get("properties", {}))
            unknown = next(key for key in error.instance if key not in known)
            near = difflib.get_close_matches(str(unknown), known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            return f"{where}: unknown key '{unknown}'{hint} allowed: {', '.join(known)}"
        case "required":
            missing = next(key for key in error.validator_value if key not in error.instance)
            return f"{where}: key '{missing}' is missing"
        case "enum":
            allowed = ", ".join(map(str, error.validator_value))
            return f"{where}: {error.instance!r} is not allowed; allowed: {allowed}"
        case "uniqueItems":
            twice = next(item for item in error.instance if error.instance.count(item) > 1)
            return f"{where}: {twice!r} is given twice; every entry must differ"
        case "oneOf" if all(set(option) == {"required"} for option in error.validator_value):
            options = " | ".join(" + ".join(o["required"]) for o in error.validator_value)
            return f"{where}: give one of: {options}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            sign = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<="}
            bound = f"{sign.get(error.validator, '<')} {error.validator_value}"
            return f"{where}: {error.instance!r} is not allowed; must be {bound}{meaning}"
        case "type":
            allowed = error.validator_value
            return f"{where}: {error.instance!r} is not of type {allowed}{meaning}"
        case "pattern":
            return f"{where}: {error.instance!r} is not allowed{meaning}"
        case _:
            return f"{where}: {error.message}{meaning}"


def _set_defaults(value: Any, schema: dict, root: dict) -> None:
    """Write the schema's defaults into `value`, in place, at every depth."""
    if "$ref" in schema:
        _set_defaults(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for key, subschema in properties.items():
            default = subschema.get("default", _default_of_ref(subschema, root))
            if default is not None:
                value.setdefault(key, copy.deepcopy(default))
            if key in value:
                _set_defaults(value[key], subschema, root)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for key in value.keys() - properties.keys():
                _set_defaults(value[key], extra, root)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            _set_defaults(item, schema["items"], root)


def _default_of_ref(schema: dict, root: dict) -> Any:
    if "$ref" not in schema:
        return None
    return root["$defs"][schema["$ref"].rsplit("/", 1)[1]].get("default")


def _cross_checks(config: dict[str, Any]) -> Iterator[str]:
    """Yield every broken rule between keys that a schema cannot express."""

    def one_of(key: str, name: str, section: str) -> Iterator[str]:
        if name not in config[section]:
            allowed = ", ".join(config[section]) or "none configured"
            yield f"{key}: '{name}' is not one of the configured {section}; allowed: {allowed}"

    for name, dataset in config["datasets"].items():
        source = dataset["energy_reference"].get("source")
        if source is not None:
            yield from one_of(f"datasets.{name}.energy_reference.source", source, "sources")
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
            yield from one_of(f"datasets.{name}.labels.source", labeller, "sources")
            if "calculator" not in config["sources"][labeller]:
                yield f"datasets.{name}.labels.source: '{labeller}' has no calculator to label with"
        if "generate" in dataset:
            yield from _generate_problems(name, dataset, config["sources"])
        if "val" in dataset["split"] and "key" not in dataset["split"]:
            yield f"datasets.{name}.split.val: needs split.key, the info key with the set's split"

    for key, names in config["compare_sources"].items():
        for index, name in enumerate(names):
            yield from one_of(f"compare_sources.{key}[{index}]", name, key)

    for name, source in config["sources"].items():
        for key in ("args", "kwargs", "preload"):
            for text in unknown_placeholders(source[key]):
                yield (
                    f"sources.{name}.{key}: unknown placeholder '{text}'; allowed: {{config}}, "
                    f"{{root}}, {{prefix}}, {{package:NAME}}"
                )

    weight_files = [Path(weights["file"]) for weights in config["pretrained_weights"]]
    for index, weights in enumerate(config["pretrained_weights"]):
        for key, section in [("structures", "datasets"), ("source", "sources")]:
            yield from one_of(f"pretrained_weights[{index}].{key}", weights[key], section)
        yield from one_of(
            f"pretrained_weights[{index}].transform", weights["transform"], "transforms"
        )
        # Their stamp is called after them.
        file = Path(weights["file"])
        if any(file.name == other.name and file != other for other in weight_files):
            yield f"pretrained_weights[{index}].file: another file is called '{file.name}', too"

    figures = {"sources", "students"}
    figures |= {f"umap-{name}" for name in config["embeddings"]}
    figures |= {f"md-{name}" for name in config["dynamics"]}
    figures |= {f"structures-{name}" for name, d in config["datasets"].items() if "generate" in d}
    for name in sorted(figures & config["experiments"].keys()):
        yield f"experiments.{name}: figures/{name}.pdf is another figure; give it another name"

    for name, experiment in config["experiments"].items():
        where = f"experiments.{name}"
        for key in ("target", "structures"):
            yield from one_of(f"{where}.{key}", experiment[key], "datasets")
        for key, section in [("sources", "sources"), ("transforms", "transforms")]:
            for index, value in enumerate(experiment[key]):
                yield from one_of(f"{where}.{key}[{index}]", value, section)
        if "embedding" in experiment:
            yield from one_of(f"{where}.embedding", experiment["embedding"], "embeddings")
        for index, value in enumerate(experiment["also_test"]):
            key = f"{where}.also_test[{index}]"
            yield from one_of(key, value, "datasets")
            if value == experiment["target"]:
                yield f"{key}: '{value}' is the target, on which every model is tested anyway"
            if "labels" not in config["datasets"].get(value, {}):
                yield f"{key}: '{value}' has no labels to test with"
        for source in experiment["sources"]:
            given = "own_labels" in config["sources"].get(source, {})
            if given and not has_own_labels(config["datasets"][experiment["structures"]]):
                yield (
                    f"sources.{source}.own_labels: '{experiment['structures']}' has no labels; "
                    f"name their keys in datasets.{experiment['structures']}.labels"
                )
        target, structures = (config["datasets"][experiment[k]] for k in ("target", "structures"))
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

    for name in config["embeddings"]:
        yield from samples.problems(name, config)
    for name in config["dynamics"]:
        yield from robustness.problems(name, config)


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


def _generate_problems(name: str, dataset: dict, sources: dict) -> Iterator[str]:
    """Yield what is wrong with a dataset that is generated."""
    for key, fault in protocol.problems(dataset["generate"], sources):
        yield f"datasets.{name}.generate.{key}: {fault}"
    made = protocol.structures_of(dataset["generate"])
    if dataset["structures"] != made:
        yield f"datasets.{name}.structures: generate makes {made}; leave the number out"
    if dataset.get("format", "extxyz") != "extxyz" or "sha256" in dataset:
        yield f"datasets.{name}: format and sha256 are of files, and the set is generated"


def trajectory_files(config: dict[str, Any], name: str) -> list[str]:
    """Return the trajectories of a generated dataset, in the order of their structures."""
    folder = f"{config['results']}/data/{name}/trajectories"
    runs = protocol.trajectories(config["datasets"][name]["generate"])
    return [f"{folder}/{run.name}.extxyz" for run in runs]


def dataset_part(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what the preparation of a dataset reads; a generated set is files by then."""
    dataset = config["datasets"][name]
    if "generate" not in dataset:
        return dataset
    rest = {key: value for key, value in dataset.items() if key != "generate"}
    return rest | {"path": trajectory_files(config, name), "format": "extxyz"}


def fitted_zero(dataset: dict[str, Any]) -> str | None:
    """Return how the energy zero of a dataset is fitted to its training pool; None if it is not."""
    return next((fit for fit in FITTED if fit in dataset["energy_reference"]), None)


def settings_part(config: dict[str, Any], part: str) -> dict[str, Any]:
    """Return the part of a validated configuration that one kind of job reads.

    Parameters
    ----------
    config
        A validated configuration.
    part
        ``study`` (all of it), ``pretrain~TRANSFORM``, ``direct``, ``finetune``, ``styles``,
        ``dataset~NAME``, ``generate~NAME``, ``source~NAME`` (what decides its labels),
        ``files~NAME`` (what it retrieves), ``check~NAME`` or ``weights~FILE``.
    """
    section, _, name = part.partition("~")
    match section:
        case "study":
            return config
        case "pretrain" | "direct" | "finetune":
            # Only what this kind of run depends on: how it is carried out is told on the way.
            apart = (*MACHINE_KEYS, *KINDS)
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
