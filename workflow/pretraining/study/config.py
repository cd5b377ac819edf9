"""Load and validate a study's configuration.

A fault is one line that names the file, the key, the value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.runtime.yaml_file import read_yaml
from pretraining.study.consistency import problems
from pretraining.study.queries import datasets_read
from pretraining.study.schema import validate_config


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
    return validate_config(read_yaml(path), str(path))


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
    for problem in problems(config):
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
