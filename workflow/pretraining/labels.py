"""Energies and forces of structures from any ASE calculator: the label sources.

This module and ``scripts/label.py`` run in the interpreter of the *source*, wherever its code is
installed, so they import only the standard library, numpy, ASE (3.22 or later) and PyYAML.

Labels are ``<source>_energy`` (eV, total, relative to isolated atoms) in ``Atoms.info`` and
``<source>_force`` (eV/Å) in ``Atoms.arrays``.
"""

from __future__ import annotations

import ctypes
import glob
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase
import numpy as np
import yaml
from ase import Atoms

from pretraining.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
VACUUM = 20.0  # Å on every side of an isolated atom
# What looks like a file with an extension, and the arguments that name files to be written.
FILE_NAME = re.compile(r"[^\s:]*/[^\s:]*\.[A-Za-z]\w*$")
OUTPUT_KEY = re.compile(r"log|txt|out|label|dir|tmp", re.IGNORECASE)
PLACEHOLDER = re.compile(r"\{(prefix|root|package:[A-Za-z0-9_.]+)\}")


@dataclass(frozen=True)
class Source:
    """One entry of the configuration's ``sources``, as written there."""

    name: str
    calculator: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    preload: list[str] = field(default_factory=list)
    isolated_atom: dict[str, Any] = field(default_factory=dict)
    on_error: str = "stop"
    fresh_calculator: bool = False

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


def load_source(config: Path, name: str) -> Source:
    """Read the source `name` from the section ``sources`` of a YAML file.

    Raises
    ------
    UserError
        If the file or the source is missing, or its entry has no calculator.
    """
    try:
        sections = yaml.safe_load(Path(config).read_text())
    except FileNotFoundError:
        raise UserError(f"no configuration file {config}; give an existing one") from None
    except yaml.YAMLError as error:
        raise UserError(f"{config} is not valid YAML: {error}") from None
    sources = (sections or {}).get("sources") or {}
    if name not in sources:
        known = ", ".join(sorted(sources)) or "none"
        raise UserError(f"{config} has no source '{name}' under 'sources' (known: {known})")
    entry = sources[name] or {}
    if not entry.get("calculator"):
        raise UserError(f"{config}: source '{name}' needs 'calculator', an import path")
    on_error = entry.get("on_error", "stop")
    if on_error not in ("stop", "skip"):
        raise UserError(f"{config}: source '{name}': on_error is '{on_error}', not stop or skip")
    fields = {key: entry[key] for key in Source.__dataclass_fields__ if entry.get(key) is not None}
    return Source(**{**fields, "name": name})


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
    for word in _words(expand([source.args, source.kwargs])):
        if os.path.isfile(word):
            for path in [word, *sorted(glob.glob(glob.escape(word) + ".*"))]:
                found[os.path.basename(path)] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return found


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = [item for key, item in value.items() if not OUTPUT_KEY.search(str(key))]
    if isinstance(value, list):
        for item in value:
            yield from _words(item)
    elif isinstance(value, str):
        yield from {value, *value.split()}


def make_calculator(source: Source, extra: dict[str, Any] | None = None):
    """Create the source's ASE calculator, with `extra` keyword arguments added.

    Raises
    ------
    UserError
        If a library to preload, the module or the attribute is missing, a file that an argument
        names does not exist, or the calculator refuses its arguments.
    """
    for library in expand(source.preload):
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise UserError(f"source '{source.name}': cannot preload {library}: {error}") from None
    for word in _words(expand([source.args, source.kwargs])):
        if FILE_NAME.match(word) and not os.path.exists(word):
            raise UserError(
                f"source '{source.name}': no file {word} (seen from {os.getcwd()}); "
                "put it there or correct the path in the configuration"
            )
    module_name, _, attribute = source.calculator.rpartition(".")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, ValueError, AttributeError, OSError) as error:
        raise UserError(
            f"source '{source.name}': cannot import {source.calculator} with {sys.executable} "
            f"({error}); install it there or set the source's 'python' or 'env'"
        ) from None
    try:
        return factory(*expand(source.args), **{**expand(source.kwargs), **expand(extra or {})})
    except Exception as error:
        raise UserError(
            f"source '{source.name}': {source.calculator}: {reason_of(error)}"
        ) from error


