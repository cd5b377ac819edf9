"""Load a study's configuration: validate it with the schema and fill in the defaults."""

from __future__ import annotations

import copy
import difflib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, best_match

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import SafeLoader, read_yaml
from pretraining.study.consistency import problems
from pretraining.study.elements import element_problems
from pretraining.study.generation import structures_of, too_many
from pretraining.study.network import builder_problems
from pretraining.study.plain import faults
from pretraining.study.queries import datasets_read, paths_of, structure_files
from pretraining.study.titles import PAPER_SOURCES, SourceStyle, style_problems

# Folders of the repository that are not for results.
REPOSITORY = (
    "benchmarks",
    "config",
    "docs",
    "envs",
    "profiles",
    "resources",
    "slurm",
    "tests",
    "workflow",
)
ROOT = Path(__file__).resolve().parents[3]
SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.yaml"


def load_config(*paths: str | Path) -> dict[str, Any]:
    """Read configuration files, validate them with the schema and fill in the defaults.

    Raises a `UserError` if a file is missing, is not YAML or breaks a rule of
    ``workflow/schemas/config.schema.yaml``.
    """
    return validate_config(read_config(*paths), " + ".join(map(str, paths)))


def read_config(*paths: str | Path) -> dict[str, Any]:
    """Read configuration files as written; as with Snakemake, values of later ones count."""
    config = read_yaml(paths[0])
    for path in paths[1:]:
        config = merged(config, read_yaml(path))
    return config


