"""Read datasets of load-atoms from retrieved files, without a network.

load-atoms lists the raw files of a dataset and turns them into structures. Its download cannot
resume, and its cache is made in memory: neither is used.
"""

from __future__ import annotations

import importlib
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ase import Atoms
from load_atoms.database import DatabaseEntry
from load_atoms.database.backend import BaseImporter
from load_atoms.progress import SilentProgress
from load_atoms.utils import remove_calculator

from pretraining.data.remote import RemoteFile, missing_message, refuse_wrong
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import NO_ROOM

# load-atoms' addresses name its branch `main`, which changes; this is its last commit that is known
# to us. It holds the descriptions and data of the sets that load-atoms 0.3.9 knew.
BRANCH = "https://github.com/jla-gardner/load-atoms/raw/main/"
COMMIT = "https://github.com/jla-gardner/load-atoms/raw/8677ad5cdc8dd02e130e4c8fbd1035c62bdb93ae/"
LATER = ("LiPS-25",)
# SHA-256 of the descriptions of the paper's sets.
DESCRIPTIONS = {
    "C-GAP-17": "0152299e4d604a528073002f8db3230e3dd6fcdc97a1564e48101cb7f84b88a8",
    "C-GAP-20U": "eeeaca167c25d9f894dd0a98c6fa09408092ab1eb523a3f7b8331e6f473f8c6c",
    "C-SYNTH-23M": "e21c643eb47a0e68a9dec6a431f9f90423e46e5679f70b06ac6496c4bd23e8c0",
    "Si-GAP-18": "c13382adc953e80e4d91d639c5f50b681ce8493dbbcd9bb1104d6b256ffe12a9",
}
LOAD_ATOMS_ROOT = Path("resources") / "load-atoms"
# load-atoms gives no sizes. The first is its repository's; the others are 100 bytes an atom.
ESTIMATED_BYTES = {
    "carbon-data-v1.0.zip": 560_000_000,
    "C-GAP-17.extxyz": 31_000_000,
    "C-GAP-20U.xyz": 43_000_000,
}
ENTRY_BYTES = 2_000


def raw_files(name: str) -> list[RemoteFile]:
    """Return the files of a dataset: load-atoms' description and the raw data."""
    entry = str(LOAD_ATOMS_ROOT / "database-entries" / f"{name}.yaml")
    url = DatabaseEntry.remote_url_for_yaml(name)
    known = DESCRIPTIONS.get(name)
    files = [RemoteFile(entry, _pinned(name, url), None, "sha256", known, ENTRY_BYTES, True)]
    importer = _importer(name)
    for file in importer.files_to_download():
        path = _raw_folder(name, importer) / file.local_name
        size = ESTIMATED_BYTES.get(file.local_name)
        digest = file.expected_hash
        url = _pinned(name, file.url)
        files.append(RemoteFile(str(path), url, None, "sha256", digest, size, True))
    return files


def _pinned(name: str, url: str) -> str:
    return url if name in LATER else url.replace(BRANCH, COMMIT)


def open_load_atoms(name: str, root: Path) -> tuple[Iterator[Atoms], dict[str, Any]]:
    """Return the structures of a dataset of load-atoms, read one at a time, and their origin.

    Raises a `UserError` if a file is missing, wrong or cannot be read.
    """
    files = raw_files(name)
    missing = [(file, "not in place") for file in files if not (root / file.path).exists()]
    if missing:
        message = missing_message(f"load-atoms' {name}", missing)
        raise UserError(f"{message}; `snakemake retrieve -R retrieve_files` downloads them")
    entry, *data = files
    with _reading(name):
        about = DatabaseEntry.from_yaml_file(root / entry.path)
    print(f"load-atoms: {name} ({about.license})", flush=True)
    for file in data:
        refuse_wrong(f"load-atoms' {name}", file, root / file.path)
    origin = {"load_atoms": name, "license": about.license, "citation": about.citation}
    return _imported(name, root), origin


def _importer(name: str) -> type[BaseImporter]:
    stem = DatabaseEntry.importer_file_stem(name)
    try:
        return importlib.import_module(f"load_atoms.database.importers.{stem}").Importer
    except ImportError:
        raise UserError(
            f"load_atoms: '{name}' is unknown to the installed load-atoms: correct the name, or "
            "update load-atoms"
        ) from None


def _raw_folder(name: str, importer: type[BaseImporter]) -> Path:
    return LOAD_ATOMS_ROOT / "raw-downloads" / (importer.permanent_download_dirname() or name)


def _imported(name: str, root: Path) -> Iterator[Atoms]:
    """Read structures from the raw files with load-atoms' importer, a few at a time."""
    importer = _importer(name)
    folder = root / _raw_folder(name, importer)
    # No file of an archive leaves its folder; Python 3.14 does so by itself.
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    # An importer unpacks archives beside them, and later accepts incomplete leftovers: a temporary
    # folder avoids both.
    with _reading(name), tempfile.TemporaryDirectory(prefix=".unpacked-", dir=folder) as scratch:
        for file in importer.files_to_download():
            (Path(scratch) / file.local_name).symlink_to((folder / file.local_name).resolve())
        for atoms in importer.get_structures(Path(scratch), SilentProgress(name)):
            remove_calculator(atoms)
            yield atoms


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn any error of load-atoms into one line."""
    try:
        yield
    except Exception as error:
        if getattr(error, "errno", None) in NO_ROOM:
            raise UserError(
                f"load-atoms' {name} cannot be unpacked in {LOAD_ATOMS_ROOT} ({error.strerror}): "
                "make room there"
            ) from error
        raise UserError(
            f"load-atoms cannot read its files of {name} ({type(error).__name__}: "
            f"{str(error)[:200]}): remove what belongs to it in {LOAD_ATOMS_ROOT} and retrieve "
            "it again"
        ) from error
