"""Compressed files of structures, unpacked before they are read."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ase.io.formats import get_compression, open_with_compression


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpack a compressed file into a temporary one; any other is given back as it is.

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
