"""Write a store; :mod:`.store` reads it and documents its layout."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from ase import Atoms

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import move_into_place, remove, room_for

FORMAT = "structures-1"

# name: (shape of a row, type, rows of a chunk). Chunks are small, since reading a structure reads
# whole chunks, and not compressed, since coordinates hardly compress.
ATOM_ARRAYS: dict[str, tuple[tuple[int, ...], Any, int]] = {
    "numbers": ((), np.uint8, 16384),
    "positions": ((3,), np.float64, 2048),
    "forces": ((3,), np.float64, 2048),
}
FRAME_ARRAYS: dict[str, tuple[tuple[int, ...], Any, int]] = {
    "cell": ((3, 3), np.float64, 256),
    "pbc": ((3,), np.bool_, 4096),
    "index": ((), np.int64, 1024),
    "energy": ((), np.float64, 1024),
}
LABELS = ("energy", "forces")
_BUFFERED_ATOMS = 100_000
# Bytes of a file beyond its content: chunks that are not full, and their index.
_OVERHEAD = 2**20


def frame_arrays(atoms: Atoms, has_labels: bool, index: int) -> dict[str, np.ndarray]:
    """Return the arrays of a structure for the store; `index` is its number in the raw dataset.

    With labels, they include the calculator's energy (eV, total) and forces (eV/Å). Raises a
    `UserError` if a label is missing or has the wrong shape.
    """
    row = {
        "numbers": np.asarray(atoms.numbers, dtype=np.uint8),
        "positions": np.asarray(atoms.positions, dtype=np.float64),
        "cell": np.asarray(atoms.cell.array, dtype=np.float64),
        "pbc": np.asarray(atoms.pbc, dtype=bool),
        "index": np.asarray(index, dtype=np.int64),
    }
    if has_labels:
        results = atoms.calc.results if atoms.calc is not None else {}
        missing = [label for label in LABELS if results.get(label) is None]
        if missing:
            raise UserError(f"structure {row['index']} has no {' and no '.join(missing)} to store")
        row["energy"] = np.asarray(results["energy"], dtype=np.float64)
        row["forces"] = np.asarray(results["forces"], dtype=np.float64)
        if row["energy"].shape != () or row["forces"].shape != (len(atoms), 3):
            raise UserError(
                f"structure {row['index']}: energy must be one number and forces of shape "
                f"({len(atoms)}, 3), not {row['energy'].shape} and {row['forces'].shape}"
            )
    return row


class StoreWriter:
    """Write a store structure by structure; :meth:`finish` moves the whole file into place.

    With labels, every structure has an energy and forces. `info` names the entries of
    ``atoms.info`` to keep.
    """

    def __init__(self, path: str | Path, has_labels: bool, info: Sequence[str] = ()) -> None:
        self.path = Path(path)
        self.has_labels = has_labels
        self.n = 0
        self._tmp = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        self._columns: dict[str, list[Any]] = {name: [] for name in info}
        self._ptr = [0]
        self._first: dict[bytes, int] = {}
        self._duplicate_of: list[int] = []
        self._file: h5py.File | None = None
        self._datasets: dict[str, h5py.Dataset] = {}
        self._hashes: dict[str, Any] = {}
        self._buffer: dict[str, list[np.ndarray]] = {}
        self._buffered = 0
        self._written = False

    def __enter__(self) -> StoreWriter:
        try:
            with room_for(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._tmp.touch()
                self._reserve(0)
                self._file = h5py.File(self._tmp, "w")
                self._reserve(0)
        except UserError:
            remove(self._tmp)
            raise
        for name, (shape, dtype, chunk) in (ATOM_ARRAYS | FRAME_ARRAYS).items():
            if name in LABELS and not self.has_labels:
                continue
            self._datasets[name] = self._file.create_dataset(
                name, (0, *shape), dtype, maxshape=(None, *shape), chunks=(chunk, *shape)
            )
            # One digest an array: the checksum does not depend on the buffer's size.
            self._hashes[name] = hashlib.sha256()
            self._buffer[name] = []
        return self

    def add(self, atoms: Atoms) -> None:
        """Append a structure (its labels in its calculator, its raw index in ``info["index"]``)."""
        index = atoms.info.get("index", self.n)
        self.add_arrays(frame_arrays(atoms, self.has_labels, index), atoms.info)

    def add_arrays(self, row: dict[str, np.ndarray], info: dict[str, Any] | None = None) -> int:
        """Append a structure given as the arrays of :func:`frame_arrays` or `Store.arrays`.

        Returns
        -------
        int
            First row with the same structure, atom for atom; its own row if it is new.
        """
        info = info or {}
        first = self._first.setdefault(_identity(row), self.n)
        self._duplicate_of.append(first)
        for name, values in self._columns.items():
            values.append(info.get(name))
        for name, rows in self._buffer.items():
            rows.append(row[name] if name in ATOM_ARRAYS else row[name][None])
        self._ptr.append(self._ptr[-1] + len(row["numbers"]))
        self.n += 1
        self._buffered += len(row["numbers"]) + 1
        if self._buffered >= _BUFFERED_ATOMS:
            with room_for(self.path):
                self._flush()
        return first

    def finish(self, n_val: int, n_test: int, provenance: dict[str, Any] | None = None) -> str:
        """Close the file, move it into place and return the content's checksum.

        The first `n_val` structures are the validation set, the next `n_test` the test set. The
        `provenance` holds the set's origin and settings as JSON values. Raises a `UserError` if the
        parts do not fit, or there is no room for the file.
        """
        if min(n_val, n_test, self.n - n_val - n_test) < 0:
            raise UserError(
                f"{self.path.name}: {n_val} validation and {n_test} test structures do not fit "
                f"into {self.n}"
            )
        with room_for(self.path):
            return self._finish(n_val, n_test, provenance or {})

    def _finish(self, n_val: int, n_test: int, provenance: dict[str, Any]) -> str:
        self._flush()
        # 8 bytes a number; HDF5 stores text with a pointer.
        texts = (str(v) for values in self._columns.values() for v in values)
        self._reserve(16 * len(self._ptr) + sum(64 + 4 * len(text) for text in texts))
        self._store("ptr", np.asarray(self._ptr, dtype=np.int64))
        for name, values in self._columns.items():
            self._store(info_path(name), _column(values))
        duplicate_of = np.asarray(self._duplicate_of, dtype=np.int64)
        self._file.create_dataset("duplicate_of", data=duplicate_of)
        about = json.dumps(provenance, sort_keys=True)
        checksum = content_checksum(n_val, n_test, self._hashes)
        self._file.attrs.update(
            format=FORMAT,
            n_val=n_val,
            n_test=n_test,
            n_train=self.n - n_val - n_test,
            has_labels=self.has_labels,
            checksum=checksum,
            checksum_about=about_checksum(duplicate_of, about),
            provenance=about,
        )
        self._file.close()
        with h5py.File(self._tmp, "r+"):
            pass  # frees the reserved space that is left
        move_into_place(self._tmp, self.path)
        self._written = True
        return checksum

    def __exit__(self, *_: object) -> None:
        if not self._written:
            self._file.close()
            remove(self._tmp)

    def _reserve(self, size: int) -> None:
        """Reserve `size` more bytes on the disk: HDF5 crashes on a full one."""
        end = self._file.id.get_filesize() if self._file else 0
        with open(self._tmp, "r+b") as handle:
            os.posix_fallocate(handle.fileno(), 0, end + size + _OVERHEAD)
            os.fsync(handle.fileno())

    def _flush(self) -> None:
        self._reserve(sum(row.nbytes for rows in self._buffer.values() for row in rows))
        for name, rows in self._buffer.items():
            if not rows:
                continue
            dtype = (ATOM_ARRAYS | FRAME_ARRAYS)[name][1]
            block = np.ascontiguousarray(np.concatenate(rows), dtype=dtype)
            dataset = self._datasets[name]
            dataset.resize(len(dataset) + len(block), axis=0)
            dataset[len(dataset) - len(block) :] = block
            self._hashes[name].update(block.tobytes())
            rows.clear()
        self._buffered = 0

    def _store(self, name: str, values: np.ndarray) -> None:
        dtype = h5py.string_dtype("utf-8") if values.dtype == object else None
        self._file.create_dataset(name, data=values, dtype=dtype)
        self._hashes[name] = hashlib.sha256(content_of(values))


def info_path(name: str) -> str:
    """Return the place of an info entry in the file, where a slash would make a group."""
    name = name.replace("%", "%25").replace("/", "%2F")
    return f"info/{'%2E' if name == '.' else name}"


def content_of(values: np.ndarray) -> bytes:
    """Return the bytes of an array, or of its texts, that a checksum is made of."""
    is_text = values.dtype == object
    return json.dumps(values.tolist()).encode() if is_text else values.tobytes()


def content_checksum(n_val: int, n_test: int, hashes: Mapping[str, Any]) -> str:
    """Return the checksum of a store's content from the SHA-256 of each of its arrays."""
    checksum = hashlib.sha256(f"{FORMAT} {n_val} {n_test}".encode())
    for name in sorted(hashes):
        checksum.update(f" {name} {hashes[name].hexdigest()}".encode())
    return checksum.hexdigest()


def about_checksum(duplicate_of: np.ndarray, provenance: str) -> str:
    """Return the checksum of what is no content: the same content may be made in two ways."""
    return hashlib.sha256(duplicate_of.tobytes() + provenance.encode()).hexdigest()


def _identity(row: dict[str, np.ndarray]) -> bytes:
    """Digest of the elements, positions, cell and periodic directions, which decide the labels."""
    digest = hashlib.blake2b(digest_size=16)
    for name in ("numbers", "positions", "cell", "pbc"):
        digest.update(np.ascontiguousarray(row[name]).tobytes())
    return digest.digest()


def _column(values: list[Any]) -> np.ndarray:
    """Turn info entries into an array: of numbers if all are (missing: NaN), else of text."""
    present = [value for value in values if value is not None]
    if present and all(isinstance(value, bool | np.bool_) for value in present):
        dtype: type = np.bool_
    elif all(isinstance(value, int | np.integer) for value in present):
        dtype = np.int64
    elif all(isinstance(value, int | float | np.integer | np.floating) for value in present):
        dtype = np.float64
    else:
        return np.array(["" if v is None else str(v) for v in values], dtype=object)
    if len(present) < len(values):
        return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)
    return np.array(values, dtype=dtype)
