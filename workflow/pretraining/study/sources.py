"""Label sources: their entries in the configuration and the files that these name.

This runs in the source's interpreter: only the standard library and PyYAML.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import importlib.util
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256, read_yaml
from pretraining.runtime.records import read_record

ROOT = Path(__file__).resolve().parents[3]
# On PYTHONPATH, any interpreter finds the package.
PACKAGE_FOLDER = str(ROOT / "workflow")
PLACEHOLDER = re.compile(r"\{(prefix|root|package:[A-Za-z0-9_.]+)\}")
# ${name} is a variable of LAMMPS.
IN_BRACES = re.compile(r"(?<!\$)\{[A-Za-z_][\w.:-]*\}")
INSTALLED = re.compile(r"\{(prefix|package:)")
# Modules that the workflow's programs need in the interpreter of a source, with their packages.
NEEDED = {"ase": "ase", "numpy": "numpy", "yaml": "PyYAML"}
# A folder of parameters has fewer files.
MOST_FILES = 10_000
# Keys of a source that decide its labels; the others are no reason to label again.
DECISIVE_KEYS = ("calculator", "args", "kwargs", "preload", "fresh_calculator", "isolated_atom")
# The others: passed to a job outside its settings file.
SOURCE_OPTIONS = ("on_error", "time_limit", "python", "install", "neutral_kwargs")
SHAPES = {
    "a mapping": (dict, ("kwargs", "neutral_kwargs", "isolated_atom")),
    "a list": (list, ("args", "preload", "files")),
    "a text": (str, ("calculator", "python", "install")),
    "true or false": (bool, ("fresh_calculator",)),
}


@dataclass(frozen=True)
class Source:
    """One entry of the configuration's ``sources``; config/README.md explains the keys."""

    name: str
    calculator: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    neutral_kwargs: dict[str, Any] = field(default_factory=dict)
    elements: list[str] | None = None
    preload: list[str] = field(default_factory=list)
    isolated_atom: dict[str, Any] = field(default_factory=dict)
    on_error: str = "stop"
    fresh_calculator: bool = False
    python: str | None = None
    time_limit: float = 3600.0
    install: str | None = None
    files: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_entry(cls, name: str, entry: Mapping[str, Any]) -> Source:
        """Source from its entry; keys of other parts of the workflow are left out."""
        known = {k: entry[k] for k in cls.__dataclass_fields__ if entry.get(k) is not None}
        return cls(**{**known, "name": name})

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
        """Name in ``Atoms.info`` of the reason why a structure has no label."""
        return f"{self.name}_error"

    def definition(self) -> dict[str, Any]:
        """Everything that decides a label, placeholders unexpanded, files by their content."""
        definition = {key: getattr(self, key) for key in DECISIVE_KEYS}
        return definition | {"parameter_files_sha256": parameter_files(self)}


def load_source(config: Path, name: str, options: Mapping[str, Any] | None = None) -> Source:
    """Read the source `name` from the section ``sources`` of a YAML file.

    Entries in `options`, which do not decide a label, replace those of the file. Raises a
    `UserError` if the file or the source is missing, or its entry is wrong.
    """
    sources = read_yaml(config).get("sources") or {}
    if not isinstance(sources, dict) or not isinstance(sources.get(name, {}), dict):
        raise UserError(f"{config}: 'sources' must be a mapping of names to mappings")
    for key in options or {}:
        if key not in SOURCE_OPTIONS:
            raise UserError(f"--runtime: {key!r} is not one of {', '.join(SOURCE_OPTIONS)}")
    if name not in sources:
        known = ", ".join(sorted(sources)) or "none"
        raise UserError(f"{config} has no source '{name}' under 'sources' (known: {known})")
    entry = relative_to(sources[name] or {}, Path(config).parent) | dict(options or {})
    if not entry.get("calculator"):
        raise UserError(f"{config}: source '{name}' needs 'calculator', an import path")
    for shape, (kind, keys) in SHAPES.items():
        for key in keys:
            if not isinstance(entry.get(key, kind()), (kind, type(None))):
                raise UserError(f"{config}: source '{name}': {key} must be {shape}")
    elements = entry.get("elements", [])
    if not isinstance(elements, list) or not all(isinstance(e, str) for e in elements):
        raise UserError(f"{config}: source '{name}': elements is {elements}, not a list of symbols")
    on_error = entry.get("on_error", "stop")
    if on_error not in ("stop", "skip"):
        raise UserError(f"{config}: source '{name}': on_error is '{on_error}', not stop or skip")
    limit = entry.get("time_limit", 1.0)
    if not isinstance(limit, (int, float)) or not limit > 0:
        raise UserError(
            f"{config}: source '{name}': time_limit is {limit}, not a number of seconds"
        )
    return Source.from_entry(name, entry)