def merged(config: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Return one configuration of two, as Snakemake merges them; it is not in every environment."""
    inner = {
        key: merged(config[key], value)
        for key, value in later.items()
        if isinstance(value, dict) and isinstance(config.get(key), dict)
    }
    return config | later | inner


def validate_study(
    config: dict[str, Any], file: str, root: str | Path | None = None
) -> dict[str, Any]:
    """Return a validated copy, with its defaults, of the configuration of a whole study.

    Raises a `UserError` for the first broken rule, naming the key, its value and what is allowed.

    Parameters
    ----------
    file
        The configuration's name, for messages.
    root
        Folder that paths are relative to; if given, the files must exist.
    """
    config = validate_config(config, file)
    for section in ("datasets", "sources", "experiments"):
        if section not in config:
            raise UserError(f"{file}: section '{section}' is missing; see config/README.md")
    for problem in chain(_results_problems(config["results"]), problems(config)):
        raise UserError(f"{file}: {problem}")
    if root is not None:
        for dataset in config["datasets"].values():
            if "path" in dataset and "url" not in dataset:
                found = structure_files(dataset["path"], Path(root))
                dataset["path"] = found if len(found) > 1 else found[0]
        for key, path in _named_files(config):
            if (Path(root) / path).is_dir():
                raise UserError(
                    f"{file}: {key}: '{path}' is a folder, and no deepmd system: name its files, "
                    f"or a pattern as {path}/*.xyz"
                )
            if not (Path(root) / path).is_file():
                raise UserError(f"{file}: {key}: no such file: '{path}'; put it there or name it")
        for problem in chain(
            element_problems(config, Path(root)),
            builder_problems(config["network"]["model"]),
            style_problems(Path(root), config["figures"].get("style")),
        ):
            raise UserError(f"{file}: {problem}")
    return config


def _results_problems(results: str) -> Iterator[str]:
    """Yield why a folder cannot hold the results: the repository, or a part of it, is there."""
    folder = (ROOT / results).resolve()
    inside = folder.parts[len(ROOT.parts) :] if folder.is_relative_to(ROOT) else None
    if folder in (ROOT, *ROOT.parents) or (inside and inside[0] != "results" and _own(inside[0])):
        yield f"results: '{results}' is part of the repository; give a folder as results/NAME"
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if there.is_file():
        yield f"results: '{results}': {there.name} is a file; give a folder as results/NAME"
    elif there != folder and not os.access(there, os.W_OK):
        yield f"results: '{results}' cannot be made: {there} is not writable; give another folder"


def _own(name: str) -> bool:
    return name.startswith(".") or name in REPOSITORY


def _named_files(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the key and the path of every file that the study reads."""
    if config["metrics_from"] == "shipped":
        yield "shipped", config["shipped"]
    if config["metrics_from"] != "computed":
        return
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


def validate_written(config: dict[str, Any], file: str) -> None:
    """Raise a `UserError` if a configuration breaks a rule, but for keys that it may leave out."""
    schema = copy.deepcopy(_schema())
    schema["$defs"]["experiment"]["required"] = ["target", "structures", "sources"]
    schema["$defs"]["generate"]["required"] = ["source"]
    schema["$defs"]["dataset"]["properties"]["distort"]["required"] = []
    for fault in faults(config):
        raise UserError(f"{file}: {fault}")
    _validated(config, schema, file)


def validate_config(config: dict[str, Any], file: str) -> dict[str, Any]:
    """Return a validated copy of `config` with its defaults; `file` names it in messages.

    Raises a `UserError`, in one line, for the first rule of the schema that is broken.
    """
    schema = _schema()
    for fault in faults(config):
        raise UserError(f"{file}: {fault}")
    config = dict(config)
    for key, value in config.items():
        # `--config allow_missing=true` arrives as text.
        if schema["properties"].get(key, {}).get("type") == "boolean" and isinstance(value, str):
            config[key] = {"true": True, "false": False}.get(value.lower(), value)
    config = _validated(config, schema, file)
    _add_origins_of_weights(config)
    _set_defaults(config, schema, schema)
    for name, dataset in config.get("datasets", {}).items():
        if "test_path" in dataset["split"] and "path" in dataset:
            dataset["path"] = paths_of(dataset)
        if "generate" in dataset:
            for problem in too_many(f"datasets.{name}.generate", dataset["generate"]):
                raise UserError(f"{file}: {problem}")
            dataset.setdefault("structures", structures_of(dataset["generate"]))
        elif "distort" in dataset:
            dataset.setdefault("structures", dataset["distort"]["number"])
    for source in config.get("sources", {}).values():
        if "published_labels" in source:
            # They replace the calculator and the files of its parameters.
            source.pop("calculator", None)
            source["files"] = source["published_labels"]["files"]
    config["transforms"] = {"none": {"scale": 1.0, "scale_forces": False}} | config["transforms"]
    return config


def _add_origins_of_weights(config: dict[str, Any]) -> None:
    """Add the structures and sources of published weights that an experiment names, in place.

    These need no entry: nothing reads them.
    """
    experiments = config.get("experiments", {}).values()
    structures = {experiment["structures"] for experiment in experiments}
    sources = {source for experiment in experiments for source in experiment["sources"]}
    weights = config["pretrained_weights"]
    for name in (entry["structures"] for entry in weights):
        if name in structures:
            config.setdefault("datasets", {}).setdefault(name, {})
    origins = [entry["source"] for entry in weights]
    # Legends have the order of the configuration, and the paper's sources that of the paper.
    for source in dict.fromkeys([*PAPER_SOURCES, *origins]):
        if source in sources and source in origins:
            style = PAPER_SOURCES.get(source, SourceStyle(source))
            entry = {"title": style.title, "kind": style.kind}
            config.setdefault("sources", {}).setdefault(source, entry)


def validate_sections(content: dict[str, Any], sections: Sequence[str]) -> dict[str, Any]:
    """Return a validated copy of some sections of a configuration, with their defaults.

    Raises a `UserError`, in one line, for the first rule of the schema that is broken.
    """
    schema = _schema()
    for fault in faults(content):
        raise UserError(fault)
    properties = {name: schema["properties"][name] for name in sections}
    return _validated(content, schema | {"properties": properties, "required": []})


@functools.cache
def _schema() -> dict[str, Any]:
    return yaml.load(SCHEMA.read_text(encoding="utf-8"), Loader=SafeLoader)


def _validated(config: dict[str, Any], schema: dict[str, Any], file: str = "") -> dict[str, Any]:
    config = copy.deepcopy(config)
    error = best_match(Validator(schema).iter_errors(config))
    if error is not None:
        raise UserError(f"{file}: {_described(error)}" if file else _described(error))
    _set_defaults(config, schema, schema)
    return config


def _fullmatch(
    validator: Any, pattern: str, instance: Any, schema: dict[str, Any]
) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


# `$` of a regular expression lets a line end pass.
Validator = validators.extend(Draft202012Validator, {"pattern": _fullmatch})


def _described(error: ValidationError) -> str:
    """Return one line that names the wrong key, its value and what is allowed."""
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
    where = path.removeprefix(".") or "top level"
    schema = error.schema if isinstance(error.schema, dict) else {}
    meaning = f" ({schema['description']})" if "description" in schema else ""
    match error.validator:
        case "additionalProperties":
            known = sorted(schema.get("properties", {}))
            unknown = next(key for key in error.instance if key not in known)
            near = difflib.get_close_matches(str(unknown), known, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            return f"{where}: unknown key '{unknown}'; {hint}allowed: {', '.join(known)}"
        case "required":
            missing = next(key for key in error.validator_value if key not in error.instance)
            return f"{where}: key '{missing}' is missing"
        case "dependentRequired":
            needs = error.validator_value.items()
            key, missing = next(
                (key, other)
                for key, others in needs
                for other in others
                if key in error.instance and other not in error.instance
            )
            return f"{where}: key '{missing}' is missing, which '{key}' needs"
        case "uniqueItems":
            twice = next(item for item in error.instance if error.instance.count(item) > 1)
            return f"{where}: {twice!r} is given twice; every entry must differ"
        case "oneOf" if all(set(option) == {"required"} for option in error.validator_value):
            options = " | ".join(" + ".join(o["required"]) for o in error.validator_value)
            return f"{where}: give one of: {options}"
        case "pattern":
            return f"{where}: {error.instance!r} is not allowed{meaning}"
    return f"{where}: {error.message}{meaning}"


def _set_defaults(value: Any, schema: dict, root: dict) -> Any:
    """Write the schema's defaults into `value`, in place, at every depth; return `value`.

    A whole number that is written as 8.0 becomes 8.
    """
    schema = _resolved(schema, root)
    if schema.get("type") == "integer" and isinstance(value, float):
        return int(value)
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for key, subschema in properties.items():
            default = _resolved(subschema, root).get("default")
            if default is not None:
                value.setdefault(key, copy.deepcopy(default))
            if key in value:
                value[key] = _set_defaults(value[key], subschema, root)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            for key in value.keys() - properties.keys():
                value[key] = _set_defaults(value[key], extra, root)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        value[:] = [_set_defaults(item, schema["items"], root) for item in value]
    return value


def _resolved(schema: dict, root: dict) -> dict:
    """Return a subschema with the content of its ``$ref``; its own entries take precedence."""
    if "$ref" not in schema:
        return schema
    return root["$defs"][schema["$ref"].rsplit("/", 1)[1]] | schema
