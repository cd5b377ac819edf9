"""Datasets of load-atoms: from its cache, from files put in place, and without a network."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from load_atoms.atoms_dataset import InMemoryAtomsDataset, LmdbAtomsDataset
from load_atoms.database import DatabaseEntry
from load_atoms.utils import generate_checksum

from pretraining.datasets import prepare
from pretraining.errors import UserError
from pretraining.loading import LOAD_ATOMS_ROOT, open_raw
from pretraining.store import Store

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


def entry(name: str, form: str) -> DatabaseEntry:
    return DatabaseEntry(
        name=name,
        year=2023,
        description="made for a test",
        category="Potential Fitting",
        license="MIT",
        format=form,
    )


def put_entry(root: Path, name: str, form: str = "memory") -> None:
    path = root / LOAD_ATOMS_ROOT / "database-entries" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"name: {name}\nyear: 2017\ndescription: test\ncategory: Potential Fitting\n"
        f"license: MIT\nformat: {form}\n"
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
def test_without_a_network_one_line_says_what_goes_where(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as error:
        open_raw({"load_atoms": name}, tmp_path)
    line = str(error.value)
    assert "\n" not in line
    base = tmp_path / "resources" / "load-atoms"
    assert line.startswith(f"{name} cannot be downloaded (ConnectionError): fetch by other means")
    assert f"{name}.yaml to {base / 'database-entries' / (name + '.yaml')}" in line
    assert f" to {base / 'raw-downloads' / name / FILES[name]}" in line
    put_entry(tmp_path, name)
    with pytest.raises(UserError) as error:
        open_raw({"load_atoms": name}, tmp_path)
    assert "database-entries" not in str(error.value)
    assert str(base / "raw-downloads" / name / FILES[name]) in str(error.value)
    assert [path.name for path in base.rglob("*") if path.is_file()] == [f"{name}.yaml"]


def test_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'C-GAP-71' cannot be looked up .* correct load_atoms"):
        open_raw({"load_atoms": "C-GAP-71"}, tmp_path)


class Missing(BaseHTTPRequestHandler):
    """A server that has nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server without files, in place of GitHub."""
    monkeypatch.undo()
    with ThreadingHTTPServer(("127.0.0.1", 0), Missing) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{http.server_port}/"
        monkeypatch.setattr("load_atoms.database.database_entry.BASE_REMOTE_URL", address)
        yield address
        http.shutdown()


def test_what_the_server_does_not_have(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from load_atoms.database.importers import c_gap_17

    with pytest.raises(UserError, match="load-atoms has no dataset 'C-GAP-71'"):
        open_raw({"load_atoms": "C-GAP-71"}, tmp_path)
    put_entry(tmp_path, "C-GAP-17")
    file = c_gap_17.Importer.file_to_download()
    file.url = f"{server}C-GAP-17.extxyz"
    monkeypatch.setattr(c_gap_17.Importer, "file_to_download", lambda: file)
    with pytest.raises(UserError, match="C-GAP-17 cannot be downloaded .HTTPError.: fetch by"):
        open_raw({"load_atoms": "C-GAP-17"}, tmp_path)


def test_a_wrong_file_is_not_read(tmp_path: Path) -> None:
    put_entry(tmp_path, "C-GAP-17")
    path = tmp_path / LOAD_ATOMS_ROOT / "raw-downloads/C-GAP-17/C-GAP-17.extxyz"
    path.parent.mkdir(parents=True)
    write(path, frames())
    with pytest.raises(UserError, match="is not the file that load-atoms expects for C-GAP-17"):
        open_raw({"load_atoms": "C-GAP-17"}, tmp_path)
    assert path.exists()
    assert "LOAD_ATOMS_DEBUG" not in os.environ


def test_a_file_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from load_atoms.database.importers import c_gap_17

    put_entry(tmp_path, "C-GAP-17")
    path = tmp_path / LOAD_ATOMS_ROOT / "raw-downloads/C-GAP-17/C-GAP-17.extxyz"
    path.parent.mkdir(parents=True)
    write(path, frames())
    file = c_gap_17.Importer.file_to_download()
    file.expected_hash = generate_checksum(path)
    monkeypatch.setattr(c_gap_17.Importer, "file_to_download", lambda: file)
    check_c_gap_17(tmp_path)
    # The second time from load-atoms' own cache.
    path.unlink()
    check_c_gap_17(tmp_path)


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


@pytest.mark.parametrize("form", ["memory", "lmdb"])
def test_structures_from_the_cache(tmp_path: Path, form: str) -> None:
    """Large sets lie in an LMDB file, whose structures are read-only."""
    root = tmp_path / LOAD_ATOMS_ROOT
    put_entry(tmp_path, "C-SYNTH-23M", form)
    kind, suffix = (LmdbAtomsDataset, "lmdb") if form == "lmdb" else (InMemoryAtomsDataset, "pkl")
    made = frames()
    for i, atoms in enumerate(made):
        atoms.info["time"] = i
    kind.save(root / f"C-SYNTH-23M.{suffix}", made, entry("C-SYNTH-23M", form))
    dataset = {
        "load_atoms": "C-SYNTH-23M",
        "filters": [{"key": "time", "min": 10}],
        "keep": ["time"],
    }
    prepare({"datasets": {"a": dataset}}, "a", tmp_path, tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as store:
        assert sorted(store.column("index")) == list(range(10, 30))
        assert not store.has_labels


def test_a_cache_with_another_number_of_structures(tmp_path: Path) -> None:
    put_entry(tmp_path, "C-GAP-17")
    path = tmp_path / LOAD_ATOMS_ROOT / "C-GAP-17.pkl"
    InMemoryAtomsDataset.save(path, frames(), entry("C-GAP-17", "memory"))
    dataset = {"load_atoms": "C-GAP-17", "structures": 4530}
    with pytest.raises(UserError, match="30 raw structures, but the configuration expects 4,530"):
        prepare({"datasets": {"a": dataset}}, "a", tmp_path, tmp_path / "a.h5")


def test_a_broken_cache(tmp_path: Path) -> None:
    put_entry(tmp_path, "C-GAP-17")
    (tmp_path / LOAD_ATOMS_ROOT / "C-GAP-17.pkl").write_bytes(b"cut short")
    with pytest.raises(UserError, match="cannot read its copy of C-GAP-17 .* delete .*C-GAP-17"):
        open_raw({"load_atoms": "C-GAP-17"}, tmp_path)
