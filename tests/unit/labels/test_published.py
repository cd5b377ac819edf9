"""Published labels: files that nobody trusts, matched with a set and compared with other labels."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from pretraining.data.remote import RemoteFile
from pretraining.data.store import Store
from pretraining.labels.compare import own_labels
from pretraining.labels.published import published_labels, read_labels
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256

LIMIT = 100_000


def ragged(*arrays):
    """An object array of arrays, whatever their shapes."""
    made = np.empty(len(arrays), dtype=object)
    made[:] = arrays
    return made


def pickled(*parts: bytes, shape=(2,)) -> bytes:
    """A member of an archive that claims to be an object array."""
    header = io.BytesIO()
    descr = {"descr": "|O", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, descr)
    return header.getvalue() + b"".join(parts)


def archive(path: Path, **members: bytes) -> Path:
    """An archive; energies are those of two structures unless they are given."""
    plain = io.BytesIO()
    np.save(plain, np.zeros(2))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in ({"energy": plain.getvalue()} | members).items():
            file.writestr(f"{name}.npy", content)
    return path


class Calls:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


SAME = [np.arange(6.0).reshape(2, 3), np.ones((2, 3))]
OTHERS = [np.ones((1, 3)), np.arange(6.0).reshape(3, 2).T, np.ones((4, 3), dtype=">f4")]


@pytest.mark.parametrize(
    "forces",
    [ragged(*OTHERS), np.array(SAME, dtype=object), np.array(SAME), np.array(SAME, np.float32)],
    ids=["different", "equal", "numbers", "single"],
)
def test_arrays_are_read_as_they_were_written(tmp_path, forces):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, energy=np.arange(len(forces)) - 0.5, force=forces)
    energy, read = read_labels(path, LIMIT)
    np.testing.assert_array_equal(energy, np.arange(len(forces)) - 0.5)
    for mine, theirs in zip(read, forces, strict=True):
        np.testing.assert_array_equal(mine, np.asarray(theirs, dtype=float))
        assert mine.dtype == np.float64


def laughs(depth=30):
    """Arrays of arrays that unpack to 2 ** depth."""
    made = np.ones(1)
    for _ in range(depth):
        made = ragged(made, made)
    return made


def itself():
    made = np.empty((1, 1), dtype=object)
    made[0, 0] = made
    return made


def call(function, *arguments):
    return pickled(pickle.dumps(Calls(function, *arguments), protocol=4))


def inside(function, *arguments):
    return pickled(pickle.dumps(ragged(Calls(function, *arguments), 1), protocol=3))


MARK = "hostile"
HOSTILE = {
    "a shell": (call(os.system, f"touch {MARK}"), "it would call posix.system"),
    "in an array": (inside(os.system, f"touch {MARK}"), "it would call posix.system"),
    "eval": (call(eval, f"open({MARK!r}, 'w')"), "it would call builtins.eval"),
    "file": (call(open, MARK, "w"), "it would call (_io|io).open"),
    "NumPy's writer": (call(np.savetxt, MARK, [1.0]), "it would call numpy.savetxt"),
    "NumPy's file": (call(np.memmap, MARK, "u1", "w+", 0, 8), "it would call numpy.memmap"),
    "NumPy's runner": (
        pickled(b"cnumpy.testing._private.utils\nrunstring\n(S'open(1)'\n}tR."),
        "its pickle has STRING|it would call numpy.testing",
    ),
    "attribute": (call(np.ndarray.tofile, np.ones(1), MARK), "it would call builtins.getattr"),
    "old class": (pickled(b"(S'touch hostile'\nios\nsystem\n."), "its pickle has STRING"),
    "old instance": (pickled(b"(ios\nsystem\n."), "its pickle has INST os system"),
    "extension": (pickled(b"\x82\x01."), "its pickle has EXT1 1"),
    "persistent": (pickled(b"Phostile\n."), "its pickle has PERSID hostile"),
    "memory": (pickled(b"Nr\xff\xff\xff\x7f."), "its pickle has LONG_BINPUT 2147483647"),
    "buffer": (pickled(b"\x96" + b"\xff" * 7 + b"\x00."), "bytearray8"),
    "truncated pickle": (pickled(pickle.dumps(ragged(*SAME))[:-40]), "only 17 remain"),
    "laughs": (pickled(pickle.dumps(laughs())), "could not convert|iterable|must be|float"),
    "itself": (pickled(pickle.dumps(itself())), "float|sequence|number"),
    "texts": (pickled(pickle.dumps(ragged("a", "b"))), "state"),
    "complex": (pickled(pickle.dumps(ragged(np.ones(1, complex)))), "an array of the type 'c16'"),
    "no array": (b"hello", "magic string"),
    "nothing": (b"", "EOF|magic|array"),
    "one label": (pickled(pickle.dumps(ragged(SAME[0]))), "force 1 parts"),
    "a bomb": (bytes(10**7), "force has 10,000,000 bytes, too many for this set"),
}


@pytest.mark.parametrize("content, reason", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_and_nothing_runs(tmp_path, monkeypatch, content, reason):
    monkeypatch.chdir(tmp_path)
    archive(tmp_path / "x.npz", force=content)
    with pytest.raises(UserError, match=rf"x.npz is no file of published labels \(.*({reason})"):
        read_labels(tmp_path / "x.npz", LIMIT)
    assert os.listdir(tmp_path) == ["x.npz"]


def test_energies_are_not_trusted_either(tmp_path):
    path = archive(tmp_path / "x.npz", force=b"", energy=HOSTILE["a shell"][0])
    with pytest.raises(UserError, match="it would call posix.system"):
        read_labels(path, LIMIT)


def test_damaged_archives_are_refused(tmp_path):
    whole = tmp_path / "whole.npz"
    np.savez_compressed(whole, energy=np.zeros(2), force=ragged(*SAME))
    content = whole.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 255
    for name, damaged in {
        "cut": content[:-30],
        "head": content[:50],
        "empty": b"",
        "flipped": bytes(flipped),
        "page": b"<!doctype html>",
    }.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name}.npz is no file of published labels"):
            read_labels(path, LIMIT)
    np.savez_compressed(whole, energy=np.zeros(2))
    with pytest.raises(UserError, match="force.npy"):
        read_labels(whole, LIMIT)


# ------------------------------------------------------------------ matching and comparing

COUNTS = (3, 2, 4, 2, 3, 4, 2, 3, 4, 2, 3, 4)


@pytest.fixture
def labelled(tmp_path):
    """A labelled set whose order is not that of its files, and these labels in two files."""
    rng = np.random.default_rng(0)
    forces = [rng.normal(size=(n, 3)) for n in COUNTS]
    energy = np.array([-3.0 * n for n in COUNTS]) + rng.normal(scale=0.1, size=len(COUNTS))
    # Indices in the raw files: others were filtered.
    raw = 10 + 3 * np.arange(len(COUNTS))
    frames = []
    for i in rng.permutation(len(COUNTS)):
        atoms = Atoms(f"C{COUNTS[i]}", rng.uniform(0, 9, (COUNTS[i], 3)), cell=[9] * 3, pbc=True)
        atoms.info["index"] = int(raw[i])
        atoms.calc = SinglePointCalculator(atoms, energy=energy[i], forces=forces[i])
        frames.append(atoms)
    data = tmp_path / "prepared.h5"
    zero = {"energy_reference": {"kind": "none"}}
    Store.write(data, frames, n_val=4, n_test=4, has_labels=True, provenance=zero)
    return data, energy, forces


def publish(folder, energy, forces, split=6, names=("a-0.npz", "a-1.npz")):
    """Write labels as two files and the record of their retrieval."""
    files = []
    for name, part in zip(names, (slice(split), slice(split, None)), strict=True):
        np.savez_compressed(folder / name, energy=energy[part], force=ragged(*forces[part]))
        entry = {"path": str(folder / name), "sha256": file_sha256(folder / name)}
        files.append(entry)
    (folder / "source~a.json").write_text(json.dumps({"files": files}))
    return folder / "source~a.json"


def read(data, record, **options):
    with Store(data) as store:
        return published_labels(store, record, own_labels(store), **options)


def test_labels_come_in_the_order_of_the_set(tmp_path, labelled):
    data, energy, forces = labelled
    labels, made = read(data, publish(tmp_path, energy * 1.2, [f * 1.1 for f in forces]))
    with Store(data) as store:
        for row in range(len(store)):
            own = store.arrays(row)
            assert labels[row]["energy"] == pytest.approx(1.2 * float(own["energy"]))
            np.testing.assert_allclose(labels[row]["forces"], 1.1 * own["forces"])
    assert [Path(file["path"]).name for file in made["published"]] == ["a-0.npz", "a-1.npz"]
    assert made["energy_zero"] == {"kind": "none", "energies": {}}


def test_the_zero_of_energies_is_fitted_like_that_of_computed_labels(tmp_path, labelled):
    data, energy, forces = labelled
    labels, made = read(data, publish(tmp_path, energy, forces), fit="median_shift")
    with Store(data) as store:
        per_atom = [float(store.arrays(i)["energy"]) / store.n_atoms[i] for i in range(8, 12)]
        shift = np.median(per_atom)
        assert made["energy_zero"]["energies"] == {"C": pytest.approx(shift)}
        expected = float(store.arrays(0)["energy"]) - store.n_atoms[0] * shift
        assert labels[0]["energy"] == pytest.approx(expected)


def swapped(values):
    """Structures of equal size in each other's place."""
    return [values[i] for i in (4, 3, 5, 6, 7, 8, 9, 10, 11, 1, 0, 2)]