def reason_of(error: BaseException) -> str:
    """One short line for an exception."""
    text = " ".join(str(error).split()).replace('"', "'")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def boxed(atoms: Atoms) -> Atoms:
    """A bare copy in which no atom lies outside the cell along a non-periodic direction.

    Codes with a real box (LAMMPS) lose such atoms; along these directions the cell has no
    physical meaning, so that a new one changes neither energy nor forces.
    """
    copy = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    open_axes = [axis for axis in range(3) if not copy.pbc[axis]]
    if not open_axes:
        return copy
    lengths = copy.cell.lengths()
    if all(lengths[axis] > 0 for axis in open_axes):
        scaled = copy.cell.complete().scaled_positions(copy.positions)[:, open_axes]
        if ((scaled >= 0) & (scaled < 1)).all():
            return copy
    copy.center(vacuum=VACUUM / 2, axis=open_axes)
    return copy


class Evaluator:
    """Energies and forces from one source, its calculator kept from structure to structure."""

    def __init__(self, source: Source, extra: dict[str, Any] | None = None) -> None:
        self.source = source
        self.extra = extra
        self._calculator = None
        self._pbc: tuple[bool, ...] = ()

    def __call__(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Energy (eV, as the code gives it) and forces (n_atoms, 3) (eV/Å) of a structure.

        The energy is the one whose negative gradient the forces are: the free energy where a
        code with electronic smearing gives both.
        """
        atoms = boxed(atoms)
        pbc = tuple(bool(axis) for axis in atoms.pbc)
        # LAMMPS cannot turn a tilted periodic box into an open one.
        if self._calculator is None or self.source.fresh_calculator or pbc != self._pbc:
            self._calculator = make_calculator(self.source, self.extra)
            self._pbc = pbc
        atoms.calc = self._calculator
        try:
            energy = float(atoms.get_potential_energy())
            free = atoms.calc.results.get("free_energy")
            energy = energy if free is None else float(free)
            forces = np.array(atoms.get_forces(), dtype=float)
        except BaseException:
            # A code that failed may not be fit to be asked again.
            self._calculator = None
            raise
        if not np.isfinite(energy):
            raise ArithmeticError(f"energy is {energy}")
        if forces.shape != (len(atoms), 3) or not np.isfinite(forces).all():
            raise ArithmeticError("forces are not finite")
        return energy, forces


def isolated_energies(source: Source, elements: Iterable[str]) -> dict[str, float]:
    """Energy (eV) of a lone atom of each element, given by the configuration or computed.

    Raises
    ------
    UserError
        If the source cannot evaluate a lone atom; the cure is to give its energy.
    """
    settings = source.isolated_atom
    known = {key: float(value) for key, value in (settings.get("energies") or {}).items()}
    evaluate = Evaluator(source, settings.get("kwargs"))
    side = 2 * float(settings.get("vacuum", VACUUM))
    for element in sorted(set(elements) - set(known)):
        atom = Atoms(element, cell=[side] * 3, pbc=bool(settings.get("pbc", False)))
        atom.center()
        try:
            known[element], _ = evaluate(atom)
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"source '{source.name}' cannot evaluate an isolated {element} atom "
                f"({reason_of(error)}); give isolated_atom: {{energies: {{{element}: …}}}}"
            ) from error
    return known


def fingerprint(source: Source, reference: dict[str, float], frames: Iterable[Atoms]) -> str:
    """Hash of all that decides the labels: definition, reference and structures in order."""
    digest = hashlib.sha256()
    digest.update(
        json.dumps([source.name, source.definition(), reference], sort_keys=True).encode()
    )
    for atoms in frames:
        for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def version_of(package: str) -> str | None:
    """Version of an imported package, as far as it tells."""
    version = getattr(sys.modules.get(package), "__version__", None)
    if version is None:
        for distribution in importlib.metadata.packages_distributions().get(package, []):
            version = importlib.metadata.version(distribution)
    return None if version is None else str(version)


def provenance(source: Source, reference: dict[str, float]) -> dict[str, Any]:
    """Who made the labels: calculator, arguments, files, versions, isolated atoms."""
    package = source.calculator.split(".")[0]
    if package == "ase" and "lammps" in sys.modules:
        package = "lammps"
    return {
        "source": source.name,
        "calculator": source.calculator,
        "args": source.args,
        "kwargs": source.kwargs,
        "code": {"package": package, "version": version_of(package)},
        "ase": ase.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
        "parameter_files_sha256": parameter_files(source),
        "isolated_atoms_ev": reference,
    }
