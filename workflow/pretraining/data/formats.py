"""Formats that ASE's readers leave out: pymatgen's JSON, deepmd's arrays, entries of ASE databases.

Imported in interpreters of label sources: only the standard library, numpy and ASE.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect

from pretraining.runtime.errors import UserError
from pretraining.study.queries import DEEPMD, DEEPMD_PARTS

# Parts of an entry of pymatgen's JSON that hold its labels, in the order in which they count.
PARTS = ("data", "output", "outputs")


def reader_of(path: Path, format: str | None) -> Any:
    """Return the function here that reads a file; None if ASE's own reader does."""
    if format in (None, "deepmd") and path.name == DEEPMD:
        return read_deepmd
    if path.suffix in DEEPMD_PARTS or path.name == "nopbc":
        return lambda part: iter(())  # read with the system's type.raw
    if format == "pymatgen" or (
        format is None and path.suffix == ".json" and b'"sites"' in path.read_bytes()
    ):
        return read_pymatgen
    return read_database if format == "db" or (format is None and path.suffix == ".db") else None


def read_database(path: Path) -> Iterator[Atoms]:
    """Read an ASE database, with the key-value pairs and the data of its rows."""
    with connect(path, type="db", serial=True) as rows:
        for row in rows.select():
            yield _labelled(row.toatoms(), {**row.data, **row.key_value_pairs})


def read_pymatgen(path: Path) -> Iterator[Atoms]:
    """Read JSON in which mappings hold pymatgen's structures: mlearn, MPtrj, MatPES, entries.

    Labels are what stands beside a structure, in its properties, and in those of its sites.
    """
    for entry in _entries(json.loads(path.read_text(encoding="utf-8"))):
        structure = entry["structure"]
        sites = structure["sites"]
        species = [site["species"] for site in sites]
        if any(len(kinds) != 1 or kinds[0].get("occu", 1) != 1 for kinds in species):
            raise ValueError("a site is occupied in part")
        lattice = structure.get("lattice") or {"pbc": False}
        matrix = lattice.get("matrix")
        places = [s["xyz"] if "xyz" in s else np.dot(s["abc"], matrix) for s in sites]
        symbols = [kinds[0]["element"] for kinds in species]
        atoms = Atoms(symbols, positions=places, cell=matrix, pbc=lattice.get("pbc", True))
        of_sites = [site.get("properties") or {} for site in sites]
        labels = {key: [own.get(key) for own in of_sites] for key in (of_sites or [{}])[0]}
        labels |= structure.get("properties") or {}
        for part in (*(entry.get(name) for name in PARTS), entry):
            labels |= part if isinstance(part, dict) else {}
        yield _labelled(atoms, labels)


def _entries(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a structure, and every structure that stands alone, in order."""
    if isinstance(value, dict) and isinstance(value.get("sites"), list):
        yield {"structure": value}
    elif isinstance(value, dict) and "sites" in (value.get("structure") or {}):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _entries(item)


def read_deepmd(path: Path) -> Iterator[Atoms]:
    """Read the deepmd system of a ``type.raw``, with ``energy`` and ``forces`` as its labels."""
    folder = path.parent
    try:
        names = np.array((folder / "type_map.raw").read_text(encoding="utf-8").split())
    except FileNotFoundError:
        raise UserError(f"{folder} has no type_map.raw, which names the elements: add it") from None
    types = np.loadtxt(path, dtype=int, ndmin=1)
    periodic = not (folder / "nopbc").exists()
    # A system that was not packed has one text file for each array.
    for part in sorted(folder.glob("set.*")) or [folder]:
        arrays = {file.stem: np.load(file) for file in part.glob("*.npy")} or {
            name: np.loadtxt(folder / f"{name}.raw", ndmin=2)
            for name in ("coord", "box", "energy", "force")
            if (folder / f"{name}.raw").exists()
        }
        for i, places in enumerate(arrays["coord"].reshape(-1, len(types), 3)):
            own = arrays["real_atom_types"][i] if "real_atom_types" in arrays else types
            real = own >= 0  # the others fill up smaller structures
            box = arrays["box"][i].reshape(3, 3) if periodic else None
            labels = {"energy": arrays["energy"].ravel()[i]} if "energy" in arrays else {}
            if "force" in arrays:
                labels["forces"] = arrays["force"][i].reshape(-1, 3)[real]
            yield _labelled(Atoms(names[own[real]], places[real], cell=box, pbc=periodic), labels)


def _labelled(atoms: Atoms, labels: Mapping[str, Any]) -> Atoms:
    """Give a structure its entries: numbers and text, and arrays with a row for each atom."""
    for key, value in labels.items():
        if np.ndim(value) == 0 and isinstance(value, str | int | float | np.generic):
            atoms.info[key] = value
        elif isinstance(value, list | np.ndarray) and key not in atoms.arrays:
            try:
                array = np.asarray(value, dtype=float)
            except (ValueError, TypeError):
                continue
            if array.shape in ((len(atoms),), (len(atoms), 3)):
                atoms.arrays[key] = array
    return atoms
