"""Atomic environments as vectors: SOAP, the smooth overlap of atomic positions.

A vector is the power spectrum of the density of an atom's neighbours and has unit length: the
squared distance of two is 2 - 2k with their SOAP kernel k.
Source: Bartók, Kondor, Csányi, Phys. Rev. B 87, 184115 (2013).

Without `Z` and `species_Z` in its string quippy's SOAP treats all atoms as one element: a carbon
environment stretched to the bond length of silicon is a silicon environment. With species it
distinguishes elements; those of a transformed structure are the new ones.

Layout of a file (m environments)::

    /vectors       (m, d) float32
    /structure     (m,) int64      position of the structure in the raw dataset
    /atom          (m,) int64      number of the atom in the structure
    /density       (m,) float64    of the cell, g/cm³; NaN if that is not periodic
    /coordination  (m,) int64      neighbours within a radius
    /energy        (m,) float64    of the structure, eV/atom; NaN if unknown

Attributes: ``settings`` (JSON).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms
from ase.units import _amu

from pretraining.data.geometry import neighbours
from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError, remake
from pretraining.runtime.files import write_atomically

# From atomic mass units by cubic ångström to g/cm³.
DENSITY = _amu * 1e3 / 1e-24


@dataclass(frozen=True)
class Environments:
    """Environments with their properties; the arrays of the file's layout."""

    vectors: np.ndarray
    structure: np.ndarray
    atom: np.ndarray
    density: np.ndarray
    coordination: np.ndarray
    energy: np.ndarray

    def __len__(self) -> int:
        return len(self.vectors)

    def write(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write a file with its settings, atomically."""
        # In memory first: HDF5 may crash on a full disk.
        content = io.BytesIO()
        with h5py.File(content, "w", track_order=True) as file:
            file.attrs["settings"] = json.dumps(settings)
            for field in fields(self):
                file.create_dataset(field.name, data=getattr(self, field.name), fletcher32=True)
        write_atomically(path, lambda tmp: tmp.write_bytes(content.getbuffer()))

    @classmethod
    def read(cls, path: Path) -> Environments:
        """Read a file; raise a `UserError` if it is no file of descriptors."""
        try:
            with h5py.File(path, "r", locking=False) as file:
                return cls(*(file[field.name][:] for field in fields(cls)))
        except (OSError, KeyError) as error:
            raise UserError(
                f"{path}: not a file of descriptors ({error}): {remake(path)}"
            ) from None


def soap(descriptor: str):
    """Return quippy's descriptor; a `UserError` if quippy is missing or rejects the string."""
    try:
        from quippy.descriptors import Descriptor
    except ImportError as error:
        raise UserError(f"quippy cannot be imported ({error}): pip install quippy-ase") from None
    try:
        return Descriptor(descriptor)
    except RuntimeError as error:
        reason = _reason(str(error))
        raise UserError(f"quippy rejects the descriptor '{descriptor}': {reason}") from None


def _reason(message: str) -> str:
    """Return QUIP's message after its traceback, without the trailing garbage."""
    last = re.split(r'File "[^\n]*\n', message)[-1]
    return re.split(r" {3,}|[^ -~]", last.strip())[0]


def vectors_of(atoms: Atoms, chosen: np.ndarray, descriptor) -> np.ndarray:
    """Return the descriptors of chosen atoms, shape (m, d), float32.

    Raises a `UserError` if an atom has no descriptor, because the string names only other species.

    Parameters
    ----------
    atoms
        Structure, periodic in any directions.
    chosen
        Numbers of the atoms, shape (m,), ascending.
    descriptor
        Of :func:`soap`.
    """
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    bare.arrays["chosen"] = np.isin(np.arange(len(bare)), chosen)
    result = descriptor.calc(bare, args_str="atom_mask_name=chosen")
    centres = np.asarray(result.get("ci", []), dtype=np.int64) - 1
    if not np.array_equal(centres, chosen):
        elements = ", ".join(sorted(set(bare.symbols)))
        raise UserError(
            f"the descriptor gives {len(centres)} vectors for {len(chosen)} atoms of {elements}: "
            "name all species in Z and species_Z, or none"
        )
    return np.asarray(result["data"], dtype=np.float32)


def density_of(atoms: Atoms) -> float:
    """Return the mass density of a periodic cell, g/cm³; NaN if a direction is not periodic."""
    if not atoms.pbc.all():
        return np.nan
    return float(atoms.get_masses().sum() / atoms.get_volume() * DENSITY)


def choose(store: Store, sample: Mapping[str, Any], seed: int) -> dict[int, np.ndarray]:
    """Draw structures of a set, and environments among their atoms.

    The draw depends on the seed and on the sample's dataset, part and `where`, not on its transform
    or on other samples. Duplicates of earlier structures are left out. Raises a `UserError` if
    there are fewer structures or environments than wanted.

    Parameters
    ----------
    sample
        ``part``, ``where`` and, to draw fewer than all, ``structures`` and ``environments``.

    Returns
    -------
    dict
        Numbers of the chosen atoms, ascending, by row of the store.
    """
    part, what = sample["part"], f"{store.path}: part '{sample['part']}'"
    rows = np.arange(len(store)) if part == "all" else np.array(store.indices(part))
    for key, values in sample["where"].items():
        if key not in store.info_names:
            raise UserError(f"{store.path} has no '{key}': add it to the dataset's `keep`")
        rows = rows[np.isin(store.column(key)[rows], values)]
        what += f" with {key} {', '.join(map(str, values))}"
    rows = rows[np.sort(np.unique(store.duplicate_of[rows], return_index=True)[1])]
    rng = np.random.default_rng(seed)
    rows = np.sort(_draw(rng, rows, sample.get("structures"), f"{what} has {{}} structures"))
    owners = np.repeat(rows, store.n_atoms[rows])
    places = np.concatenate([np.arange(n) for n in store.n_atoms[rows]] or [[]]).astype(np.int64)
    wanted = sample.get("environments")
    taken = np.sort(_draw(rng, np.arange(len(owners)), wanted, f"{what} has {{}} environments"))
    owners, places = owners[taken], places[taken]
    return {int(row): places[owners == row] for row in np.unique(owners)}


def _draw(rng: np.random.Generator, items: np.ndarray, n: int | None, has: str) -> np.ndarray:
    """Draw `n` of the items, or take all of them."""
    if len(items) == 0 or (n or 0) > len(items):
        wanted = "" if n is None else f", {n} are wanted"
        raise UserError(f"{has.format(len(items))}{wanted}: correct the embedding's sample")
    return items if n is None else rng.choice(items, n, replace=False)


def describe(store: Store, settings: Mapping[str, Any]) -> Environments:
    """Describe the environments of a sample; `settings`: the view ``descriptors~MAP~SAMPLE``."""
    sample = settings["sample"]
    transform = Transform.from_settings(sample["transform"], settings["transforms"])
    descriptor = soap(settings["descriptor"])
    parts = []
    for row, chosen in choose(store, sample, settings["seed"]).items():
        arrays = transform.apply(store.arrays(row))
        atoms = Atoms(
            arrays["numbers"], arrays["positions"], cell=arrays["cell"], pbc=arrays["pbc"]
        )
        energy = float(arrays["energy"]) / len(atoms) if "energy" in arrays else np.nan
        parts.append(
            Environments(
                vectors=vectors_of(atoms, chosen, descriptor),
                structure=np.full(len(chosen), arrays["index"]),
                atom=chosen,
                density=np.full(len(chosen), density_of(atoms)),
                coordination=neighbours(atoms, sample.get("neighbour_radius"))[chosen],
                energy=np.full(len(chosen), energy),
            )
        )
    names = [field.name for field in fields(Environments)]
    return Environments(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))
