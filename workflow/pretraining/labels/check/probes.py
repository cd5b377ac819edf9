"""Structures that a label source is checked on.

This runs in the source's interpreter: only the standard library, numpy and ASE (3.22 or later). All
structures are small enough for DFT; a DFT source gets fewer of them, the most telling ones first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.data import atomic_numbers, covalent_radii, reference_states

from pretraining.runtime.errors import UserError

SEED = 42
CUBIC = ("fcc", "bcc", "sc", "diamond")
CARBON = {
    "diamond": {"prototype": "diamond", "a": 3.57},
    # Many potentials do not describe the layers' distance: `c` is fixed and only `a` varies.
    "graphite": {"prototype": "graphite", "a": 2.46, "c": 6.71, "fixed": "c"},
}


@dataclass(frozen=True)
class Effort:
    """Number and size of the structures."""

    dimer: int  # number of distances
    crystal: int  # number of volumes
    # Shortest and longest distance of the dimer, in units of twice the covalent radius.
    distances: tuple[float, float] = (0.5, 3.0)
    # Smallest and largest lattice parameter, in units of the prototype's.
    scales: tuple[float, float] = (0.92, 1.10)
    # Cells for finite differences: their atoms, the displacement (Å), whether there is a second.
    atoms: int = 8
    step: float = 0.002
    stretched: bool = True
    speed: bool = True  # whether there is a large cell for timing


def effort_of(kind: str, points: Mapping[str, Mapping[str, int]]) -> Effort:
    """Effort for an ``empirical``, ``ml`` or ``dft`` source.

    Self-consistent energies are noisy, so DFT has a longer step of the finite differences.
    """
    if kind == "dft":
        return Effort(
            **points["dft"],
            distances=(0.7, 2.2),
            scales=(0.95, 1.05),
            atoms=2,
            step=0.01,
            stretched=False,
            speed=False,
        )
    return Effort(**points["fast"])


@dataclass(frozen=True)
class Probe:
    """A structure and its purpose."""

    # crystal, dimer, forces, moved (a cell of forces, translated, atoms reversed) or speed
    kind: str
    element: str
    name: str  # of its curve or cell
    atoms: Atoms
    # Lattice parameter or distance, Å; for forces the displacement, 0 in the cell itself.
    x: float = 0.0
    component: int = -1  # index of the displaced coordinate

    def __str__(self) -> str:
        at = f" at {self.x:.3f} Å" if self.kind in ("crystal", "dimer") else ""
        return f"{self.element} {self.name}{at}"


def crystals_of(element: str, configured: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Prototypes of an element by name: the configured ones, or ASE's reference state.

    An element with another reference state is tried as fcc with touching atoms.
    """
    if element in configured:
        return configured[element]
    if element == "C":
        return CARBON
    state = reference_states[atomic_numbers[element]] or {}
    lattice = state.get("symmetry")
    if lattice in CUBIC:
        return {lattice: {"prototype": lattice, "a": state["a"]}}
    if lattice == "hcp":
        return {"hcp": {"prototype": "hcp", "a": state["a"], "c": state["a"] * state["c/a"]}}
    touching = 2 * covalent_radii[atomic_numbers[element]] * np.sqrt(2)
    return {"fcc": {"prototype": "fcc", "a": round(float(touching), 2)}}


def primitive_cell(element: str, crystal: Mapping[str, Any], scale: float = 1.0) -> Atoms:
    """Primitive cell of a prototype with scaled lattice parameters (`c` unless it is fixed).

    A prototype that needs `c` and has none is a `UserError`.
    """
    prototype, a, c = crystal["prototype"], crystal["a"], crystal.get("c")
    if prototype in CUBIC:
        return bulk(element, prototype, a=a * scale)
    if c is None:
        raise UserError(f"check_sources.crystals.{element}: {prototype} needs 'c' as well as 'a'")
    if crystal.get("fixed") != "c":
        c = c * scale
    if prototype == "hcp":
        return bulk(element, "hcp", a=a * scale, c=c)
    # Graphite: layers A and B, P6_3/mmc, atoms on 2b and 2c.
    cell = [[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, c / (a * scale)]]
    scaled = [(0, 0, 0.25), (1 / 3, 2 / 3, 0.25), (0, 0, 0.75), (2 / 3, 1 / 3, 0.75)]
    cell = np.array(cell) * a * scale
    return Atoms([element] * 4, scaled_positions=scaled, cell=cell, pbc=True)


