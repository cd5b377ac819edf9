"""Units and signs of labels: energies and forces that do not fit each other, or another method's.

Between neighbouring frames of the same atoms in the same cell the energy changes by minus the mean
force times the displacement: real sets have slopes of 0.96 to 1.11. Without such frames sizes and
the repulsion of near atoms tell less. On real sets of carbon and silicon (crystals, liquids,
amorphous, nanotubes; DFT, GAP and LCBOP), the standard deviation of the energy per atom over the
rms of force components is 0.08 to 0.36 Å. Other units shift it by 23 (kcal/mol), 27 (Hartree) or
1000 (meV).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.geometry import find_mic

from pretraining.data.geometry import pairs
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
# Structures that are looked at, in blocks of neighbours.
SAMPLE, BLOCK = 2000, 100
# Largest displacement of an atom between neighbouring frames, Å; pairs of them, their correlation,
# and the factor from which on a slope is none of 1.
STEP, PAIRS, CORRELATION, SLOPE = 0.5, 5, 0.9, 1.4
# Radius of near atoms, Å, and the share of structures in which the nearest two attract each other.
NEAR, ATTRACTED = 4.0, 0.7
# No set has larger forces in half of its structures, eV/Å (rms).
MOST_FORCE = 15.0
FACTORS = (
    "1 with eV and Å; 23 with energies in kcal/mol, 96 in kJ/mol, 0.037 in Hartree, 1000 in meV; "
    "1.9 with forces in eV/Bohr, 51 in Hartree/Bohr, 0.043 in kcal/mol/Å"
)
CURE = "check the units, which are eV and Å"


def unit_warnings(store: Store) -> list[str]:
    """Return what is suspicious about the labels of a set."""
    order = np.argsort(store.column("index"), kind="stable")
    rows = order[np.arange(len(order)) // BLOCK % (1 + len(order) // SAMPLE) == 0]
    structures = [store.arrays(int(row)) for row in rows] if store.has_labels else []
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
    if (usual := float(np.sqrt(np.median(square)))) > MOST_FORCE:
        warnings.append(f"forces are {usual:.3g} eV/Å (median of rms), too large; {CURE}")
    found = _gradient_warnings(structures)
    if found is not None:
        return warnings + found
    warnings += _attraction_warnings(structures)
    words = f"energies vary by {spread:.3g} eV/atom and force components are {force:.3g} eV/Å (rms)"
    if spread > MOST * force:
        warnings.append(f"{words}: energies are too large for these forces; {CURE}")
    elif spread < LEAST * force and square.std() > ONE_PHASE * square.mean():
        warnings.append(f"{words}: energies are too small for these forces; {CURE}")
    return warnings


def _gradient_warnings(structures: Sequence[Mapping[str, np.ndarray]]) -> list[str] | None:
    """Compare changes of energy with −F·dx; None if there are too few, or none that agree."""
    work, change = np.array(list(_changes(structures))).reshape(-1, 2).T
    if len(work) < PAIRS or not work.any() or not change.any():
        return None
    slope = work @ change / (work @ work)
    if abs(slope) * np.sqrt((work @ work) / (change @ change)) < CORRELATION:
        return None
    words = (
        f"between {len(work):,} pairs of neighbouring frames energies change by {slope:.3g} times "
        "−F·dx"
    )
    if slope < 0:
        return [f"{words}: the forces have the wrong sign"]
    return [f"{words} ({FACTORS}); {CURE}"] if max(slope, 1 / slope) > SLOPE else []


def _changes(structures: Sequence[Mapping[str, np.ndarray]]) -> Iterator[tuple[float, float]]:
    """−F·dx and the change of energy between neighbouring frames, eV."""
    last: dict[bytes, Mapping[str, np.ndarray]] = {}
    for row in structures:
        key = row["numbers"].tobytes() + np.round(row["cell"], 3).tobytes()
        other, last[key] = last.get(key, row), row
        moves = find_mic(row["positions"] - other["positions"], row["cell"], row["pbc"])[0]
        if 0 < np.abs(moves).max() < STEP:
            forces = (row["forces"] + other["forces"]) / 2
            yield -float((forces * moves).sum()), float(row["energy"] - other["energy"])


def _attraction_warnings(structures: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
    """Warn if the nearest atoms attract each other in the structures in which they are nearest."""
    kinds: dict[tuple[int, ...], list[tuple[float, float]]] = {}
    for row in structures:
        atoms = Atoms(row["numbers"], row["positions"], cell=row["cell"], pbc=row["pbc"])
        i, j, d, vectors = pairs(atoms, NEAR, "ijdD")
        if len(d):
            k = int(np.argmin(d))
            apart = float((row["forces"][j[k]] - row["forces"][i[k]]) @ vectors[k])
            kind = tuple(sorted(row["numbers"][[i[k], j[k]]].tolist()))
            kinds.setdefault(kind, []).append((float(d[k]), apart))
    nearer = [sorted(found)[: (len(found) + 1) // 2] for found in kinds.values()]
    apart = np.array([force for found in nearer for _, force in found if abs(force) > 1e-3])
    n = int((apart < 0).sum())
    if len(apart) < ENOUGH or n < ATTRACTED * len(apart):
        return []
    return [
        f"the two nearest atoms attract each other in {n:,} of {len(apart):,} structures: the "
        "forces have the wrong sign"
    ]


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
        ("force components are", rms(own[1]), rms(theirs[1]), "eV/Å (rms)"),
    ):
        small, large = sorted((one, other))
        if len(own[0]) >= ENOUGH and large > FACTOR * small > 0:
            warnings.append(f"its {name} {other:.3g} {unit}, the target's {one:.3g}; {CURE}")
    return warnings


def rms(values: np.ndarray) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(values**2)))
