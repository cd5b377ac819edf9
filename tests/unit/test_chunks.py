"""Chunks on their way to a label source and back, and the source's own error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from pretraining.chunks import chunk_rows, join, write_chunk
from pretraining.errors import UserError
from pretraining.source_error import source_error
from pretraining.store import Store

SCRIPTS = Path(__file__).parents[2] / "workflow" / "scripts"
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
        ("00000", 5, 14, "has 13 train structures, 14 were asked for"),
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
        ("text", "labels of 'lj' are not numbers"),
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
    with pytest.raises(UserError, match="is beyond the prepared set's 20"):
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


def command(*args: str | Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, args)], capture_output=True, text=True, check=False
    )


def test_command_lines_with_a_real_source(store: Store, tmp_path: Path) -> None:
    """From a prepared set to a labelled one and to the source's error, as the rules do it."""
    source = {
        "calculator": "ase.calculators.lj.LennardJones",
        "kwargs": {"sigma": 3.4, "epsilon": 0.01, "rc": 6.0},
    }
    config = tmp_path / "sources.yaml"
    config.write_text(yaml.safe_dump({"sources": {"lj": source}}))
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps({"Ar": 1.0}))
    files = []
    for name in ("eval", "00000"):
        raw, done = tmp_path / f"{name}.extxyz", tmp_path / "done" / f"{name}.extxyz"
        cut = ("--data", store.path, "--chunk", name, "--size", "6", "--out", raw)
        ran = command(SCRIPTS / "cut_chunk.py", *cut)
        assert ran.returncode == 0, ran.stderr
        label = ("--config", config, "--source", "lj", "--reference", reference)
        ran = command(SCRIPTS / "label.py", *label, "--structures", raw, "--out", done)
        assert ran.returncode == 0, ran.stderr
        files.append(done)
    out = tmp_path / "labelled.h5"
    options = ("--data", store.path, "--source", "lj", "--chunks", *files, "--out", out)
    ran = command(SCRIPTS / "join_labels.py", *options, "--n", "6")
    assert ran.returncode == 0, ran.stderr
    assert "3 validation, 4 test, 6 training structures; 0 without a label" in ran.stdout
    with Store(out) as joined:
        for atoms in joined:
            bare = atoms.copy()
            bare.calc = LennardJones(**source["kwargs"])
            expected = bare.get_potential_energy() - len(atoms)
            assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-6)
            np.testing.assert_allclose(atoms.get_forces(), bare.get_forces(), atol=1e-6)
    ran = command(SCRIPTS / "join_labels.py", *options, "--n", "7")
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: the source 'lj' labelled 6 training structures where 7")
    metrics = tmp_path / "metrics.json"
    base = ("--data", store.path, "--source", "lj", "--chunk", files[0])
    ran = command(SCRIPTS / "source_error.py", *base, "--out", metrics)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(metrics.read_text())["test"]["n_structures"] == N_TEST
