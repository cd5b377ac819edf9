"""Energies and forces of structures from any ASE calculator.

This module and ``scripts/label.py`` run in the source's interpreter and import only the standard
library, numpy, ASE (3.22 or later) and PyYAML.

Labels are ``<source>_energy`` (eV, total, relative to isolated atoms) in ``Atoms.info`` and
``<source>_force`` (eV/Å) in ``Atoms.arrays``.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms

from pretraining.data.sanity.soundness import fault
from pretraining.labels.pool import evaluate_all
from pretraining.runtime.errors import UserError
from pretraining.study.sources import Source, expand, parameter_files, strings, suspects, words

FILE_NAME = re.compile(r"[^\s:]*/[^\s:]*\.[A-Za-z]\w*$")
VACUUM = 20.0  # Å on every side of an isolated atom


def make_calculator(source: Source):
    """Create the source's ASE calculator.

    Raises a `UserError` if a library to preload, the code or a file that an argument names is
    missing, if the calculator refuses its arguments, or if it is none.
    """
    for library in expand(source.preload):
        try:
            ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            raise UserError(f"source '{source.name}': cannot preload {library}: {error}") from None
    args, kwargs = expand(source.args), expand({**source.neutral_kwargs, **source.kwargs})
    named = [word for text in strings(expand([source.args, source.kwargs])) for word in words(text)]
    for word in named:
        if FILE_NAME.match(word) and not os.path.exists(word):
            raise UserError(
                f"source '{source.name}': no file {word} (seen from {os.getcwd()}); put it there, "
                "correct the path, or move the argument to neutral_kwargs if the code writes it"
            )
    module_name, _, attribute = source.calculator.rpartition(".")
    try:
        if not module_name.strip("."):
            raise ImportError("an import path is MODULE.NAME")
        factory = getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:
        raise missing_code(source, f"cannot import {source.calculator}", error) from None
    # Before the calculator is made: codes change the working folder.
    cure = suspects(source)
    try:
        calculator = factory(*args, **kwargs) if callable(factory) else None
    except UserError as error:
        raise UserError(f"source '{source.name}': {error}") from error
    except ImportError as error:
        raise missing_code(source, f"cannot run {source.calculator}", error) from error
    except Exception as error:
        raise UserError(
            f"source '{source.name}': {source.calculator}: {reason_of(error)}; {cure}"
        ) from error
    gives = getattr(calculator, "implemented_properties", ("forces",))
    methods = ("get_potential_energy", "get_forces")
    if isinstance(calculator, Atoms) or not all(hasattr(calculator, name) for name in methods):
        fault = "is no calculator of ASE: give the import path of one"
    elif isinstance(gives, list | tuple) and "forces" not in gives:
        fault = "gives no forces: choose another"
    else:
        return calculator
    raise UserError(f"source '{source.name}': {source.calculator} {fault}") from TypeError(fault)


def missing_code(source: Source, what: str, error: BaseException) -> UserError:
    """The error of a code that is not installed here, or not all of it."""
    cure = f"; to get it: {source.install.strip()}" if source.install else ""
    reason = str(error) if isinstance(error, ImportError) else reason_of(error)
    module, own = (
        (getattr(error, "name", None) or "").split(".")[0],
        source.calculator.split(".")[0],
    )
    if isinstance(error, ModuleNotFoundError) and module not in ("", own):
        reason += f": {own} is there, but not the module '{module}' that it needs"
        cure = ""
    return UserError(
        f"source '{source.name}': {what} with {sys.executable} ({reason}); install it there or set "
        f"the source's 'python' or 'env'{cure}"
    )


def lacks_code(error: BaseException) -> bool:
    """Whether an evaluation fails because the code is not all there: no structure is at fault."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__") if trace else None
    return (
        isinstance(error, ImportError)
        # A command that does not start; a shared library that is not found.
        or (isinstance(error, OSError) and raised_in in ("subprocess", "ctypes"))
        # ASE's words for a command or a file of parameters that is not set.
        or type(error).__name__ in ("CalculatorSetupError", "BadConfiguration")
        # A shell has not found the command.
        or re.search(r"\b(code|status) 127\b", str(error)) is not None
    )


