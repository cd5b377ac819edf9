"""Units of labels: energies and forces whose sizes do not fit each other, or another method's.

Measured on real sets of carbon and silicon (crystals, liquids, amorphous, nanotubes; DFT, GAP and
LCBOP), the standard deviation of the energy per atom over the rms of force components is 0.08 to
0.36 Å. Other units shift it by 23 (kcal/mol), 27 (Hartree) or 1000 (meV).
"""

from __future__ import annotations

import numpy as np

from pretraining.data.store import Store

# Limits of this ratio, Å, and the structures that it needs for each element.
LEAST, MOST, ENOUGH = 0.03, 0.8, 10
# Energies of one phase at one temperature hardly differ, nor do its forces: their mean square
# varies by less than this from structure to structure.
ONE_PHASE = 0.3
# No element gains more than this from its isolated atoms, eV/atom.
COHESIVE = 15.0
# Two methods differ by less: in the zero of energy, eV/atom, and by a factor.
ZEROS, FACTOR = 1.0, 5.0
# Structures that are looked at.
SAMPLE = 2000
CURE = "check the units, which are eV and Å"


def unit_warnings(store: Store) -> list[str]:
    """Return what is suspicious about the labels of a set."""
    rows = range(0, len(store), 1 + len(store) // SAMPLE)
    structures = [store.arrays(row) for row in rows] if store.has_labels else []
    elements = sorted({int(z) for row in structures for z in row["numbers"]})
    if len(structures) < ENOUGH * max(1, len(elements)):
        return []
    energy = np.array([float(row["energy"]) / len(row["numbers"]) for row in structures])
    square = np.array([float((row["forces"] ** 2).mean()) for row in structures])
    shares = np.array([[np.mean(row["numbers"] == z) for z in elements] for row in structures])
    # Energies differ by composition, too: by a constant for each element.
    spread = (energy - shares @ np.linalg.lstsq(shares, energy, rcond=None)[0]).std()
    force, typical = np.sqrt(square.mean()), float(np.median(energy))
    warnings = []
    if abs(typical) > COHESIVE:
        warnings.append(
            f"energies are {typical:.1f} eV/atom (median), more than any cohesive energy: set "
            "energy_reference if they are totals of a DFT code, or check their units"
        )
    words = f"energies vary by {spread:.3g} eV/atom and force components are {force:.3g} eV/Å (rms)"
    if spread > MOST * force:
        warnings.append(f"{words}: energies are too large for these forces; {CURE}")
    elif spread < LEAST * force and square.std() > ONE_PHASE * square.mean():
        warnings.append(f"{words}: energies are too small for these forces; {CURE}")
    return warnings


def comparison_warnings(
    theirs: tuple[np.ndarray, np.ndarray], own: tuple[np.ndarray, np.ndarray], fitted: bool
) -> list[str]:
    """Return what is suspicious about a source's and a target's labels of the same structures.

    Each is the energies per atom, eV, and all force components, eV/Å. A `fitted` zero of energy may
    differ.
    """
    warnings = []
    shift = float(np.median(theirs[0] - own[0]))
    if abs(shift) > ZEROS and not fitted:
        warnings.append(
            f"its energies differ from the target's by {shift:+.2f} eV/atom (median): give both "
            "the same zero (energy_reference: isolated atoms, or a fit), or check the units"
        )
    for name, one, other, unit in (
        ("energies vary by", own[0].std(), theirs[0].std(), "eV/atom"),
        ("force components are", _rms(own[1]), _rms(theirs[1]), "eV/Å (rms)"),
    ):
        small, large = sorted((one, other))
        if len(own[0]) >= ENOUGH and large > FACTOR * small > 0:
            warnings.append(f"its {name} {other:.3g} {unit}, the target's {one:.3g}; {CURE}")
    return warnings


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