def repeated(atoms: Atoms, n: int) -> Atoms:
    """Smallest supercell of at least `n` atoms, repeated along the shortest edges first."""
    while len(atoms) < n:
        factors = [1, 1, 1]
        factors[int(np.argmin(atoms.cell.lengths().round(6)))] = 2
        atoms = atoms.repeat(factors)
    return atoms


def nearest_distance(element: str, crystal: Mapping[str, Any]) -> float:
    """Shortest distance in a prototype, Å."""
    atoms = primitive_cell(element, crystal).repeat(3)
    return float(atoms.get_distances(0, range(1, len(atoms)), mic=True).min())


def plan(
    element: str, configured: Mapping[str, Any], effort: Effort, dimer_box: float | None
) -> Iterator[Probe]:
    """Structures of one element, in the order in which they are evaluated.

    `configured` has prototypes by element and name. `dimer_box` is the vacuum on every side of the
    dimer in a periodic box, Å; None for open boundaries.
    """
    crystals = crystals_of(element, configured)
    first = next(iter(crystals.values()))
    for number, (name, crystal) in enumerate(crystals.items()):
        for scale in np.linspace(*effort.scales, effort.crystal):
            atoms = primitive_cell(element, crystal, scale)
            yield Probe("crystal", element, name, atoms, x=float(crystal["a"] * scale))
        if number == 0:
            yield from _displaced(element, "rattled", first, effort, 1.0, 0.05)
    yield from _dimers(element, effort, dimer_box)
    if effort.stretched:
        # Distances beyond those of any crystal, near the cut-off of bonds.
        yield from _displaced(element, "stretched", first, effort, 1.2, 0.1)
    if effort.speed:
        for seed in range(3):
            atoms = repeated(primitive_cell(element, first), 64)
            atoms.rattle(0.05 * nearest_distance(element, first), seed=seed)
            yield Probe("speed", element, "speed", atoms)


def _dimers(element: str, effort: Effort, vacuum: float | None) -> Iterator[Probe]:
    contact = 2 * covalent_radii[atomic_numbers[element]]
    distances = np.geomspace(*(contact * end for end in effort.distances), effort.dimer)
    for distance in distances:
        atoms = Atoms([element] * 2, positions=[[0, 0, 0], [0, 0, distance]])
        if vacuum is not None:
            # The same box for all distances: a plane-wave basis depends on it.
            atoms.set_cell([2 * vacuum, 2 * vacuum, 2 * vacuum + distances[-1]])
            atoms.center()
            atoms.pbc = True
        yield Probe("dimer", element, "dimer", atoms, x=float(distance))


def _displaced(
    element: str, name: str, crystal: Mapping[str, Any], effort: Effort, scale: float, sigma: float
) -> Iterator[Probe]:
    """A rattled cell, the same translated, and with each coordinate displaced both ways.

    In a cell of two atoms the forces add up to zero: one atom suffices.
    """
    atoms = repeated(primitive_cell(element, crystal, scale), effort.atoms)
    atoms.rattle(sigma * scale * nearest_distance(element, crystal), seed=SEED)
    yield Probe("forces", element, name, atoms)
    moved = atoms[::-1]
    moved.positions += atoms.cell.cartesian_positions([0.31, 0.47, 0.73])
    moved.wrap()
    yield Probe("moved", element, name, moved)
    for component in range(3 if len(atoms) == 2 else 3 * len(atoms)):
        for step in (effort.step, -effort.step):
            moved = atoms.copy()
            moved.positions[component // 3, component % 3] += step
            yield Probe("forces", element, name, moved, x=step, component=component)