def reason_of(error: BaseException) -> str:
    """Reason of an exception in one short line."""
    # Fortran leaves bytes of its memory in messages.
    printed = (c if c.isprintable() and c != "\ufffd" else " " for c in str(error))
    text = " ".join("".join(printed).split())
    text = text.replace('"', "'")
    if isinstance(error, NotALabel):
        return text
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def boxed(atoms: Atoms) -> Atoms:
    """A bare copy in which no atom lies outside the cell along a non-periodic direction.

    Codes with a real box (LAMMPS) lose such atoms. The cell has no physical meaning along these
    directions, so a new one changes neither energy nor forces.
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


class NotALabel(ArithmeticError):
    """The structure is broken, or the energy or a force is not finite."""


class Evaluator:
    """Energies and forces of one source; structures share the calculator."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._calculator = None
        self._pbc: tuple[bool, ...] | None = None
        # The calculator of the last structure.
        self.used: Any = None

    def make(self) -> None:
        """Make the calculator; otherwise the first structure does so."""
        self._calculator = make_calculator(self.source)
        self._pbc = None

    def __call__(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        """Energy (eV, as the code gives it) and forces (n_atoms, 3) (eV/Å) of a structure.

        The forces are the negative gradient of this energy: the free energy, if the code gives
        one (electronic smearing).
        """
        if (why := fault(atoms)) is not None:
            raise NotALabel(f"the structure {why}")
        atoms = boxed(atoms)
        pbc = tuple(bool(axis) for axis in atoms.pbc)
        # LAMMPS cannot turn a tilted periodic box into an open one.
        if self._calculator is None or self._pbc not in (None, pbc):
            self.make()
        self._pbc = pbc
        self.used = atoms.calc = self._calculator
        if self.source.fresh_calculator:
            self._calculator = None
        try:
            energy = float(atoms.get_potential_energy())
            free = atoms.calc.results.get("free_energy")
            energy = energy if free is None else float(free)
            forces = np.array(atoms.get_forces(), dtype=float)
        except BaseException:
            # The code may be unusable after a failure.
            self._calculator = None
            raise
        if not np.isfinite(energy):
            raise NotALabel(f"energy is {energy}")
        if forces.shape != (len(atoms), 3) or not np.isfinite(forces).all():
            raise NotALabel("forces are not finite")
        return energy, forces


def isolated_energies(source: Source, elements: Iterable[str]) -> dict[str, float]:
    """Energy (eV) of a lone atom of each element, given by the configuration or computed.

    Raises a `UserError` if the source cannot evaluate a lone atom.
    """
    settings = source.isolated_atom
    known = {key: float(value) for key, value in (settings.get("energies") or {}).items()}
    todo = sorted(set(elements) - set(known))
    edge, pbc = 2 * float(settings.get("vacuum", VACUUM)), bool(settings.get("pbc", False))
    frames = [Atoms(e, positions=[[edge / 2] * 3], cell=[edge] * 3, pbc=pbc) for e in todo]
    lone = replace(source, kwargs={**source.kwargs, **(settings.get("kwargs") or {})})
    for index, outcome in evaluate_all(lone, frames):
        if outcome.error is not None:
            raise UserError(
                f"source '{source.name}' cannot evaluate an isolated {todo[index]} atom "
                f"({outcome.error}); if it can evaluate others, give isolated_atom: {{energies: "
                f"{{{todo[index]}: …}}}}"
            )
        known[todo[index]] = outcome.energy
    return known


def identity(atoms: Atoms) -> bytes:
    """Digest of a structure: elements, positions, cell, periodic directions."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def fingerprint(source: Source, reference: dict[str, float], frames: Iterable[Atoms]) -> str:
    """SHA-256 of everything that decides the labels: source, reference, structures in order."""
    job = json.dumps([source.name, source.definition(), reference], sort_keys=True)
    digest = hashlib.sha256(job.encode())
    for atoms in frames:
        digest.update(identity(atoms))
    return digest.hexdigest()


def refuse_written_files(source: Source, before: dict[str, str]) -> None:
    """Raise a `UserError` if the source's code has changed a file that an argument names.

    Such a file would change the fingerprint. `before` is :func:`parameter_files` of before the
    first evaluation.
    """
    now = parameter_files(source)
    changed = sorted(name for name in now if now[name] != before.get(name))
    if changed:
        raise UserError(
            f"source '{source.name}' changes {', '.join(changed)}, which its arguments name: move "
            "the argument to neutral_kwargs if the code writes it"
        )


def provenance(
    source: Source, reference: dict[str, float], made_with: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """How labels were made: calculator, arguments, files, versions, isolated atoms.

    `made_with` holds the versions that the workers reported, the latest last: several if a job
    resumed with another version, none if no structure was evaluated.
    """
    latest = made_with[-1] if made_with else {}
    earlier = {"earlier": list(made_with[:-1])} if made_with[1:] else {}
    return {
        "source": source.name,
        **source.definition(),
        "isolated_atoms_ev": reference,
        **latest,
        **earlier,
    }
