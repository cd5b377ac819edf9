"""Validate a configuration, or the part in a settings file, and fill in the defaults."""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import SafeLoader
from pretraining.study import generation as protocol

SCHEMA = Path(__file__).resolve().parents[2] / "schemas" / "config.schema.yaml"


def validate_config(config: dict[str, Any], file: str) -> dict[str, Any]:
    """Return a validated copy of `config` with its defaults; `file` names it in messages.

    Raises
    ------
    UserError
        In one line, for the first rule of the schema that is broken.
    """
    schema = _schema()
    config = dict(config)
    for key, value in config.items():
        # `--config allow_missing=true` arrives as text.
        if schema["properties"].get(key, {}).get("type") == "boolean" and isinstance(value, str):
            config[key] = {"true": True, "false": False}.get(value.lower(), value)
    config = _validated(config, schema, file)
    for dataset in config.get("datasets", {}).values():
        if "generate" in dataset:
            dataset.setdefault("structures", protocol.structures_of(dataset["generate"]))
    config["transforms"] = {"none": {"scale": 1.0, "scale_forces": False}} | config["transforms"]
    return config


def validate_sections(content: dict[str, Any], sections: Sequence[str]) -> dict[str, Any]:
    """Return a validated copy of some sections of a configuration, with their defaults.

    Raises
    ------
    UserError
        In one line, for the first rule of the schema that is broken.
    """
    schema = _schema()
    properties = {name: schema["properties"][name] for name in sections}
    return _validated(content, schema | {"properties": properties, "required": []})


@functools.cache
def _schema() -> dict[str, Any]:
    return yaml.load(SCHEMA.read_text(encoding="utf-8"), Loader=SafeLoader)


def _validated(config: dict[str, Any], schema: dict[str, Any], file: str = "") -> dict[str, Any]:
    config = copy.deepcopy(config)
    error = best_match(Draft202012Validator(schema).iter_errors(config))
    if error is not None:
        raise UserError(f"{file}: {_describe(error)}" if file else _describe(error))
    _set_defaults(config, schema, schema)
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
