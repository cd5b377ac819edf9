"""Published labels: files that others have made, read without trusting them, and verified.

A file is a NumPy archive (``.npz``) with ``energy`` (n,), eV a structure, relative to isolated
atoms, and ``force``, eV/Å: n pickled arrays (n_atoms, 3), or one array (n, n_atoms, 3). A pickle
may run any code. Here it calls nothing, not even NumPy: it is read as plain numbers.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.lib import format as npy

from pretraining.data.energy_references import make_reference
from pretraining.data.sanity.units import rms
from pretraining.data.store import Store
from pretraining.labels.compare import Labels
from pretraining.runtime.errors import UserError, remake
from pretraining.runtime.files import file_sha256
from pretraining.runtime.records import read_record
from pretraining.study.queries import FITTED

# What a pickled array is made of.
OPCODES = """PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD NONE NEWTRUE NEWFALSE BININT
    BININT1 BININT2 BINFLOAT SHORT_BINBYTES BINBYTES BINUNICODE SHORT_BINUNICODE EMPTY_LIST APPEND
    APPENDS EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET"""
FLOATS = re.compile(rb"(?:G.{8})*+", re.DOTALL)
NAMES = ("numpy.dtype", "numpy.ndarray", "numpy.core.multiarray._reconstruct")
# Labels of two methods for the same structures. EDIP and LCBOP beside C-ACE and GAP-17: forces
# correlate by 0.34 to 0.66 (by 0.0 with the next frame of the trajectory); energies differ by a
# factor of 1.3 to 1.5, forces by 2.4 to 4.3.
LEAST_CORRELATION, MOST_FACTOR = 0.15, 6.0
# Forces below this (rms, eV/Å) have no direction to compare.
NO_FORCE = 0.01


class NotArrays(ValueError):
    """A file holds something else than arrays of numbers."""


class _StandIn:
    """Stands for a name of NumPy in a pickle, and for what calling it would make."""

    __slots__ = ("args", "state")

    def __call__(self, *args: Any) -> _StandIn:
        made = _StandIn()
        made.args = args
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _StandIn:
        if f"{module.replace('._core.', '.core.')}.{name}" not in NAMES:
            raise NotArrays(f"it would call {module}.{name}")
        return _StandIn()


def _unpickled(data: bytes) -> Any:
    known, stream = frozenset(OPCODES.split()), io.BytesIO(data)
    for opcode, argument, _ in pickletools.genops(stream):
        # The unpickler reserves memory for as many entries as LONG_BINPUT says.
        if opcode.name not in known or (opcode.name == "LONG_BINPUT" and argument > len(data)):
            raise NotArrays(f"its pickle has {opcode.name} {argument or ''}")
        if opcode.name == "BINFLOAT":
            stream.seek(FLOATS.match(data, stream.tell()).end())
    return _numbers(_Unpickler(io.BytesIO(data)).load())


def _numbers(array: _StandIn, is_part: bool = False) -> Any:
    """Numbers of a pickled array; of an array of arrays, a list of these."""
    _, shape, dtype, is_fortran, data = array.state
    kind = dtype.args[0]
    if kind in ("O", "O8") and len(shape) == 1 and not is_part:
        return [_numbers(part, is_part=True) for part in data]
    if kind in ("O", "O8"):
        # One number each: a list may hold itself.
        values = np.fromiter(data, np.float64)
    elif kind in ("f4", "f8"):
        values = np.frombuffer(data, {"<": "<", ">": ">"}[dtype.state[1]] + kind)
    else:
        raise NotArrays(f"it has an array of the type {kind!r}")
    return values.reshape(shape, order="F" if is_fortran else "C")


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> Any:
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > limit:
        raise NotArrays(f"{name} has {member.file_size:,} bytes, too many for this set")
    with archive.open(member) as handle:
        data = io.BytesIO(handle.read(limit))
    version = npy.read_magic(data)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    if read(data)[2].hasobject:
        return _unpickled(data.read())
    data.seek(0)
    return npy.read_array(data, allow_pickle=False)


def read_labels(path: Path, limit: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return energies (n,), eV a structure, and n arrays (n_atoms, 3) of forces, eV/Å, of a file.

    `limit` is the largest size in bytes that it may unpack to. Raises a `UserError` if it is cut
    short or holds anything but these arrays.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            energy, force = (_member(archive, name, limit) for name in ("energy", "force"))
        if np.shape(energy) != (len(force),) or 8 * sum(part.size for part in force) > limit:
            raise NotArrays(f"energy has the shape {np.shape(energy)}, force {len(force)} parts")
        energy, force = np.asarray(energy, float), [np.asarray(part, float) for part in force]
    except Exception as error:  # anything, from a hostile file
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{path} is no file of published labels ({reason}): nothing of it is used; get it "
            "again, or an .npz file that has only the arrays energy and force"
        ) from error
    return energy, force


def published_labels(
    store: Store, retrieved: Path, known: Labels, source: str | None = None, fit: str | None = None
) -> tuple[dict[int, dict[str, np.ndarray]], dict[str, Any]]:
    """Read published labels of a prepared set and compare those of each file with others.

    Parameters
    ----------
    retrieved
        Record of their files, in the order of the structures that pass the filters.
    known, source, fit
        Labels of the validation and test structures to compare with; their source, if they are not
        the set's own; how the zero of the published energies is fitted, if it is.

    Returns
    -------
    tuple
        ``energy`` (eV a structure) and ``forces`` (eV/Å) by row of the set; how they were made.

    Raises
    ------
    UserError
        If labels are missing, not finite, of other structures, or have another sign or unit.
    """
    made = read_record(retrieved)["files"]
    files, atoms = [Path(file["path"]) for file in made], store.n_atoms
    for path, file in zip(files, made, strict=True):
        if file_sha256(path) != file["sha256"]:
            raise UserError(f"{path} was changed after it was retrieved: {remake(retrieved)}")
    limit = 10**6 + 1000 * len(store) + 200 * int(atoms.sum())
    read = [read_labels(path, limit) for path in files]
    ends = np.cumsum([len(energy) for energy, _ in read])
    if ends[-1] != len(store):
        raise UserError(
            f"{', '.join(map(str, files))}: {ends[-1]:,} labels, but {len(store):,} structures of "
            f"{store.path} pass the filters: give the dataset the filters of the published labels, "
            "and all of their files"
        )
    place = np.argsort(np.argsort(store.column("index")))
    energy = np.concatenate([energy for energy, _ in read])[place]
    every = [force for _, forces in read for force in forces]
    forces, file = [every[i] for i in place], np.searchsorted(ends, place, side="right")
    for row in np.argsort(place):
        where = f"{files[file[row]]}: label {place[row]:,} of all files"
        if forces[row].shape != (atoms[row], 3):
            raise UserError(
                f"{where} has forces of the shape {forces[row].shape}, its structure {atoms[row]} "
                "atoms: the files are in another order, or the filters are others"
            )
        if not np.isfinite([energy[row], *forces[row].ravel()]).all():
            raise UserError(f"{where} is not finite: get another file")
    same_zero = bool(source) or store.provenance["energy_reference"]["kind"] not in FITTED
    for number, path in enumerate(files):
        rows = np.flatnonzero((file[: len(known)] == number) & np.isfinite(known.energy))
        mine = energy[rows] / atoms[rows], [forces[i] for i in rows]
        theirs = known.energy[rows], [known.forces[i] for i in rows]
        _compare(f"{path}: beside {source or 'own labels'}", mine, theirs, same_zero)
    numbers = [store.arrays(row)["numbers"] for row in range(len(store))]
    present = [chemical_symbols[z] for z in np.unique(np.concatenate(numbers))]
    pool = [(numbers[row], energy[row]) for row in store.indices("train")]
    zero = make_reference({fit or "none": True}, present, pool)
    energy = energy - [zero.of(each) for each in numbers]
    labels = {i: {"energy": energy[i], "forces": forces[i]} for i in range(len(store))}
    return labels, {"labels": [], "published": made, "energy_zero": zero.as_dict()}


def _compare(where: str, mine: Any, theirs: Any, same_zero: bool) -> None:
    """Raise a `UserError` if energies per atom and forces are of others than `theirs`."""
    pairs = zip(mine[1], theirs[1], strict=True)
    pairs = [pair for pair in pairs if min(map(rms, pair)) > NO_FORCE]
    if not pairs:
        return print(f"{where}: not compared: none of its evaluation structures has forces")
    match = float(np.median([np.mean(a * b) / rms(a) / rms(b) for a, b in pairs]))
    size = float(np.median([rms(a) / rms(b) for a, b in pairs]))
    ratio = float(np.median(mine[0]) / np.median(theirs[0])) if same_zero else 1.0
    # Few components agree by chance.
    least = min(0.9, max(LEAST_CORRELATION, 3 / sum(a.size for a, _ in pairs) ** 0.5))
    found = (
        f"{where} its forces in {len(pairs)} structures have a correlation of {match:.2f} (at "
        f"least {least:.2f} is needed), are {size:.3g} and its energies {ratio:.3g} times as large"
    )
    if abs(match) < least:
        fault = "its labels are of other structures: see to the order of files and the filters"
    elif match < 0:
        fault = "its forces have the opposite sign: get forces, not gradients"
    elif not all(1 / MOST_FACTOR < factor < MOST_FACTOR for factor in (size, ratio)):
        fault = (
            "another sign, unit or zero: get eV a structure, relative to isolated atoms, and eV/Å"
        )
    else:
        return print(found)
    raise UserError(f"{found}: {fault}")
