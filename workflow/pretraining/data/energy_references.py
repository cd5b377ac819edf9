"""Energy references: the energies per atom that are subtracted from a dataset's energies.

Fits use the training pool only, never the validation or test set. The pool is the same for every
training size: a fitted reference uses more structures than a small training set has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from pretraining.runtime.errors import UserError, remake
from pretraining.runtime.records import check_output

# Energies of isolated atoms that differ by less, eV, are the same.
SAME = 1e-3
UNREFERENCED = (
    "the files hold no isolated atom, so energies are used as they are: set energy_reference if "
    "they are not relative to isolated atoms"
)


@dataclass
class Reference:
    """Energy of one atom of each element, eV."""

    kind: str  # none, given, isolated_atoms, source, least_squares or median_shift
    energies: dict[str, float] = field(default_factory=dict)
    n_fitted: int | None = None  # structures of the training pool in a fit
    source: str | None = None  # label source that computed it
    note: str | None = None  # caveat

    def of(self, numbers: np.ndarray) -> float:
        """Sum over the atoms with the atomic numbers `numbers`, eV."""
        if self.kind == "none":
            return 0.0
        elements, counts = np.unique(numbers, return_counts=True)
        terms = zip(elements, counts, strict=True)
        return float(sum(self.energies[chemical_symbols[z]] * int(n) for z, n in terms))

    def as_dict(self) -> dict[str, Any]:
        """Return the entries that are set, for summary and provenance."""
        return {key: value for key, value in vars(self).items() if value is not None}


def zero_of(provenance: Mapping[str, Any]) -> dict[str, float]:
    """Return the energy of an atom of each element, eV, that a labelled set's energies lack.

    A set whose energies are as they were given has none.

    Parameters
    ----------
    provenance
        Of a prepared set, or of one that was labelled: by a source, or by itself.
    """
    if "labels" in provenance:
        # The chunks of a source share their isolated atoms.
        ways = provenance["labels"][:1]
        terms = [provenance["energy_zero"]["energies"], *(w["isolated_atoms_ev"] for w in ways)]
    else:
        prepared = provenance.get("prepared", provenance)
        terms = [prepared.get("energy_reference", {}).get("energies", {})]
    return {e: sum(t.get(e, 0.0) for t in terms) for e in sorted(set().union(*terms))}


def make_reference(
    entry: Mapping[str, Any],
    elements: Iterable[str],
    pool: Iterable[tuple[np.ndarray, float]],
    source_file: Path | None = None,
    isolated: Mapping[str, Sequence[float]] | None = None,
) -> Reference:
    """Make the energy reference of a dataset.

    Raises a `UserError` if an element has no energy, or the source's file is missing.

    Parameters
    ----------
    entry
        The dataset's ``energy_reference``: ``{none: true}``, ``{given: {C: -148.3}}``,
        ``{isolated_atoms: true}``, ``{auto: true}`` (isolated atoms if there are any),
        ``{source: NAME}``, ``{least_squares: true}`` or ``{median_shift: true}``.
    elements
        Elements of the dataset.
    pool
        Atomic numbers and total energy (eV) of each structure of the training pool, for fits.
    source_file
        JSON file of the label source's isolated-atom energies by element.
    isolated
        Energies (eV) of the isolated atoms in the dataset's files, by element.
    """
    kind = next(iter(entry), "none")
    if kind == "given":
        return _complete(Reference(kind, dict(entry[kind])), elements, "energy_reference.given")
    if kind == "source":
        if source_file is None:
            raise UserError(
                f"the energy reference is that of the source '{entry[kind]}': give its "
                "reference.json with --reference-from"
            )
        reference = Reference(kind, read_reference(source_file), source=entry[kind])
        return _complete(reference, elements, str(source_file))
    if kind == "isolated_atoms" or (kind == "auto" and isolated):
        return _of_isolated(isolated or {}, elements)
    if kind == "auto":
        return Reference("none", note=UNREFERENCED)
    if kind == "least_squares":
        return fit_elements(pool)
    if kind == "median_shift":
        return fit_shift(pool, elements)
    return Reference("none")


def fit_elements(pool: Iterable[tuple[np.ndarray, float]]) -> Reference:
    """Fit one energy per element to the total energies of the pool, by least squares."""
    rows = list(pool)
    present = sorted({int(z) for numbers, _ in rows for z in numbers})
    counts = np.array([[np.count_nonzero(numbers == z) for z in present] for numbers, _ in rows])
    energies, _, rank, _ = np.linalg.lstsq(counts, np.array([e for _, e in rows]), rcond=None)
    note = None
    if rank < len(present):
        note = (
            f"only {rank} combination(s) of {len(present)} elements vary in the pool: only the sum "
            "over a structure is meaningful, not the energy of an element"
        )
    by_element = {chemical_symbols[z]: float(e) for z, e in zip(present, energies, strict=True)}
    return Reference("least_squares", by_element, n_fitted=len(rows), note=note)


def fit_shift(pool: Iterable[tuple[np.ndarray, float]], elements: Iterable[str]) -> Reference:
    """Use the median energy per atom of the pool as the energy of every element's atom."""
    per_atom = [energy / len(numbers) for numbers, energy in pool]
    shift = float(np.median(per_atom))
    return Reference("median_shift", dict.fromkeys(elements, shift), n_fitted=len(per_atom))


def _of_isolated(isolated: Mapping[str, Sequence[float]], elements: Iterable[str]) -> Reference:
    """Return the lowest energies of the isolated atoms of each element."""
    missing = sorted(set(elements) - set(isolated))
    if missing:
        raise UserError(
            f"energy_reference: the files hold no isolated atom of {', '.join(missing)}: add one, "
            "or give another reference (given, source, least_squares or median_shift)"
        )
    notes = [
        f"isolated atoms of {element} differ by {spread:.3f} eV: the lowest is used"
        for element, found in isolated.items()
        if (spread := max(found) - min(found)) > SAME
    ]
    lowest = {element: min(found) for element, found in isolated.items()}
    return Reference("isolated_atoms", lowest, note="; ".join(notes) or None)


def _complete(reference: Reference, elements: Iterable[str], where: str) -> Reference:
    missing = sorted(set(elements) - set(reference.energies))
    if missing:
        raise UserError(f"{where} has no energy of {', '.join(missing)}: add it")
    return reference


def read_reference(path: Path) -> dict[str, float]:
    """Read the isolated-atom energies of a label source, eV by element.

    Raises a `UserError` if the file is missing, is not a JSON object of elements and finite
    numbers, or was changed.
    """
    check_output(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        energies = {str(element): float(energy) for element, energy in content.items()}
        sound = energies.keys() <= atomic_numbers.keys() and all(map(isfinite, energies.values()))
    except FileNotFoundError:
        raise UserError(
            f"no file {path} of isolated-atom energies: make it with label.py --write-reference"
        ) from None
    except (ValueError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise UserError(f"{path} is not a JSON object of element: energy in eV: {remake(path)}")
    return energies
