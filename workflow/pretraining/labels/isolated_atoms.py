"""Energies of isolated atoms, to which a label source's energies are relative."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ase import Atoms

from pretraining.labels.evaluate import VACUUM
from pretraining.labels.pool import evaluate_all
from pretraining.runtime.errors import UserError
from pretraining.study.sources import Source


def lone_atom(element: str, vacuum: float, pbc: bool) -> Atoms:
    """An atom in the middle of a box with so much vacuum (Å) on every side."""
    atom = Atoms(element, cell=[2 * vacuum] * 3, pbc=pbc)
    atom.center()
    return atom


def isolated_energies(source: Source, elements: Iterable[str]) -> dict[str, float]:
    """Energy (eV) of a lone atom of each element, given by the configuration or computed.

    Raises
    ------
    UserError
        If the source cannot evaluate a lone atom; the cure is to give its energy.
    """
    settings = source.isolated_atom
    known = {key: float(value) for key, value in (settings.get("energies") or {}).items()}
    todo = sorted(set(elements) - set(known))
    vacuum, pbc = float(settings.get("vacuum", VACUUM)), bool(settings.get("pbc", False))
    frames = [lone_atom(element, vacuum, pbc) for element in todo]
    lone = replace(source, kwargs={**source.kwargs, **(settings.get("kwargs") or {})})
    for index, outcome in evaluate_all(lone, frames):
        if outcome.error is not None:
            raise UserError(
                f"source '{source.name}' cannot evaluate an isolated {todo[index]} atom "
                f"({outcome.error}); give isolated_atom: {{energies: {{{todo[index]}: …}}}}"
            )
        known[todo[index]] = outcome.energy
    return known