def interpreter_of(name: str, entry: Mapping[str, Any]) -> str:
    """Return the interpreter of a source by its entry; a `UserError` if there is none here."""
    python = entry.get("python", "python")
    if shutil.which(python) is None:
        raise UserError(
            f"sources.{name}.python: no interpreter '{python}' on this machine; correct it, or use "
            "--sdm conda, where the source's env brings one"
        )
    if "python" in entry and (fault := interpreter_fault(python)):
        raise UserError(f"sources.{name}.python: {fault}")
    return python


@functools.cache
def interpreter_fault(python: str) -> str | None:
    """Return what a source's interpreter lacks to run the workflow's programs, with the cure."""
    look = (
        f"from importlib.util import find_spec as f; print(*[m for m in {[*NEEDED]} if not f(m)])"
    )
    try:
        done = subprocess.run([python, "-c", look], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        last = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        return f"'{python}' does not start ({last}): correct it"
    # A wrapper may print words of its own.
    packages = [NEEDED[module] for module in NEEDED if module in done.stdout.split()]
    return (packages or None) and (
        f"'{python}' lacks {', '.join(packages)}, which every source needs beside its own code: "
        f"run `{python} -m pip install {' '.join(packages)}`"
    )


def check_interpreter(source: Source) -> None:
    """Raise a `UserError` with the right command line if the source names another interpreter."""
    if source.python in (None, "python", sys.executable):
        return
    tell = "import sys; print([sys.prefix, sys.version])"
    try:
        done = subprocess.run([source.python, "-c", tell], capture_output=True, text=True)
    except OSError:
        raise UserError(f"source '{source.name}': no interpreter '{source.python}' here") from None
    if done.stdout.strip() != str([sys.prefix, sys.version]):
        if fault := interpreter_fault(source.python):
            raise UserError(f"source '{source.name}': {fault}")
        line = f"PYTHONPATH={PACKAGE_FOLDER} {shlex.join([source.python, *sys.argv])}"
        raise UserError(f"source '{source.name}' has its own interpreter: run `{line}`")


# ------------------------------------------------------------------------- placeholders


def relative_to(value: Any, folder: Path) -> Any:
    """Replace ``{config}`` in all strings of a YAML value by the folder of the YAML file."""
    return _replaced(value, lambda text: text.replace("{config}", str(folder)))


def expand(value: Any) -> Any:
    """Replace ``{prefix}``, ``{root}`` and ``{package:NAME}`` in all strings of a YAML value.

    They stand for the running interpreter's prefix, the repository's root and the folder of an
    importable package (which is located, not imported).
    """
    return _replaced(value, lambda text: PLACEHOLDER.sub(lambda found: _place(found[1]), text))


def _replaced(value: Any, replace) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, replace) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, replace) for item in value]
    return replace(value) if isinstance(value, str) else value


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


def unknown_placeholders(value: Any) -> list[str]:
    """Words in braces that are no known placeholder, in all strings of a YAML value."""
    found = [text for string in strings(value) for text in IN_BRACES.findall(string)]
    return [text for text in found if not PLACEHOLDER.fullmatch(text)]


# ------------------------------------------------------------- files that arguments name


def parameter_files(
    source: Source, installed: bool = True, is_apart: Callable[[str], bool] | None = None
) -> dict[str, str]:
    """SHA-256 of the files and folders that the source's arguments name, by their last name.

    Words within an argument count, as in a LAMMPS ``pair_coeff``, and so do files whose name
    continues that of a named file: a GAP's sparse points lie in ``<file>.*``. Without `installed`,
    the interpreter's own files, in ``{prefix}`` and ``{package:NAME}``, do not count, nor do files
    that are apart, by their path. Raises a `UserError` if an argument names a folder that holds the
    working folder, or too many files.
    """
    found: dict[str, str] = {}
    for text in strings([source.args, source.kwargs, source.isolated_atom.get("kwargs", {})]):
        if INSTALLED.search(text) and not installed:
            continue
        text = expand(text)
        for word in words(text):
            if os.path.isfile(word):
                for path in _with_others(word):
                    if not (is_apart and is_apart(path)):
                        _add(found, path, file_sha256(path))
            elif os.path.isdir(word) and (word == text or os.path.dirname(word) not in ("", "/")):
                _add(found, word, _folder_digest(source, word, is_apart))
    return found


