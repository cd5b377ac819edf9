"""Energies and forces of structures from any ASE calculator: the label sources.

This module and ``scripts/label.py`` run in the interpreter of the *source*, wherever its code is
installed, so they import only the standard library, numpy, ASE (3.22 or later) and PyYAML.

Labels are ``<source>_energy`` (eV, total, relative to isolated atoms) in ``Atoms.info`` and
``<source>_force`` (eV/Å) in ``Atoms.arrays``.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
from ase import Atoms

from pretraining.errors import UserError
from pretraining.sources import FILE_NAME, Source, expand, words

VACUUM = 20.0  # Å on every side of an isolated atom


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
    for word in words(expand([source.args, source.kwargs])):
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
