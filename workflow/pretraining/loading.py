"""Raw structures, one at a time, from load-atoms or from the user's own files."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, get_compression, open_with_compression

from pretraining.errors import UserError

LOAD_ATOMS_ROOT = Path("resources") / "load-atoms"


@dataclass
class Raw:
    """A raw dataset: its structures, to be iterated over once, and where they come from."""

    frames: Iterable[Atoms]
    origin: dict[str, Any] = field(default_factory=dict)
    n: int | None = None


def open_raw(dataset: dict[str, Any], root: Path) -> Raw:
    """Open the raw structures of a configured dataset.

    Parameters
    ----------
    dataset
        The dataset's entry in the configuration: ``load_atoms``, or ``path``, ``format`` and
        ``sha256``.
    root
        The repository's root, to which paths are relative.

    Raises
    ------
    UserError
        If a file is missing, is not the expected one, or cannot be had without a network.
    """
    if "load_atoms" in dataset:
        return _open_load_atoms(dataset["load_atoms"], root / LOAD_ATOMS_ROOT)
    paths = dataset["path"] if isinstance(dataset["path"], list) else [dataset["path"]]
    expected = dataset.get("sha256")
    hashes = expected if isinstance(expected, list) else [expected] if expected else []
    if hashes and len(hashes) != len(paths):
        raise UserError(f"{len(hashes)} sha256 are given for {len(paths)} files: give one a file")
    files = []
    for i, name in enumerate(paths):
        path = root / name
        if not path.is_file():
            raise UserError(f"no structure file {path}: put it there or correct the path")
        found = file_sha256(path)
        if hashes and found != hashes[i]:
            raise UserError(
                f"{path} has the sha256 {found}, not {hashes[i]}: get the right file, or correct "
                "the sha256 in the configuration"
            )
        files.append({"path": str(name), "sha256": found, "bytes": path.stat().st_size})
    frames = read_files([root / name for name in paths], dataset.get("format"))
    return Raw(frames, {"files": files})


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def read_files(paths: Sequence[Path], format: str | None = None) -> Iterator[Atoms]:
    """Read the structures of one or more files, one at a time.

    Parameters
    ----------
    paths
        Files in any format that ASE reads, compressed or not.
    format
        ASE's name of the format; by default ASE finds out.

    Raises
    ------
    UserError
        Naming the file and the structure, if it cannot be read.
    """
    for path in paths:
        n = 0
        try:
            with _uncompressed(path) as plain:
                for atoms in iread(plain, ":", format=format, do_not_split_by_at_sign=True):
                    yield atoms
                    n += 1
        except UserError:
            raise
        except UnknownFileTypeError as error:
            raise UserError(f"{path}: ASE does not know the file format ({error})") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:300]
            raise UserError(
                f"{path}: structure {n} cannot be read as {format or 'what the name says'} "
                f"({reason}): repair the file"
            ) from error


@contextmanager
def _uncompressed(path: Path) -> Iterator[Path]:
    """Unpack a compressed file into a temporary one.

    ASE's readers jump about in a file, and going back in a compressed one means starting again.
    """
    if get_compression(str(path))[1] is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        with open_with_compression(str(path), "rb") as source, open(plain, "wb") as target:
            shutil.copyfileobj(source, target)
        yield plain


def _open_load_atoms(name: str, root: Path) -> Raw:
    """Open a dataset of load-atoms, downloaded or put in place beforehand."""
    from load_atoms import load_dataset
    from load_atoms.utils import UnknownDatasetException
    from requests.exceptions import RequestException

    before = _files_below(root)
    print(f"load-atoms: {name}", flush=True)
    try:
        with _keep_downloads(), warnings.catch_warnings():
            # load-atoms only warns about a wrong file, and then reads it.
            warnings.filterwarnings("error", message="Checksum mismatch")
            dataset = load_dataset(name, root=root)
    except (UnknownDatasetException, RequestException) as error:
        # A download that broke off would be taken for the file by the next run.
        for path in _files_below(root) - before:
            path.unlink()
        unknown = isinstance(error, UnknownDatasetException)
        cause = (error.__cause__ or error) if unknown else error
        if unknown and getattr(getattr(cause, "response", None), "status_code", None) == 404:
            raise UserError(f"load-atoms has no dataset '{name}': correct load_atoms") from error
        raise UserError(_by_hand(name, root, type(cause).__name__)) from error
    except Warning as warning:
        path = str(warning).rsplit(": ", 1)[-1]
        raise UserError(
            f"{path} is not the file that load-atoms expects for {name} (its checksum differs): "
            "delete it and run again, or put the right one there"
        ) from warning
    except Exception as error:
        raise UserError(
            f"load-atoms cannot read its copy of {name} in {root} ({type(error).__name__}: "
            f"{str(error)[:200]}): delete {root / name}.* and run again"
        ) from error
    about = dataset.description
    origin = {"load_atoms": name}
    if about is not None:
        origin |= {"license": about.license, "citation": about.citation}
    return Raw(dataset, origin, n=len(dataset))


@contextmanager
def _keep_downloads() -> Iterator[None]:
    """Let load-atoms keep the files it downloads, in ``raw-downloads``, and use those it finds."""
    before = os.environ.get("LOAD_ATOMS_DEBUG")
    os.environ["LOAD_ATOMS_DEBUG"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOAD_ATOMS_DEBUG"]
        else:
            os.environ["LOAD_ATOMS_DEBUG"] = before


def _files_below(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


def _by_hand(name: str, root: Path, reason: str) -> str:
    """Say which files to fetch by other means, and where they belong."""
    from load_atoms.database import DatabaseEntry

    wanted = [(DatabaseEntry.remote_url_for_yaml(name), root / f"database-entries/{name}.yaml")]
    stem = DatabaseEntry.importer_file_stem(name)
    try:
        importer = importlib.import_module(f"load_atoms.database.importers.{stem}").Importer
    except ImportError:
        return (
            f"'{name}' cannot be looked up ({reason}) and is unknown to the installed load-atoms: "
            "correct load_atoms or update load-atoms"
        )
    folder = root / "raw-downloads" / (importer.permanent_download_dirname() or name)
    wanted += [(file.url, folder / file.local_name) for file in importer.files_to_download()]
    missing = [f"{url} to {path}" for url, path in wanted if not path.exists()]
    return (
        f"{name} cannot be downloaded ({reason}): fetch by other means {' and '.join(missing)} "
        "(see resources/README.md)"
    )