FAULTS = {
    "sign of forces": (lambda e, f: (e, [-x for x in f]), "a-0.npz: .* the opposite sign"),
    "unit of forces": (
        lambda e, f: (e, [x * 51.4 for x in f]),
        "a-0.npz: .* another sign, unit.* eV/Å",
    ),
    "sign of energies": (lambda e, f: (-e, f), "a-0.npz: .* energies -1 times .* another sign"),
    "unit of energies": (lambda e, f: (e * 23.06, f), "a-0.npz: .* energies 23.1 times .* unit"),
    "no zero": (lambda e, f: (e - 148.3 * np.array(COUNTS), f), "relative to isolated atoms"),
    "other structures": (lambda e, f: (e, swapped(f)), "a-0.npz: .* are of other structures"),
    "order": (lambda e, f: (e, f[::-1]), r"a-0.npz: label 0 of all files has forces of the shape"),
    "filters": (lambda e, f: (e[1:], f[1:]), "11 labels, but 12 structures .* pass the filters"),
    "one file": (
        lambda e, f: (e, [*f[:6], *(-x for x in f[6:])]),
        "a-1.npz: .* the opposite sign",
    ),
    "NaN": (lambda e, f: ([*e[:-1], np.nan], f), "a-1.npz: label 11 of all files is not finite"),
}


