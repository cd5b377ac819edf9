"""Datasets of load-atoms from its raw files, never from the network."""

from __future__ import annotations

import socket
import tarfile
import zipfile
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from load_atoms.utils import generate_checksum

from pretraining.data.load_atoms import LOAD_ATOMS_ROOT, raw_files
from pretraining.data.prepare import prepare
from pretraining.data.readers import open_raw
from pretraining.data.store import Store
from pretraining.runtime.errors import UserError

FILES = {
    "C-SYNTH-23M": "carbon-data-v1.0.zip",
    "C-GAP-17": "C-GAP-17.extxyz",
    "C-GAP-20U": "C-GAP-20U.xyz",
    "Si-GAP-18": "zip-file.zip",
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused, as behind a closed firewall."""

    def refuse(*args, **kwargs):
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def put_entry(root: Path, name: str) -> None:
    path = root / LOAD_ATOMS_ROOT / "database-entries" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"name: {name}\nyear: 2017\ndescription: test\ncategory: Potential Fitting\nlicense: MIT\n"
    )


def frames(n: int = 30) -> list:
    made = []
    for i in range(n):
        atoms = bulk("C", "diamond", a=3.5 + 0.01 * i)
        atoms.info |= {"energy": -300.0 - i, "config_type": "bulk", "split": "train"}
        atoms.arrays["forces"] = atoms.positions * 0
        made.append(atoms)
    made[7].info["split"] = "test"
    return made


@pytest.mark.parametrize("name", FILES)
def test_one_line_says_what_goes_where(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as error:
        open_raw({"load_atoms": name}, tmp_path)
    line = str(error.value)
    base = "resources/load-atoms"
    assert "\n" not in line
    assert line.startswith(f"load-atoms' {name}: 2 files missing: ")
    assert f"{base}/database-entries/{name}.yaml (about 2.0 kB) from https://" in line
    assert f"; {base}/raw-downloads/{name}/{FILES[name]} (" in line
    assert line.endswith("; `snakemake retrieve -R retrieve_files` downloads them")
    put_entry(tmp_path, name)
    with pytest.raises(UserError, match=f"1 file missing: {base}/raw-downloads/{name}"):
        open_raw({"load_atoms": name}, tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{name}.yaml"]


def test_addresses_are_those_of_a_commit() -> None:
    for name in FILES:
        entry, data = raw_files(name)
        assert "/8677ad5cdc8dd02e130e4c8fbd1035c62bdb93ae/" in entry.url
        assert "/main/" not in data.url and len(entry.digest) == 64 and data.digest


def test_an_archive_writes_nothing_outside_its_folder(tmp_path: Path, monkeypatch) -> None:
    """Archives of a set that load-atoms unpacks with tarfile."""
    from load_atoms.database.importers import ac_2d_22

    (file,) = ac_2d_22.Importer.files_to_download()
    path = tmp_path / raw_files("AC-2D-22")[1].path
    path.parent.mkdir(parents=True)
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../../../escaped"))
    put_entry(tmp_path, "AC-2D-22")
    accept(monkeypatch, ac_2d_22.Importer, path)
    raw = open_raw({"load_atoms": "AC-2D-22"}, tmp_path)
    with pytest.raises(UserError, match="load-atoms cannot read its files of AC-2D-22"):
        list(raw.frames)
    assert not list(tmp_path.rglob("escaped"))


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'C-GAP-71' is unknown to the installed load-atoms"):
        open_raw({"load_atoms": "C-GAP-71"}, tmp_path)


def test_a_wrong_file_is_not_read(tmp_path: Path) -> None:
    put_entry(tmp_path, "C-GAP-17")
    path = tmp_path / LOAD_ATOMS_ROOT / "raw-downloads/C-GAP-17/C-GAP-17.extxyz"
    path.parent.mkdir(parents=True)
    write(path, frames())
    with pytest.raises(UserError, match="C-GAP-17.extxyz is in place but has the sha256 [0-9a-f]"):
        open_raw({"load_atoms": "C-GAP-17"}, tmp_path)
    assert path.exists()


def accept(monkeypatch: pytest.MonkeyPatch, importer: type, path: Path) -> None:
    """Let load-atoms expect the file at `path` and no other."""
    (file,) = importer.files_to_download()
    file.expected_hash = generate_checksum(path)
    monkeypatch.setattr(importer, "files_to_download", lambda: [file])


def test_a_file_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from load_atoms.database.importers import c_gap_17

    put_entry(tmp_path, "C-GAP-17")
    path = tmp_path / LOAD_ATOMS_ROOT / "raw-downloads/C-GAP-17/C-GAP-17.extxyz"
    path.parent.mkdir(parents=True)
    write(path, frames())
    accept(monkeypatch, c_gap_17.Importer, path)
    check_c_gap_17(tmp_path)
    assert list(path.parent.iterdir()) == [path]


def test_an_archive_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from load_atoms.database.importers import c_synth_23m

    put_entry(tmp_path, "C-SYNTH-23M")
    path = tmp_path / LOAD_ATOMS_ROOT / "raw-downloads/C-SYNTH-23M/carbon-data-v1.0.zip"
    path.parent.mkdir(parents=True)
    for number in range(3):
        made = frames()[10:14]
        for atoms in made:
            atoms.arrays["gap17_forces"] = atoms.arrays.pop("forces")
            atoms.arrays["gap17_energy"] = atoms.positions[:, 0] - number
        write(tmp_path / f"{number}.extxyz", made)
        with zipfile.ZipFile(path, "a") as archive:
            archive.write(tmp_path / f"{number}.extxyz", f"carbon/results/{number}.extxyz")
    accept(monkeypatch, c_synth_23m.Importer, path)
    # What an interrupted unpacking left is not taken for whole.
    (path.parent / f"{path.name}-extracted").mkdir()
    dataset = {
        "load_atoms": "C-SYNTH-23M",
        "labels": {"per_atom_energy": "local_energies", "forces": "forces"},
    }
    prepare({"datasets": {"a": dataset}}, "a", tmp_path, tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as store:
        assert sorted(store.column("index")) == list(range(12))
        energies = {int(atoms.info["index"]): atoms.get_potential_energy() for atoms in store}
    assert energies[8] == pytest.approx(3.6 / 4 - 2 * 2)
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}-extracted"]


def check_c_gap_17(root: Path) -> None:
    dataset = {
        "load_atoms": "C-GAP-17",
        "structures": 30,
        "labels": {"energy": "energy", "forces": "forces"},
        "split": {"key": "split"},
        "energy_reference": {"given": {"C": -148.314002}},
    }
    summary = prepare({"datasets": {"a": dataset}}, "a", root, root / "a.h5")
    assert summary["origin"]["license"] == "MIT"
    with Store(root / "a.h5") as store:
        assert store.column("index", "test").tolist() == [7]
        energy = store[store.n_val].get_potential_energy()
        assert energy == pytest.approx(-307.0 + 2 * 148.314002)


def test_a_file_that_load_atoms_cannot_read(tmp_path, monkeypatch) -> None:
    from load_atoms.database.importers import c_gap_17

    put_entry(tmp_path, "C-GAP-17")
    path = tmp_path / LOAD_ATOMS_ROOT / "raw-downloads/C-GAP-17/C-GAP-17.extxyz"
    path.parent.mkdir(parents=True)
    path.write_text("cut short")
    accept(monkeypatch, c_gap_17.Importer, path)
    with pytest.raises(UserError, match="load-atoms cannot read its files of C-GAP-17"):
        list(open_raw({"load_atoms": "C-GAP-17"}, tmp_path).frames)
