"""Definitions of label sources: what the configuration says, and where its files are.

Like :mod:`.evaluate`, this runs in the interpreter of the source and imports only the
standard library, numpy, ASE and PyYAML.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.runtime.yaml_file import read_yaml

ROOT = Path(__file__).resolve().parents[3]
# What looks like a file with an extension, and the arguments that name files to be written.
FILE_NAME = re.compile(r"[^\s:]*/[^\s:]*\.[A-Za-z]\w*$")
OUTPUT_KEY = re.compile(r"log|txt|out|label|dir|tmp", re.IGNORECASE)
PLACEHOLDER = re.compile(r"\{(prefix|root|package:[A-Za-z0-9_.]+)\}")
# Not a variable of LAMMPS, ${name}.
IN_BRACES = re.compile(r"(?<!\$)\{[A-Za-z_][\w.:-]*\}")


@dataclass(frozen=True)
class Source:
    """One entry of the configuration's ``sources``, as written there.

    Attributes
    ----------
    time_limit
        Longest time for one structure, s; making the calculator does not count.
    install
        How to get the code, said where it cannot be imported.
    files
        Parameter files that are retrieved: ``path`` and, perhaps, ``url``, ``sha256``, ….
    """

    name: str
    calculator: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    preload: list[str] = field(default_factory=list)
    isolated_atom: dict[str, Any] = field(default_factory=dict)
    on_error: str = "stop"
    fresh_calculator: bool = False
    python: str | None = None
    time_limit: float = 3600.0
    install: str | None = None
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def energy_key(self) -> str:
        """Name of the energy in ``Atoms.info``."""
        return f"{self.name}_energy"

    @property
    def force_key(self) -> str:
        """Name of the forces in ``Atoms.arrays``."""
        return f"{self.name}_force"

    @property
    def error_key(self) -> str:
        """Name, in ``Atoms.info``, of the reason why a structure has no label."""
        return f"{self.name}_error"

    def definition(self) -> dict[str, Any]:
        """Everything that decides a label's value, placeholders unexpanded, and files' contents."""
        return {
            "calculator": self.calculator,
            "args": self.args,
            "kwargs": self.kwargs,
            "isolated_atom": self.isolated_atom,
            "files": parameter_files(self),
        }


def load_source(config: Path, name: str, conduct: Mapping[str, Any] | None = None) -> Source:
    """Read the source `name` from the section ``sources`` of a YAML file.

    Parameters
    ----------
    conduct
        Entries in place of the file's: those that do not decide a label's value.

    Raises
    ------
    UserError
        If the file or the source is missing, or its entry has no calculator.
    """
    entry = {**_entry(config, name), **(conduct or {})}
    if not entry.get("calculator"):
        raise UserError(f"{config}: source '{name}' needs 'calculator', an import path")
    on_error = entry.get("on_error", "stop")
    if on_error not in ("stop", "skip"):
        raise UserError(f"{config}: source '{name}': on_error is '{on_error}', not stop or skip")
    limit = entry.get("time_limit", 1.0)
    if not isinstance(limit, (int, float)) or not limit > 0:
        raise UserError(
            f"{config}: source '{name}': time_limit is {limit}, not a number of seconds"
        )
    fields = {key: entry[key] for key in Source.__dataclass_fields__ if entry.get(key) is not None}
    return Source(**{**fields, "name": name})


def _entry(path: Path, name: str) -> dict[str, Any]:
    sources = read_yaml(path).get("sources") or {}
    if name not in sources:
        known = ", ".join(sorted(sources)) or "none"
        raise UserError(f"{path} has no source '{name}' under 'sources' (known: {known})")
    return relative_to(sources[name] or {}, Path(path).parent)


def relative_to(value: Any, folder: Path) -> Any:
    """Replace ``{config}`` in all strings of a YAML value by the folder of the YAML file."""
    if isinstance(value, dict):
        return {key: relative_to(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [relative_to(item, folder) for item in value]
    return value.replace("{config}", str(folder)) if isinstance(value, str) else value


def expand(value: Any) -> Any:
    """Replace ``{prefix}``, ``{root}`` and ``{package:NAME}`` in all strings of a YAML value.

    They stand for the running interpreter's prefix, the repository's root and the folder of an
    importable package (which is located, not imported).
    """
    if isinstance(value, dict):
        return {key: expand(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item) for item in value]
    return (
        PLACEHOLDER.sub(lambda found: _place(found[1]), value) if isinstance(value, str) else value
    )


def unknown_placeholders(value: Any) -> list[str]:
    """What looks like a placeholder in the strings of a YAML value and is none."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [found for item in value for found in unknown_placeholders(item)]
    found = IN_BRACES.findall(value) if isinstance(value, str) else []
    return [text for text in found if not PLACEHOLDER.fullmatch(text)]


def _place(name: str) -> str:
    if name == "prefix":
        return sys.prefix
    if name == "root":
        return str(ROOT)
    package = name.split(":", 1)[1]
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{{{name}}}: package '{package}' is not installed in {sys.prefix}")
    return next(iter(spec.submodule_search_locations))


def parameter_files(source: Source) -> dict[str, str]:
    """Names and sha256 of the files that the source's arguments mention (and `<file>.*` of it).

    Words within strings count, as in a LAMMPS ``pair_coeff``; a GAP's sparse points lie in files
    that extend the name of its XML file.
    """
    found: dict[str, str] = {}
    for word in words(expand([source.args, source.kwargs])):
        if os.path.isfile(word):
            for path in [word, *sorted(glob.glob(glob.escape(word) + ".*"))]:
                found[os.path.basename(path)] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return found


def words(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [item for key, item in value.items() if not OUTPUT_KEY.search(str(key))]
    if isinstance(value, list):
        for item in value:
            yield from words(item)
    elif isinstance(value, str):
        if os.path.isfile(value):  # with spaces in it, perhaps
            yield value
            return
        try:
            # As a shell would: a path with spaces is quoted in a LAMMPS command.
            parts = shlex.split(value)
        except ValueError:
            parts = value.split()
        yield from {value, *parts}
