"""Files that do not come with the repository: what is known of one, and what is said of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pretraining.runtime.errors import UserError

# What a web page begins with that came in place of a file.
PAGE_STARTS = (b"<!doctype html", b"<html")


@dataclass(frozen=True)
class RemoteFile:
    """A file to be retrieved.

    Attributes
    ----------
    path
        Where it goes, relative to the repository's root.
    url
        Direct address; None if there is only a page to look for it on.
    origin
        Page that it can be got from by hand.
    algorithm, digest
        Checksum, in hexadecimal; a part of it is compared with the beginning.
    bytes
        Size; with `estimated`, about.
    """

    path: str
    url: str | None = None
    origin: str | None = None
    algorithm: str = "sha256"
    digest: str | None = None
    bytes: int | None = None
    estimated: bool = False

    @property
    def size(self) -> str:
        """The size in words."""
        if self.bytes is None:
            return "size unknown"
        return f"{'about ' if self.estimated else ''}{size_text(self.bytes)}"

    @property
    def source(self) -> str:
        """Where it comes from."""
        return " or ".join(filter(None, (self.url, self.origin))) or "its authors"

    def fault(self, path: Path) -> str | None:
        """Say why the file at `path` is not this one, or return None."""
        size = path.stat().st_size
        if size == 0:
            return "is empty"
        with open(path, "rb") as handle:
            page = handle.read(64).lstrip().lower().startswith(PAGE_STARTS)
            handle.seek(0)
            hint = " (it is a web page)" if page else ""
            if self.bytes is not None and not self.estimated and size != self.bytes:
                return f"has {size:,} bytes, not {self.bytes:,}{hint}"
            if self.digest is None:
                return "is a web page" if page else None
            found = hashlib.file_digest(handle, self.algorithm).hexdigest()
        if found.startswith(self.digest.lower()):
            return None
        shown = found[: len(self.digest)]
        return f"has the {self.algorithm} {shown}, not {self.digest}{hint}"


def size_text(size: float) -> str:
    """Write a size in bytes as people do."""
    for unit in ("bytes", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def listing(files: Iterable[RemoteFile]) -> str:
    """One line a file: where it goes, its size and where it comes from."""
    lines = []
    for file in files:
        by = "from" if file.url else "by hand, from"
        lines.append(f"  {file.path}  {file.size}  {by} {file.source}")
    return "\n".join(lines)


def total(files: Sequence[RemoteFile], root: Path) -> str:
    """Sum up files: how many, how large, and how many of them are in place."""
    files = list(dict.fromkeys(files))
    known = sum(file.bytes or 0 for file in files)
    about = "about " if any(file.estimated for file in files) else ""
    text = f"{len(files)} files, {about}{size_text(known)}"
    unknown = sum(file.bytes is None for file in files)
    there = sum((root / file.path).exists() for file in files)
    hand = sum(file.url is None for file in files)
    notes = [f"and {unknown} of unknown size"] if unknown else []
    notes += [f"{there} of them are in place"]
    notes += [f"{hand} can only be fetched by hand"] if hand else []
    return ", ".join([text, *notes])


def refuse_wrong(item: str, file: RemoteFile, path: Path) -> None:
    """Raise a UserError if the file in place is not the expected one."""
    fault = file.fault(path)
    if fault is not None:
        raise UserError(
            f"{item.replace('~', ' ')}: {file.path} is in place but {fault}: it is left as it is; "
            f"move it away, and get the right one from {file.source}"
        )


def missing_message(item: str, missing: Sequence[tuple[RemoteFile, str]]) -> str:
    """Say in one line which files are missing, why, and how to put them in place by hand."""
    each = "; ".join(
        f"{file.path} ({file.size}) from {file.source} ({reason})" for file, reason in missing
    )
    plural = "s" if len(missing) > 1 else ""
    return (
        f"{item.replace('~', ' ')}: {len(missing)} file{plural} missing: {each}: fetch by other "
        "means, put in place and run again"
    )
