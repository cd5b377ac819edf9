"""Read raw structures one at a time, from load-atoms or from the user's own files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, get_compression, open_with_compression

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256
from pretraining.runtime.records import check_output


@dataclass
class Raw:
    """A raw dataset: its structures, to be iterated over once, and their origin."""

    frames: Iterable[Atoms]
    origin: dict[str, Any]


def open_raw(dataset: dict[str, Any], root: Path) -> Raw:
    """Open the raw structures of a dataset of the configuration; paths are relative to `root`.

    Raises
    ------
    UserError
        If a file is missing, has another checksum, or was changed after it was written here.
    """
    if "load_atoms" in dataset:
        from pretraining.data.load_atoms import open_load_atoms

        return Raw(*open_load_atoms(dataset["load_atoms"], root))
    if "path" not in dataset:
        raise UserError("no structures: give one of load_atoms | path | generate")
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
        check_output(path)
        found = file_sha256(path)
        if hashes and found != hashes[i]:
            raise UserError(
                f"{path} has the sha256 {found}, not {hashes[i]}: get the right file, or correct "
                "the sha256 in the configuration"
            )
        files.append({"path": str(name), "sha256": found, "bytes": path.stat().st_size})
    frames = read_files([root / name for name in paths], dataset.get("format"))
    return Raw(frames, {"files": files})


def read_files(paths: Sequence[Path], format: str | None = None) -> Iterator[Atoms]:
    """Read the structures of files, compressed or not, one at a time.

    `format` is ASE's name of their format; without it, ASE recognises the format.

    Raises
    ------
    UserError
        Naming the file and the structure, if it cannot be read.
    """
    for path in paths:
        n = 0
        try:
            with unpacked(path) as plain:
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
                f"{path}: structure {n} cannot be read as {format or 'its name suggests'} "
                f"({reason}): repair the file"
            ) from error


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack a compressed file into a temporary one; yield any other file as it is.

    ASE's readers seek in a file; in a compressed one, seeking back means reading from the start.
    """
    if get_compression(str(path))[1] is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        with open_with_compression(str(path), "rb") as source, open(plain, "wb") as target:
            shutil.copyfileobj(source, target)
        yield plain
