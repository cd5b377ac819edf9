"""Comparison of label sources: numbers worked out by hand on three structures."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from pretraining.data.store import Store
from pretraining.labels.compare import (
    OWN,
    compare,
    median_shift,
    own_labels,
    source_labels,
    types_of,
)
from pretraining.runtime.errors import UserError
from scripts import run_script

# Energies (eV) and, the same for all atoms of a structure, forces along x (eV/Å); three structures
# of one, two and four atoms for validation and testing, and one for training.
ATOMS = (1, 2, 4, 1)
KINDS = ("liquid", "crystal", "liquid", "crystal")
OWN_ENERGIES = (-1.0, -4.0, -12.0, -1.0)
ENERGIES = {"first": (-2.0, -6.2, -15.6), "second": (-1.5, None, -13.2)}
FORCES = {OWN: (1.0, -2.0, 0.5), "first": (1.3, -2.0, 0.1), "second": (1.0, None, 0.5)}


def structure(i: int) -> Atoms:
    positions = [[2.0 * k, 0.1 * i, 0.0] for k in range(ATOMS[i])]
    info = {"config_type": KINDS[i], "index": i}
    return Atoms(f"C{ATOMS[i]}", positions, cell=[10, 8, 8], pbc=True, info=info)


def along_x(i: int, force: float) -> np.ndarray:
    return np.tile([force, 0.0, 0.0], (ATOMS[i], 1))


def prepared(path: Path, with_labels: bool = True) -> Path:
    """A prepared set of one validation, two test and one training structure."""
    frames = [structure(i) for i in range(4)]
    for i, atoms in enumerate(frames):
        forces = along_x(i, FORCES[OWN][min(i, 2)])
        if with_labels:
            atoms.calc = SinglePointCalculator(atoms, energy=OWN_ENERGIES[i], forces=forces)
    Store.write(path, frames, n_val=1, n_test=2, info=["config_type"], has_labels=with_labels)
    return path


def chunk(path: Path, source: str, store: Path, count: int = 3) -> Path:
    """The evaluation chunk as a source has labelled it."""
    with Store(store) as prepared_set:
        frames = [prepared_set[i] for i in range(count)]
    for i, atoms in enumerate(frames):
        atoms.calc = None
        if ENERGIES[source][i] is None:
            atoms.info[f"{source}_error"] = "it did not converge"
            continue
        atoms.info[f"{source}_energy"] = ENERGIES[source][i]
        atoms.arrays[f"{source}_force"] = along_x(i, FORCES[source][i])
    write(path, frames, format="extxyz")
    return path


@pytest.fixture
def labels(tmp_path):
    """Labels of the set itself and of both sources, and the kinds of structures."""
    path = prepared(tmp_path / "prepared.h5")
    with Store(path) as store:
        found = {OWN: own_labels(store)}
        for source in ENERGIES:
            file = chunk(tmp_path / f"{source}.extxyz", source, path)
            found[source] = source_labels(store, source, file)
        return found, types_of(store)


def test_shift_is_the_median_over_structures(labels):
    # Differences an atom are -1.0, -1.1 and -0.9: each structure counts once.
    assert median_shift(labels[0][OWN], labels[0]["first"]) == pytest.approx(-1.0)
    # Of two structures the median is the mean, of -0.5 and -0.3.
    assert median_shift(labels[0][OWN], labels[0]["second"]) == pytest.approx(-0.4)


def test_errors_by_hand(labels):
    table = compare(labels[0]).set_index(["first", "second"])
    row = table.loc[(OWN, "first")]
    assert (row["structures"], row["left_out"]) == (3, 0)
    # After the shift: 0, -0.1 and +0.1 eV/atom.
    assert row["energy_rmse_mev_per_atom"] == pytest.approx(1000 * np.sqrt(0.02 / 3))
    assert row["energy_mae_mev_per_atom"] == pytest.approx(1000 * 0.2 / 3)
    # 21 components: 0.3 once and -0.4 four times.
    assert row["force_rmse_ev_per_angstrom"] == pytest.approx(np.sqrt((0.09 + 4 * 0.16) / 21))
    assert row["force_mae_ev_per_angstrom"] == pytest.approx((0.3 + 4 * 0.4) / 21)


def test_what_one_could_not_label_is_left_out_of_its_pairs(labels):
    table = compare(labels[0]).set_index(["first", "second"])
    row = table.loc[("first", "second")]
    assert (row["structures"], row["left_out"]) == (2, 1)
    # Second minus first: +0.5 and +0.6, so -0.05 and +0.05 after the shift of 0.55.
    assert row["shift_ev_per_atom"] == pytest.approx(0.55)
    assert row["energy_rmse_mev_per_atom"] == pytest.approx(50)
    assert table.loc[(OWN, "second"), "force_rmse_ev_per_angstrom"] == 0
    assert labels[0]["second"].errors == {1: "it did not converge"}


def test_kinds_share_the_shift_of_all(labels):
    table = compare(*labels).set_index(["first", "second", "config_type"])
    liquid, crystal = (table.loc[(OWN, "first", kind)] for kind in ("liquid", "crystal"))
    assert (liquid["structures"], crystal["structures"]) == (2, 1)
    assert liquid["energy_rmse_mev_per_atom"] == pytest.approx(1000 * np.sqrt(0.01 / 2))
    assert crystal["energy_rmse_mev_per_atom"] == pytest.approx(100)
    assert liquid["shift_ev_per_atom"] == crystal["shift_ev_per_atom"] == pytest.approx(-1)


def test_a_pair_without_common_structures_has_no_numbers(labels):
    empty = labels[0]["first"].__class__(np.full(3, np.nan), [None] * 3, {})
    (row,) = compare({"first": labels[0]["first"], "empty": empty}).to_dict("records")
    assert (row["structures"], row["left_out"]) == (0, 3)
    assert np.isnan(row["energy_rmse_mev_per_atom"]) and np.isnan(row["shift_ev_per_atom"])


def test_an_unfinished_chunk_is_refused(tmp_path):
    path = prepared(tmp_path / "prepared.h5")
    with Store(path) as store, pytest.raises(UserError, match="2 of 3"):
        source_labels(store, "first", chunk(tmp_path / "cut.extxyz", "first", path, count=2))


def run(folder: Path, store: Path, *options: str) -> subprocess.CompletedProcess:
    chunks = [chunk(folder / f"{source}.extxyz", source, store) for source in ENERGIES]
    outputs = {"out": "t.csv", "markdown": "t.md", "parity": "p.png", "matrix": "m.png"}
    words = [word for key, name in outputs.items() for word in (f"--{key}", folder / name)]
    words += ["--data", store, "--sources", *ENERGIES, "--chunks", *chunks, *options]
    return run_script("compare_sources", "--title", "three structures", *words)


def test_program_with_the_labels_of_the_set(tmp_path):
    done = run(tmp_path, prepared(tmp_path / "prepared.h5"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "t.md").read_text()
    assert "# Label sources on three structures" in page
    words = [line.replace("|", " ").split() for line in page.splitlines()]
    assert ["first", "3", "0", "-1.0000", "81.6", "66.7", "0.186", "0.090"] in words
    # Each pair: energies and forces against the labels and the first source.
    assert ["second", "100.0", "50.0", "–"] in words
    assert ["second", "0.000", "0.221", "–"] in words
    assert "second: one structure with the index 1 (it did not converge)" in page
    assert "by kind of structure" in page
    # Three pairs, each over all structures and by two kinds.
    table = pd.read_csv(tmp_path / "t.csv")
    assert len(table) == 9 and set(table["config_type"]) == {"all", "liquid", "crystal"}
    for name in ("p.png", "m.png"):
        assert (tmp_path / name).stat().st_size > 5000


def test_program_without_labels_of_the_set(tmp_path):
    store = prepared(tmp_path / "prepared.h5", with_labels=False)
    done = run(tmp_path, store, "--reference", "second")
    assert done.returncode == 0, done.stderr
    assert "## Against the second" in (tmp_path / "t.md").read_text()
    done = run(tmp_path, store)
    assert done.returncode == 0, done.stderr
    assert "Against" not in (tmp_path / "t.md").read_text()
