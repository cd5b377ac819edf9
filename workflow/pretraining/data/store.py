"""Indexed HDF5 file of structures: one a prepared set, read one structure at a time.

Structures of different size lie end to end ("ragged") in flat arrays, and ``ptr`` holds where each
begins: opening a set of 23 million atoms costs a megabyte, and reading one structure, or the first
*n*, does not touch the rest. The order is validation, test, training pool. The training set of size
*n* is the first *n* of the pool, whatever the seed.

Layout (N atoms in n structures)::

    /ptr        (n + 1,) int64      atoms of structure i are ptr[i]:ptr[i + 1]
    /numbers    (N,) uint8          atomic numbers
    /positions  (N, 3) float64      Å
    /cell       (n, 3, 3) float64   Å, rows are the lattice vectors
    /pbc        (n, 3) bool
    /index      (n,) int64          position of the structure in the raw dataset
    /duplicate_of (n,) int64        first row with the same structure, atom for atom
    /energy     (n,) float64        eV a structure, relative to the energy reference (labelled sets)
    /forces     (N, 3) float64      eV/Å (labelled sets)
    /info/NAME  (n,)                numbers or text carried along from the raw dataset; / in a name
                                    is %2F, and % is %25

Attributes: ``format``, ``n_val``, ``n_test``, ``n_train``, ``has_labels``, ``checksum`` (SHA-256 of
the content), ``provenance`` (JSON), ``checksum_about`` (of the provenance and ``duplicate_of``).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import h5py
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from pretraining.data.store_writer import (
    ATOM_ARRAYS,
    FORMAT,
    FRAME_ARRAYS,
    LABELS,
    StoreWriter,
    about_checksum,
    content_checksum,
    content_of,
    info_path,
)
from pretraining.runtime.errors import UserError, remake, whole

__all__ = ["GROUPS", "Store", "StoreWriter"]

GROUPS = ("val", "test", "train")
_ROWS_AT_ONCE = 2**18


class Store:
    """A store open for reading; also a context manager.

    It may be pickled and may cross a fork (data-loading workers): each process opens the file for
    itself. The content is read once and compared with its checksum, at about 400 MB/s: in 2.5 s for
    100,000 labelled structures of 200 atoms (1 GB). Without `verify`, for a file that the program
    has written or verified itself, opening reads a megabyte. Raises a `UserError` if the file is
    missing, cut short, not a store, or changed after it was written.
    """

    def __init__(self, path: str | Path, verify: bool = True) -> None:
        self.path = Path(path)
        self._open()
        if self._file.attrs.get("format") != FORMAT:
            raise UserError(f"{self.path} is not a prepared set: run the `prepare` step to make it")
        with whole(self.path):
            self._read()
            if verify and not self._is_unchanged():
                raise UserError(
                    f"{self.path} was changed after it was written (its content is not that of its "
                    f"checksum): {remake(self.path)}; to change the data, change the files that it "
                    "is made from"
                )

    def _read(self) -> None:
        attrs = self._file.attrs
        self.n_val, self.n_test, self.n_train = (int(attrs[f"n_{group}"]) for group in GROUPS)
        self.has_labels = bool(attrs["has_labels"])
        self.checksum = str(attrs["checksum"])
        self.provenance: dict[str, Any] = json.loads(attrs["provenance"])
        self.ptr: np.ndarray = self._file["ptr"][:]
        self.info_names: tuple[str, ...] = tuple(map(unquote, self._file.get("info", ())))
        self._columns: dict[str, np.ndarray] = {}

    def _is_unchanged(self) -> bool:
        """Whether all arrays and attributes are those that were written."""
        attrs = self._file.attrs
        arrays = [name for name in ATOM_ARRAYS | FRAME_ARRAYS if name in self._file]
        hashes = {}
        for name in arrays:
            dataset, hashes[name] = self._file[name], hashlib.sha256()
            for begin in range(0, len(dataset), _ROWS_AT_ONCE):
                hashes[name].update(content_of(dataset[begin : begin + _ROWS_AT_ONCE]))
        for name in ("ptr", *(info_path(name) for name in self.info_names)):
            dataset = self._file[name]
            values = dataset.asstr()[:] if h5py.check_string_dtype(dataset.dtype) else dataset[:]
            hashes[name] = hashlib.sha256(content_of(values))
        content = content_checksum(self.n_val, self.n_test, hashes)
        about = about_checksum(self.duplicate_of, attrs["provenance"])
        return (
            content == self.checksum
            and about == attrs["checksum_about"]
            and len(self) == self.n_val + self.n_test + self.n_train
            and self.has_labels == all(label in arrays for label in LABELS)
        )

    @staticmethod
    def write(
        path: str | Path,
        frames: Iterable[Atoms],
        n_val: int,
        n_test: int,
        provenance: dict[str, Any] | None = None,
        has_labels: bool | None = None,
        info: Sequence[str] = (),
    ) -> str:
        """Write structures in the order val, test, train; return the content's checksum.

        If `has_labels` is None, the first structure decides. `info` names the entries to keep.
        """
        frames = iter(frames)
        first = next(frames, None)
        if first is None:
            raise UserError(f"{path}: no structures to write")
        if has_labels is None:
            results = first.calc.results if first.calc is not None else {}
            has_labels = all(label in results for label in LABELS)
        with StoreWriter(path, has_labels, info) as writer:
            writer.add(first)
            for atoms in frames:
                writer.add(atoms)
            return writer.finish(n_val, n_test, provenance)

    def _open(self) -> None:
        if not self.path.is_file():
            raise UserError(f"no prepared set at {self.path}: run the `prepare` step to make it")
        try:
            # Stores are never changed in place, and shared file systems often refuse locks.
            self._file = h5py.File(self.path, "r", locking=False)
        except OSError as error:
            raise UserError(
                f"{self.path} is not a readable HDF5 file: {remake(self.path)}"
            ) from error
        self._pid = os.getpid()
        self._datasets: dict[str, h5py.Dataset] = {}

    def _dataset(self, name: str) -> h5py.Dataset:
        # Handles are kept: a dataset's cache of chunks lives only as long as its handle.
        if self._pid != os.getpid():
            self._open()
        if name not in self._datasets:
            self._datasets[name] = self._file[name]
        return self._datasets[name]

    def __reduce__(self) -> tuple[type[Store], tuple[Path, bool]]:
        return Store, (self.path, False)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __iter__(self) -> Iterator[Atoms]:
        return (self[i] for i in range(len(self)))

    @property
    def n_atoms(self) -> np.ndarray:
        """Number of atoms of each structure, shape (n,)."""
        return np.diff(self.ptr)

    @cached_property
    def duplicate_of(self) -> np.ndarray:
        """First row with the same structure as each row, shape (n,); its own row if unique."""
        return self._file["duplicate_of"][:]

    def indices(self, group: str, n: int | None = None) -> range:
        """Row numbers of a group, or of its first `n` structures; a UserError if it has fewer."""
        if group not in GROUPS:
            raise UserError(f"no group {group!r} in a prepared set: choose of {', '.join(GROUPS)}")
        sizes = {"val": self.n_val, "test": self.n_test, "train": self.n_train}
        start = sum(sizes[name] for name in GROUPS[: GROUPS.index(group)])
        if n is not None and not 0 <= n <= sizes[group]:
            raise UserError(
                f"{self.path} has {sizes[group]} {group} structures, not the {n} needed"
            )
        return range(start, start + (sizes[group] if n is None else n))

    def arrays(self, i: int) -> dict[str, np.ndarray]:
        """Arrays of structure `i`, in the units of the file's layout.

        ``numbers`` (N,), ``positions`` (N, 3), ``cell`` (3, 3), ``pbc`` (3,), scalar ``index`` and,
        if labelled, ``forces`` (N, 3) and scalar ``energy``.
        """
        i = self._row(i)
        atoms = slice(int(self.ptr[i]), int(self.ptr[i + 1]))
        names = [n for n in ATOM_ARRAYS | FRAME_ARRAYS if self.has_labels or n not in LABELS]
        return {
            name: np.asarray(self._dataset(name)[atoms if name in ATOM_ARRAYS else i])
            for name in names
        }

    def info(self, i: int) -> dict[str, Any]:
        """Kept info entries of structure `i` (those it has), and its raw ``index``."""
        i = self._row(i)
        for name in self.info_names:
            if name not in self._columns:
                # Reading one value costs as much as reading thousands.
                self._columns[name] = self.column(name)
        entries = {name: _value(self._columns[name][i]) for name in self.info_names}
        entries = {name: value for name, value in entries.items() if value is not None}
        return {"index": int(self._dataset("index")[i])} | entries

    def column(self, name: str, group: str | None = None, n: int | None = None) -> np.ndarray:
        """``energy`` (eV), ``index``, ``cell``, ``pbc`` or an info entry of all structures.

        Text is an array of `str` objects; a missing value is NaN or an empty string.
        """
        dataset = self._dataset(name if name in FRAME_ARRAYS else info_path(name))
        rows = range(len(self)) if group is None else self.indices(group, n)
        if h5py.check_string_dtype(dataset.dtype):
            dataset = dataset.asstr()
        return dataset[rows.start : rows.stop]

    def __getitem__(self, i: int) -> Atoms:
        row = self.arrays(i)
        atoms = Atoms(
            numbers=row["numbers"],
            positions=row["positions"],
            cell=row["cell"],
            pbc=row["pbc"],
            info=self.info(i),
        )
        if self.has_labels:
            atoms.calc = SinglePointCalculator(
                atoms, energy=float(row["energy"]), forces=row["forces"]
            )
        return atoms

    def subset(self, group: str, n: int | None = None) -> list[Atoms]:
        """Structures of a group, or its first `n`, as ASE objects (all in memory)."""
        return [self[i] for i in self.indices(group, n)]

    def _row(self, i: int) -> int:
        # An IndexError, not a UserError: Python's iteration protocol ends on it.
        if not -len(self) <= i < len(self):
            raise IndexError(f"structure {i} of {len(self)}")
        return i % len(self)


def _value(value: Any) -> Any:
    """Turn one stored info entry into a plain Python value; None if it is missing."""
    value = value.item() if isinstance(value, np.generic) else value
    missing = value == "" or (isinstance(value, float) and np.isnan(value))
    return None if missing else value
