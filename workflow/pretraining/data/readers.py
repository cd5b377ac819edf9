"""Read raw structures one at a time, from load-atoms or from the user's own files."""

from __future__ import annotations

import bisect
import lzma
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, get_compression, open_with_compression

from pretraining.data.distort import distorted, prototypes
from pretraining.data.formats import reader_of
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import NO_ROOM, file_sha256
from pretraining.runtime.records import check_output
from pretraining.study.queries import STRUCTURE_KEYS, paths_of, structure_files

# Errors of unpacking.
_COMPRESSED = (EOFError, OSError, lzma.LZMAError, zlib.error)


@dataclass
class Raw:
    """A raw dataset: its structures, to be iterated over once, and their origin."""

    frames: Iterable[Atoms]
    origin: dict[str, Any]
    # Of several files: their names, and the number of the first structure of each, once read.
    files: Sequence[str] = ()
    firsts: Sequence[int] = ()
    # Part of the files that are not for training.
    parts: Mapping[str, str] = field(default_factory=dict)

    def part(self, index: int) -> str:
        """Return the part (``train``, ``val``, ``test``) of a structure, by its file."""
        return self.parts.get(self.files[bisect.bisect_right(self.firsts, index) - 1], "train")

    def name(self, index: int) -> str:
        """Name a structure that has been read, with its file if there are several."""
        if len(self.files) < 2:
            return f"structure {index}"
        number = bisect.bisect_right(self.firsts, index) - 1
        return f"structure {index} ({index - self.firsts[number]} of {self.files[number]})"


def open_raw(dataset: dict[str, Any], root: Path) -> Raw:
    """Open the raw structures of a dataset of the configuration; paths are relative to `root`.

    Raises a `UserError` if a file is missing, has another checksum, or was changed after it was
    written here.
    """
    if "distort" in dataset:
        raw = open_raw({key: dataset[key] for key in dataset if key != "distort"}, root)
        return Raw(distorted(raw.frames, dataset["distort"]), raw.origin)
    if "prototypes" in dataset:
        return Raw(prototypes(dataset["prototypes"]), {"prototypes": dataset["prototypes"]})
    if "load_atoms" in dataset:
        from pretraining.data.load_atoms import open_load_atoms

        return Raw(*open_load_atoms(dataset["load_atoms"], root))
    if "path" not in dataset:
        raise UserError(f"no structures: give one of {' | '.join(STRUCTURE_KEYS)}")
    paths = structure_files(paths_of(dataset), root)
    expected = dataset.get("sha256")
    hashes = expected if isinstance(expected, list) else [expected] if expected else []
    if hashes and len(hashes) != len(paths):
        raise UserError(f"{len(hashes)} sha256 are given for {len(paths)} files: give one a file")
    files = []
    for i, name in enumerate(paths):
        path = root / name
        if not path.is_file():
            raise UserError(f"no structure file {path}: put it there or correct the path")
        found = check_output(path) or file_sha256(path)
        if hashes and found != hashes[i]:
            raise UserError(
                f"{path} has the sha256 {found}, not {hashes[i]}: get the right file, or correct "
                "the sha256 in the configuration"
            )
        files.append({"path": str(name), "sha256": found, "bytes": path.stat().st_size})
    firsts: list[int] = []
    frames = read_files([root / name for name in paths], dataset.get("format"), firsts)
    split = dataset.get("split", {})
    own = {part: structure_files(split.get(f"{part}_path", []), root) for part in ("val", "test")}
    parts = {file: part for part, names in own.items() for file in names}
    return Raw(frames, {"files": files}, list(map(str, paths)), firsts, parts)


def read_files(
    paths: Sequence[Path], format: str | None = None, firsts: list[int] | None = None
) -> Iterator[Atoms]:
    """Read the structures of files, compressed or not, one at a time.

    Raises a `UserError` naming the file and the structure, if it cannot be read.

    Parameters
    ----------
    format
        ASE's name of their format, or one of :mod:`pretraining.data.formats`; without it, the
        format is recognised.
    firsts
        Is filled with the number of the first structure of each file.
    """
    total = 0
    for path in paths:
        n = 0
        if firsts is not None:
            firsts.append(total)
        try:
            with unpacked(path) as plain:
                read = reader_of(plain, format)
                options = {"format": format, "do_not_split_by_at_sign": True}
                for atoms in read(plain) if read else iread(plain, ":", **options):
                    yield atoms
                    n += 1
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{path}: {_reason(path, n, error, format)}") from error
        total += n


def _reason(path: Path, n: int, error: Exception, format: str | None) -> str:
    """Why structure `n` of a file cannot be read, and the cure."""
    if not path.exists():
        return "no such structure file: put it there or correct the path"
    if isinstance(error, PermissionError | IsADirectoryError):
        return f"the file cannot be read ({error.strerror})"
    if path.stat().st_size == 0:
        return "the file is empty: get it again"
    if isinstance(error, UnknownFileTypeError):
        return (
            f"ASE does not know the file format ({error}): name the format, or convert the file "
            "to extended XYZ"
        )
    if isinstance(error, ImportError):
        return f"this format needs a module that is missing ({error}): install it, or convert it"
    text = " ".join(f"{type(error).__name__}: {error}".split()).strip(": ")[:300]
    if get_compression(str(path))[1] is not None and isinstance(error, _COMPRESSED):
        return f"the compressed file is cut short or is none ({text}): get it again"
    if isinstance(error, UnicodeDecodeError):
        text = "it is no text in UTF-8"
    if format is None:
        return f"structure {n} cannot be read as its name suggests ({text}): repair the file"
    return f"structure {n} cannot be read as {format} ({text}): correct the format, or the file"


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
        try:
            with open_with_compression(str(path), "rb") as source, open(plain, "wb") as target:
                shutil.copyfileobj(source, target)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise UserError(
                f"{path} cannot be unpacked in {Path(folder).parent} ({error.strerror}): make room "
                "there, or set TMPDIR to another folder"
            ) from error
        yield plain