def named_files(source: Source) -> list[str]:
    """Return the files that the source's arguments name."""
    texts = strings(expand([source.args, source.kwargs]))
    return [word for text in texts for word in words(text) if os.path.isfile(word)]


def suspects(source: Source) -> str:
    """What to look at when a calculator cannot be made."""
    files = ", ".join(path for file in named_files(source) for path in _with_others(file))
    return f"see whether these files are whole: {files}" if files else "see its args and kwargs"


def _with_others(file: str) -> list[str]:
    """A file and those whose name continues that of it."""
    others = sorted(glob.glob(glob.escape(file) + ".*"))
    return [file, *(path for path in others if os.path.isfile(path))]


def changed_files(name: str, entry: Mapping[str, Any], stamp: Path) -> dict[str, str]:
    """Return the files and folders that a source's arguments name, with their sha256.

    A package's files belong to the interpreter. A retrieved file counts only if its content differs
    from that in its stamp, which the workflow follows by itself: what a source retrieves changes
    nothing here, be it named or in a folder that is named.

    `stamp` is the record that ``retrieve.py`` has written for this source, if it exists.
    """
    try:
        files = read_record(stamp)["files"] if stamp.is_file() else []
    except (UserError, KeyError):
        # Snakemake asks before it can make anything again.
        raise UserError(f"{stamp} was changed after it was written: delete it") from None
    stamped = {os.path.realpath(file["path"]): file["sha256"] for file in files}
    retrieved = {os.path.realpath(file["path"]) for file in entry["files"]} | stamped.keys()

    def is_followed(path: str) -> bool:
        path = os.path.realpath(path)
        # Files beside a GAP's extend its name.
        if not any(path == known or path.startswith(f"{known}.") for known in retrieved):
            return False
        return path not in stamped or stamped[path] == file_sha256(path)

    return parameter_files(Source.from_entry(name, entry), False, is_followed)


def _add(found: dict[str, str], path: str, digest: str | None) -> None:
    """Add a digest, if there is one; two files of one name are told apart by the folder."""
    if digest is None:
        return
    path = path.rstrip("/")
    name = os.path.basename(path)
    if found.get(name, digest) != digest:
        name = f"{os.path.basename(os.path.dirname(os.path.abspath(path)))}/{name}"
    found[name] = digest


def _folder_digest(
    source: Source, folder: str, is_apart: Callable[[str], bool] | None
) -> str | None:
    """SHA-256 of the names and contents of a folder's files; hidden ones do not count.

    None if some files may be apart and no other is there.
    """
    path, here = Path(folder).resolve(), Path.cwd()
    is_wide = path in (here, *here.parents)
    files = [] if is_wide else list(itertools.islice(_files_in(path), MOST_FILES + 1))
    if is_wide or len(files) > MOST_FILES:
        raise UserError(
            f"source '{source.name}': an argument names the folder {folder}, which holds the "
            f"working folder or more than {MOST_FILES:,} files: give a folder of parameters, or "
            "move the argument to neutral_kwargs if it cannot change a label"
        )
    if is_apart:
        files = [file for file in files if not is_apart(file)]
        if not files:
            return None
    lines = [f"{os.path.relpath(file, path)} {file_sha256(file)}" for file in files]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _files_in(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        paths = (os.path.join(parent, name) for name in names if name[0] != ".")
        yield from filter(os.path.isfile, paths)


def strings(value: Any) -> Iterator[str]:
    """All strings of a YAML value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def words(text: str) -> list[str]:
    """An argument and the words in it, as a shell splits them; a path may hold spaces."""
    if os.path.exists(text):
        return [text]
    try:
        parts = shlex.split(text)
    except ValueError:
        parts = text.split()
    return [text, *parts]
