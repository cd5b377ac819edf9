"""Chunks on their way to a label source and back, and the source's own error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from pretraining.data.store import Store
from pretraining.labels.chunks import chunk_rows, join, read_labelled, write_chunk
from pretraining.labels.compare import source_error
from pretraining.runtime.errors import UserError
from pretraining.runtime.records import record_of
from scripts import run_script

N_VAL, N_TEST, N_TRAIN = 3, 4, 13


def frames(n: int = N_VAL + N_TEST + N_TRAIN) -> list[Atoms]:
    rng = np.random.default_rng(1)
    made = []
    for i in range(n):
        atoms = bulk("Ar", "fcc", a=5.3) * (1, 1, 1 + i % 2)
        atoms.rattle(0.1, rng=rng)
        atoms.pbc = [True, True, bool(i % 3)]
        atoms.info |= {"index": 5 * i + 1, "config_type": "a b", "time": 0.25 * i}
        atoms.calc = SinglePointCalculator(
            atoms, energy=rng.normal(), forces=rng.normal(size=(len(atoms), 3))
        )
        made.append(atoms)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    path = tmp_path / "prepared.h5"
    Store.write(path, frames(), N_VAL, N_TEST, {"dataset": "argon"}, info=["config_type", "time"])
    with Store(path) as opened:
        yield opened


def labelled(
    store: Store, folder: Path, change=lambda row, atoms: None, size: int = 5, last: int = N_TRAIN
) -> list[Path]:
    """Cut a set into chunks and label them with a Lennard-Jones potential called `lj`."""
    names = ["eval", *(f"{k:05d}" for k in range(-(-last // size)))]
    files = []
    for name in names:
        rows = chunk_rows(store, name, size, last)
        path = folder / f"{name}.extxyz"
        write_chunk(store, rows, path)
        chunk = read(path, ":")
        for row, atoms in zip(rows, chunk, strict=True):
            atoms.info["lj_energy"] = 0.5 * row
            atoms.arrays["lj_force"] = np.full((len(atoms), 3), 0.1 * row)
            change(row, atoms)
        write(path, chunk)
        record_of(path).unlink()  # of the chunk without labels
        files.append(path)
    return files


def test_chunks_are_the_set_without_labels(store: Store, tmp_path: Path) -> None:
    rows = [*chunk_rows(store, "eval", 5, 12)]
    for k in range(3):
        rows += chunk_rows(store, f"{k:05d}", 5, 12)
    assert rows == list(range(N_VAL + N_TEST + 12))
    assert len(chunk_rows(store, "00002", 5, 12)) == 2
    write_chunk(store, chunk_rows(store, "00001", 5, 13), tmp_path / "new" / "c.extxyz")
    chunk = read(tmp_path / "new" / "c.extxyz", ":")
    for atoms, row in zip(chunk, range(12, 17), strict=True):
        expected = store[row]
        assert atoms.calc is None
        assert set(atoms.arrays) == {"numbers", "positions"}
        assert atoms.info == expected.info
        np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-8)
        np.testing.assert_array_equal(atoms.pbc, expected.pbc)


@pytest.mark.parametrize(
    ("chunk", "size", "last", "message"),
    [
        ("test", 5, 13, "no chunk 'test': it is 'eval' or a number"),
        ("00003", 5, 13, "no chunk '00003' of 5 structures in the first 13"),
        ("00000", 0, 13, "no chunk '00000' of 0 structures"),
        ("00000", 5, 14, "has 13 train structures, not the 14 needed"),
    ],
)
def test_no_such_chunk(store: Store, chunk: str, size: int, last: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chunk_rows(store, chunk, size, last)


def test_labels_come_back_to_their_structures(store: Store, tmp_path: Path) -> None:
    result = join(store, "lj", labelled(store, tmp_path), tmp_path / "labelled.h5")
    assert [result[k] for k in ("val", "test", "train")] == [N_VAL, N_TEST, N_TRAIN]
    assert result["failed"] == []
    with Store(tmp_path / "labelled.h5") as joined:
        assert (joined.n_val, joined.n_test, joined.n_train) == (N_VAL, N_TEST, N_TRAIN)
        for row, (atoms, original) in enumerate(zip(joined, store, strict=True)):
            assert atoms == original  # not what eight decimals leave of it
            assert atoms.info == original.info
            assert atoms.get_potential_energy() == 0.5 * row
            np.testing.assert_allclose(atoms.get_forces(), 0.1 * row, atol=1e-8)
        assert joined.provenance["prepared"]["checksum"] == store.checksum
        assert joined.provenance["prepared"]["dataset"] == "argon"


def test_the_first_n_and_no_more(store: Store, tmp_path: Path) -> None:
    files = labelled(store, tmp_path)
    join(store, "lj", files, tmp_path / "all.h5")
    join(store, "lj", files[:2], tmp_path / "four.h5", n=4)
    with Store(tmp_path / "all.h5") as everything, Store(tmp_path / "four.h5") as four:
        assert four.n_train == 4
        assert four.subset("train") == everything.subset("train", 4)
        assert four.subset("test") == everything.subset("test")


def test_failed_structures_are_left_out_and_listed(store: Store, tmp_path: Path) -> None:
    def fail(row: int, atoms: Atoms) -> None:
        if row in (0, 4, 9):
            del atoms.info["lj_energy"], atoms.arrays["lj_force"]
            atoms.info["lj_error"] = f'ValueError: row {row} said "no"'

    files = labelled(store, tmp_path, fail)
    result = join(store, "lj", files, tmp_path / "labelled.h5", n=5)
    assert [result[k] for k in ("val", "test", "train")] == [N_VAL - 1, N_TEST - 1, 5]
    assert [failure["index"] for failure in result["failed"]] == [1, 21, 46]
    assert result["failed"][2]["reason"].startswith("ValueError: row 9")
    with Store(tmp_path / "labelled.h5") as joined:
        # The sixth of the pool stands in for the one that failed.
        assert joined.column("index", "train").tolist() == [36, 41, 51, 56, 61]
        assert joined.provenance["failed"] == result["failed"]
    message = r"labelled 12 training structures \(3 could not be labelled\) where 13 are needed"
    with pytest.raises(UserError, match=message):
        join(store, "lj", files, tmp_path / "more.h5", n=13)
    assert not (tmp_path / "more.h5").exists()


def change_one(kind: str):
    def change(row: int, atoms: Atoms) -> None:
        if row == 9 and kind == "index":
            atoms.info["index"] = 77
        elif row == 9 and kind == "no index":
            del atoms.info["index"]
        elif row == 9 and kind == "moved":
            atoms.positions[0, 0] += 1e-4
        elif row == 9 and kind == "cell":
            atoms.cell[0, 0] += 1e-3
        elif row == 9 and kind == "element":
            atoms.numbers[0] = 6
        elif row == 9 and kind == "pbc":
            atoms.pbc = [False, False, True]
        elif row == 9 and kind == "unlabelled":
            del atoms.info["lj_energy"]
        elif row == 9 and kind == "nan":
            atoms.info["lj_energy"] = np.nan
        elif row == 9 and kind == "text":
            atoms.info["lj_energy"] = "unknown"
        elif kind == "all failed" and row < N_VAL:
            atoms.info["lj_error"] = "no"

    return change


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("index", r"00000.extxyz: structure 2 is not structure 9 .*\(its index is 77, not 46\)"),
        ("no index", "its index is None, not 46"),
        ("moved", "positions differ"),
        ("cell", "cells differ"),
        ("element", "elements differ"),
        ("pbc", "periodic directions differ"),
        ("unlabelled", "00000.extxyz: structure 2 has no lj_energy and lj_force"),
        ("nan", "labels of 'lj' are not finite"),
        ("text", "labels of 'lj' are not finite"),
        ("all failed", r"labelled no val structure \(3 could not be labelled\)"),
    ],
)
def test_labels_of_other_structures_are_refused(
    store: Store, tmp_path: Path, kind: str, message: str
) -> None:
    files = labelled(store, tmp_path, change_one(kind))
    with pytest.raises(UserError, match=message) as error:
        join(store, "lj", files, tmp_path / "labelled.h5")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "labelled.h5").exists()


def test_chunks_must_be_whole_and_in_order(store: Store, tmp_path: Path) -> None:
    out = tmp_path / "labelled.h5"
    files = labelled(store, tmp_path)
    with pytest.raises(UserError, match="00001.extxyz: structure 0 is not structure 7"):
        join(store, "lj", [files[0], files[2], files[1]], out)
    with pytest.raises(UserError, match="00000.extxyz: structure 0 is not structure 0"):
        join(store, "lj", files[1:], out)
    with pytest.raises(UserError, match="is one too many for"):
        join(store, "lj", [*files, files[-1]], out)
    with pytest.raises(UserError, match="no labelled chunk .*00009.extxyz: label it first"):
        join(store, "lj", [files[0], tmp_path / "00009.extxyz"], out)
    with pytest.raises(UserError, match="labelled 10 training structures where 12 are needed"):
        join(store, "lj", files[:3], out, n=12)
    write(files[0], read(files[0], ":5"))
    with pytest.raises(UserError, match="5 of 7 validation and test structures"):
        join(store, "lj", files[:1], out)


def test_source_error(store: Store, tmp_path: Path) -> None:
    def compare(row: int, atoms: Atoms) -> None:
        expected = store[row]
        shift = 0.25 + (0.1 if row == 3 else 0.0)
        atoms.info["lj_energy"] = expected.get_potential_energy() + shift * len(atoms)
        atoms.arrays["lj_force"] = expected.get_forces() + 0.5
        if row < N_VAL:
            atoms.info["lj_energy"] += 1000

    files = labelled(store, tmp_path, compare)
    metrics = source_error(store, "lj", files[0])
    test = metrics["test"]
    assert test["n_structures"] == N_TEST
    assert test["median_shift_ev_per_atom"] == pytest.approx(0.25)
    rmse = 1000 * np.sqrt((3 * 0.25**2 + 0.35**2) / 4)
    assert test["energy_rmse_mev_per_atom"] == pytest.approx(rmse)
    assert test["energy_rmse_after_median_shift_mev_per_atom"] == pytest.approx(50.0)
    assert test["force_rmse_ev_per_angstrom"] == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(UserError, match="00000.extxyz: structure 0 is not structure 0"):
        source_error(store, "lj", files[1])


def test_a_fitted_zero_sees_the_first_training_structures_only(store: Store, tmp_path: Path):
    def change(row: int, atoms: Atoms) -> None:
        # Only the first four training structures have energies near 7 eV/atom.
        inside = N_VAL + N_TEST <= row < N_VAL + N_TEST + 4
        atoms.info["lj_energy"] = (7.0 + 0.01 * row if inside else 1000.0) * len(atoms)

    files = labelled(store, tmp_path, change)
    result = join(store, "lj", files, tmp_path / "joined.h5", n=4, fit="median_shift")
    assert result["train"] == 4
    with Store(tmp_path / "joined.h5") as joined:
        energies = [joined[i].get_potential_energy() / len(joined[i]) for i in range(len(joined))]
        assert joined.provenance["energy_zero"]["n_fitted"] == 4
    assert np.median(energies[-4:]) == pytest.approx(0.0, abs=1e-9)
    assert energies[0] == pytest.approx(1000 - 7.085)


def test_a_source_shares_no_zero_with_a_fitted_target(tmp_path: Path) -> None:
    provenance = {"energy_reference": {"kind": "median_shift"}}
    Store.write(tmp_path / "fitted.h5", frames(), N_VAL, N_TEST, provenance)

    def compare(row: int, atoms: Atoms) -> None:
        atoms.info["lj_energy"] = expected[row].get_potential_energy() + 8.0 * len(atoms)
        atoms.arrays["lj_force"] = expected[row].get_forces()

    with Store(tmp_path / "fitted.h5") as expected:
        files = labelled(expected, tmp_path, compare)
        test = source_error(expected, "lj", files[0])["test"]
    assert test["energy_rmse_mev_per_atom"] == pytest.approx(0.0, abs=1e-6)


def test_source_error_needs_labels(tmp_path: Path) -> None:
    Store.write(tmp_path / "bare.h5", frames(), N_VAL, N_TEST, has_labels=False)
    message = "has no labels to compare 'lj' with"
    with Store(tmp_path / "bare.h5") as bare, pytest.raises(UserError, match=message):
        source_error(bare, "lj", tmp_path / "eval.extxyz")


# Rows of a set with repeats: val 0-1, test 2-3, training pool 4-11.
ORDER = [0, 1, 2, 1, 2, 3, 4, 5, 3, 5, 6, 6]
TWINS = [0, 1, 2, 1, 2, 5, 6, 7, 5, 7, 10, 10]


@pytest.fixture
def repeating(tmp_path: Path) -> Store:
    """A set in which structures come again: in its parts, across them and in whole chunks."""
    different = frames(7)
    made = []
    for row, k in enumerate(ORDER):
        atoms = different[k].copy()
        atoms.info |= {"index": row, "config_type": f"row {row}"}
        made.append(atoms)
    Store.write(tmp_path / "repeating.h5", made, 2, 2, info=["config_type"])
    with Store(tmp_path / "repeating.h5") as opened:
        yield opened


def cut_and_label(store: Store, folder: Path, size: int, error: int | None = None) -> list[Path]:
    """Label what is in the chunks: energy and forces tell the row that was labelled."""
    files = []
    for name in ["eval", *(f"{k:05d}" for k in range(-(-store.n_train // size)))]:
        files.append(folder / f"{name}.extxyz")
        write_chunk(store, chunk_rows(store, name, size, store.n_train), files[-1])
        chunk = read(files[-1], ":", format="extxyz")
        for atoms in chunk:
            row = atoms.info["index"]
            if row == error:
                atoms.info["lj_error"] = "no"
                continue
            atoms.info["lj_energy"] = 0.5 * row
            atoms.arrays["lj_force"] = np.full((len(atoms), 3), 0.1 * row)
        write(files[-1], chunk, format="extxyz")
        record_of(files[-1]).unlink()
    return files


def test_a_repeated_structure_is_labelled_once(repeating: Store, tmp_path: Path) -> None:
    assert repeating.duplicate_of.tolist() == TWINS
    files = cut_and_label(repeating, tmp_path, size=2)
    cut = [[atoms.info["index"] for atoms in read(f, ":", format="extxyz")] for f in files]
    # Chunks are rows 4-5, 6-7, … without repeats; rows 8-9 are all repeats.
    assert cut == [[0, 1, 2], [5], [6, 7], [], [10]]
    assert files[3].stat().st_size == 0
    result = join(repeating, "lj", files, tmp_path / "joined.h5")
    assert [result[k] for k in ("val", "test", "train")] == [2, 2, 8]
    with Store(tmp_path / "joined.h5") as joined:
        for row, (atoms, twin) in enumerate(zip(joined, TWINS, strict=True)):
            assert atoms == repeating[row] and atoms.info == repeating.info(row)
            assert atoms.get_potential_energy() == 0.5 * twin
            np.testing.assert_allclose(atoms.get_forces(), 0.1 * twin, atol=1e-8)


@pytest.mark.parametrize("n", range(1, 9))
def test_the_first_n_of_a_repeating_set(repeating: Store, tmp_path: Path, n: int) -> None:
    files = cut_and_label(repeating, tmp_path, size=2)[: 1 + -(-n // 2)]
    assert join(repeating, "lj", files, tmp_path / "joined.h5", n=n)["train"] == n
    with Store(tmp_path / "joined.h5") as joined:
        assert joined.column("index").tolist() == list(range(4 + n))


def test_a_repeated_structure_shares_the_reason_of_its_failure(
    repeating: Store, tmp_path: Path
) -> None:
    files = cut_and_label(repeating, tmp_path, size=2, error=5)
    result = join(repeating, "lj", files, tmp_path / "joined.h5")
    assert [failure["index"] for failure in result["failed"]] == [5, 8]
    assert result["train"] == 6


def test_the_evaluation_chunk_ends_with_its_parts(repeating: Store, tmp_path: Path) -> None:
    """Row 4, which repeats a test structure, is not among them."""
    files = cut_and_label(repeating, tmp_path, size=2)
    rows = [label.row for label in read_labelled(repeating, "lj", files[:1])]
    assert rows == [0, 1, 2, 3]


def made_by(folder: Path, **changes: dict) -> list[Path]:
    """Provenance of the chunks eval, 00000 and 00001, the same but for these changes."""
    files = []
    for chunk in ("eval", "00000", "00001"):
        how = {
            "calculator": "lj",
            "args": [],
            "kwargs": {"sigma": 3.4},
            "parameter_files_sha256": {},
            "isolated_atoms_ev": {"Ar": 0.0},
            "code": {"package": "ase", "version": "3.29.0"},
        } | changes.get(f"chunk_{chunk}", {})
        files.append(folder / f"{chunk}.provenance.json")
        files[-1].write_text(json.dumps({k: v for k, v in how.items() if v is not None}))
    return files


def test_the_labelled_set_knows_who_labelled_it(store: Store, tmp_path: Path) -> None:
    files, out = labelled(store, tmp_path), tmp_path / "labelled.h5"
    join(store, "lj", files, out, provenance=made_by(tmp_path))
    with Store(out) as joined:
        (made,) = joined.provenance["labels"]
    assert made["chunks"] == ["eval", "00000", "00001"]
    assert made["kwargs"] == {"sigma": 3.4} and made["code"]["version"] == "3.29.0"
    # An empty chunk was made by nothing.
    provenance = made_by(tmp_path, chunk_00000={"code": None})
    assert join(store, "lj", files, out, provenance=provenance)["made"][0]["chunks"] == [
        "eval",
        "00001",
    ]


def test_chunks_of_different_making(store: Store, tmp_path: Path) -> None:
    """Another version is told; other parameters are refused."""
    files, out = labelled(store, tmp_path), tmp_path / "labelled.h5"
    newer = {"code": {"package": "ase", "version": "3.30.0"}}
    provenance = made_by(tmp_path, chunk_00001=newer)
    made = join(store, "lj", files, out, provenance=provenance)["made"]
    assert [way["chunks"] for way in made] == [["eval", "00000"], ["00001"]]
    options = ("--data", store.path, "--source", "lj", "--chunks", *files, "--out", out)
    ran = run_script("join_labels", *options, "--provenance", *provenance)
    assert ran.returncode == 0, ran.stderr
    assert "warning: ase 3.30.0 labelled 00001" in ran.stdout
    out.unlink()
    provenance = made_by(tmp_path, chunk_00001={"kwargs": {"sigma": 3.5}})
    with pytest.raises(UserError, match="00001.provenance.json: kwargs is not that of chunk eval"):
        join(store, "lj", files, out, provenance=provenance)
    assert not out.exists()
