"""Datasets of load-atoms, read from files that were retrieved: nothing here uses the network.

load-atoms says which raw files a dataset consists of and turns them into structures. Its download
(which cannot resume) and its import into a cache (which holds a large set in memory) are not used;
a cache that it made elsewhere is.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
from ase import Atoms
from load_atoms.atoms_dataset import InMemoryAtomsDataset, LmdbAtomsDataset
from load_atoms.database import DatabaseEntry
from load_atoms.database.backend import BaseImporter
from load_atoms.progress import SilentProgress
from load_atoms.utils import remove_calculator

from pretraining.data.readers import Raw
from pretraining.data.remote import RemoteFile, missing_message, refuse_wrong
from pretraining.runtime.errors import UserError

LOAD_ATOMS_ROOT = Path("resources") / "load-atoms"
# load-atoms gives no sizes. That of C-SYNTH-23M is of its repository, compressed; those of the
# other two follow from their numbers of atoms, at a hundred bytes each.
ESTIMATED_BYTES = {
    "carbon-data-v1.0.zip": 560_000_000,
    "C-GAP-17.extxyz": 31_000_000,
    "C-GAP-20U.xyz": 43_000_000,
}
ENTRY_BYTES = 2_000
# Structures read from a cache before it is opened anew: what is mapped of it counts as memory.
SLICE = 1_000


def raw_files(name: str) -> list[RemoteFile]:
    """Return the files of a dataset: load-atoms' description of it, and the raw data.

    Raises
    ------
    UserError
        If the installed load-atoms does not know the dataset.
    """
    files = [
        RemoteFile(
            str(_entry_file(name)),
            DatabaseEntry.remote_url_for_yaml(name),
            bytes=ENTRY_BYTES,
            estimated=True,
        )
    ]
    importer = _importer(name)
    for file in importer.files_to_download():
        path = _raw_folder(name, importer) / file.local_name
        size = ESTIMATED_BYTES.get(file.local_name)
        digest = file.expected_hash
        files.append(RemoteFile(str(path), file.url, None, "sha256", digest, size, True))
    return files


def cache_of(name: str, root: Path) -> Path | None:
    """Return load-atoms' own cache of a dataset, if there is one."""
    found = [root / LOAD_ATOMS_ROOT / f"{name}.{suffix}" for suffix in ("lmdb", "pkl")]
    return next((path for path in found if path.exists()), None)


def open_load_atoms(name: str, root: Path) -> Raw:
    """Open a dataset of load-atoms.

    Raises
    ------
    UserError
        If a file is missing, wrong or cannot be read.
    """
    cache = cache_of(name, root)
    entry, *files = raw_files(name)
    needed = [entry] if cache else [entry, *files]
    missing = [(file, "not in place") for file in needed if not (root / file.path).exists()]
    if missing:
        message = missing_message(f"load-atoms' {name}", missing)
        raise UserError(f"{message}; `snakemake retrieve -R retrieve_files` downloads them")
    with _reading(name):
        about = DatabaseEntry.from_yaml_file(root / entry.path)
    origin = {"load_atoms": name, "license": about.license, "citation": about.citation}
    print(f"load-atoms: {name} ({about.license})", flush=True)
    if cache is None:
        for file in files:
            refuse_wrong(f"load-atoms' {name}", file, root / file.path)
        return Raw(_imported(name, root), origin)
    with _reading(name):
        if cache.suffix == ".pkl":
            frames = InMemoryAtomsDataset.load(cache)
            return Raw(frames, origin, n=len(frames))
        dataset = LmdbAtomsDataset(cache)
    return Raw(_sliced(cache, dataset), origin, n=len(dataset))


def _importer(name: str) -> type[BaseImporter]:
    stem = DatabaseEntry.importer_file_stem(name)
    try:
        return importlib.import_module(f"load_atoms.database.importers.{stem}").Importer
    except ImportError:
        raise UserError(
            f"load_atoms: '{name}' is unknown to the installed load-atoms: correct the name, or "
            "update load-atoms"
        ) from None


def _entry_file(name: str) -> Path:
    return LOAD_ATOMS_ROOT / "database-entries" / f"{name}.yaml"


def _raw_folder(name: str, importer: type[BaseImporter]) -> Path:
    return LOAD_ATOMS_ROOT / "raw-downloads" / (importer.permanent_download_dirname() or name)


def _imported(name: str, root: Path) -> Iterator[Atoms]:
    """Read structures from the raw files with load-atoms' importer, a few at a time."""
    importer = _importer(name)
    folder = root / _raw_folder(name, importer)
    # An importer unpacks archives beside them, and takes what an interrupted one left for whole:
    # here it does so in a folder that does not outlive this process.
    with _reading(name), tempfile.TemporaryDirectory(prefix=".unpacked-", dir=folder) as scratch:
        for file in importer.files_to_download():
            (Path(scratch) / file.local_name).symlink_to((folder / file.local_name).resolve())
        for atoms in importer.get_structures(Path(scratch), SilentProgress(name)):
            remove_calculator(atoms)
            yield atoms


def _sliced(cache: Path, dataset: LmdbAtomsDataset) -> Iterator[Atoms]:
    """Read structures from an LMDB cache, so that little of it is mapped at any time."""
    with _reading(cache.stem):
        for i in range(len(dataset)):
            if i % SLICE == 0:
                _close(dataset)
                dataset.env = lmdb.open(str(cache), readonly=True, lock=False)
                dataset.txn = dataset.env.begin()
            yield dataset[i]
        _close(dataset)


def _close(dataset: LmdbAtomsDataset) -> None:
    # load-atoms' own way fails with today's lmdb.
    dataset.txn.abort()
    dataset.env.close()


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever load-atoms stumbles over into one line."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"load-atoms cannot read its files of {name} ({type(error).__name__}: "
            f"{str(error)[:200]}): remove what belongs to it in {LOAD_ATOMS_ROOT} and retrieve "
            "it again"
        ) from error
