"""A study as the Snakefile and ``scripts/check.py`` plan it: configuration, grid, tested models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml
from pretraining.study.config import validate_study, validate_written
from pretraining.study.decisions import Decision, Look, decide
from pretraining.study.grid import check_pools, grid_table, stability_models
from pretraining.study.sources import relative_to


@dataclass(frozen=True)
class Plan:
    """A validated configuration with its defaults, and what follows from it."""

    files: str  # names of the configuration files, for messages
    config: dict[str, Any]
    grid: pd.DataFrame
    tested: dict[str, list[str]]  # models of each stability test
    decisions: list[Decision]  # values that the configuration leaves to its data


def read_files(files: Sequence[str | Path]) -> None:
    """Raise a `UserError` for the first fault of configuration files that is one of YAML.

    Snakemake names neither line nor column, and silently keeps the last of two equal keys.
    """
    for file in files:
        file = os.path.relpath(file)
        if not read_yaml(file):
            raise UserError(f"{file} is empty; see config/README.md")


def plan(config: dict[str, Any], files: Sequence[str | Path], look: Look) -> Plan:
    """Return the plan of a configuration as Snakemake has read it from its files.

    Raises a `UserError` for the first fault, naming file and key.
    """
    read_files(files)
    names = names_of(files)
    config, decisions = complete(config, files, look)
    config = validate_study(config, names, root=".")
    grid = grid_table(config)
    check_pools(grid, config)
    tested = {name: stability_models(config, grid, name) for name in config["dynamics"]}
    return Plan(names, config, grid, tested, decisions)


def names_of(files: Sequence[str | Path]) -> str:
    """Return how messages name the configuration of these files."""
    return " + ".join(os.path.relpath(file) for file in files) or "--config"


def complete(
    config: dict[str, Any], files: Sequence[str | Path], look: Look
) -> tuple[dict[str, Any], list[Decision]]:
    """Return a configuration, as read from its files, with the values it leaves to its data."""
    names = names_of(files)
    folder = os.path.relpath(Path(files[-1]).parent) if files else "."
    config = relative_to(config, folder)
    if config.get("defaults") == "data":
        validate_written(config, names)
    try:
        return decide(config, look)
    except UserError as error:
        raise UserError(f"{names}: {error}") from None