@pytest.mark.parametrize("change, message", FAULTS.values(), ids=FAULTS)
def test_wrong_labels_are_refused(tmp_path, labelled, change, message):
    data, energy, forces = labelled
    with pytest.raises(UserError, match=message):
        read(data, publish(tmp_path, *map(list_or_array, change(energy, forces))))


def list_or_array(values):
    return values if isinstance(values[0], np.ndarray) else np.asarray(values)


def test_a_file_is_what_was_retrieved(tmp_path, labelled):
    data, energy, forces = labelled
    record = publish(tmp_path, energy, forces)
    np.savez_compressed(tmp_path / "a-1.npz", energy=energy[6:], force=ragged(*forces[6:]))
    with open(tmp_path / "a-1.npz", "ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="a-1.npz was changed after it was retrieved: make it anew"):
        read(data, record)


def test_the_checksum_of_git(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"what is up, doc?")
    # From the book Pro Git, section Git Objects.
    known = "bd9dbf5aae1a3862dd1526723246b20206e5fc37"
    assert RemoteFile("x", algorithm="git_blob", digest=known).fault(file) is None
    wrong = RemoteFile("x", algorithm="git_blob", digest="0" * 40).fault(file)
    assert wrong == f"has the git_blob {known}, not {'0' * 40}"
