"""Files that do not come with the repository: size, checksum, address and download by curl."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from pretraining.runtime.errors import UserError
from pretraining.runtime.lease import Lease, running

PAGE_STARTS = (b"<!doctype html", b"<html")
# Failures in a row that bring nothing.
ATTEMPTS = 5
BACKOFF = 1.0  # seconds; doubles with every failure
# Disk space that a download leaves free, bytes.
MARGIN = 100_000_000
BUSY = ("429", "500", "502", "503", "504")
# curl's exit statuses (EXIT CODES in its manual).
UNREACHABLE = (5, 6, 7)
NO_RESUMPTION = (33, 36)
CANNOT_WRITE = 23
NO_SUCH_FILE = 37
WRONG_ADDRESS = (1, 3)  # an unknown protocol, a malformed address
TOO_LARGE = 63


class NoConnection(Exception):
    """The server cannot be reached."""


class Refused(Exception):
    """The server does not have the file, or sends another one."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to be retrieved."""

    path: str  # relative to the repository's root
    url: str | None = None  # direct address; None if it must be fetched by hand
    origin: str | None = None  # page to fetch it from by hand
    algorithm: str = "sha256"
    digest: str | None = None  # hexadecimal; a shortened one is compared with the beginning
    bytes: int | None = None
    estimated: bool = False  # whether the size is

    @property
    def size(self) -> str:
        if self.bytes is None:
            return "size unknown"
        return f"{'about ' if self.estimated else ''}{size_text(self.bytes)}"

    @property
    def source(self) -> str:
        return " or ".join(filter(None, (self.url, self.origin))) or "its authors"

    def fault(self, path: Path) -> str | None:
        """Return why the file at `path` is not this one; None if it is."""
        if not path.is_file():
            return "is no file"
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
            # Git names a file by the SHA-1 of its size and content.
            git = partial(hashlib.sha1, b"blob %d\0" % size, usedforsecurity=False)
            kind = git if self.algorithm == "git_blob" else self.algorithm
            found = hashlib.file_digest(handle, kind).hexdigest()
        if found.startswith(self.digest.lower()):
            return None
        shown = found[: len(self.digest)]
        return f"has the {self.algorithm} {shown}, not {self.digest}{hint}"


def download(file: RemoteFile, path: Path) -> None:
    """Download `file` to `path`, where it appears whole and checked or not at all.

    The download is ``<path>.part``, which a later call resumes.

    Raises
    ------
    NoConnection, Refused
        If the file is not available.
    UserError
        If the disk is too full.
    """
    part = path.with_name(path.name + ".part")
    with Lease(running(path), file.path):
        if path.exists():  # another process was faster
            return
        if file.digest is None:
            # No checksum would tell that the beginning is of another version.
            part.unlink(missing_ok=True)
        resumed = part.exists()
        _fetch(file, part)
        fault = file.fault(part)
        if fault is not None and resumed:
            print(f"{path.name}: {fault}; starting over", flush=True)
            part.unlink()
            _fetch(file, part)
            fault = file.fault(part)
        if fault is not None:
            part.unlink()
            raise Refused(f"what the server sends {fault}")
        os.replace(part, path)


def _fetch(file: RemoteFile, part: Path) -> None:
    """Append what is missing to `part`, in as many attempts as it takes."""
    print(f"{file.path}: {file.size} from {file.url}", flush=True)
    failures = restarts = 0
    while True:
        before = _size(part)
        status, code, message = _curl(file, part)
        if status == 0 or code == "416":  # 416: nothing is missing; the checksum decides
            part.touch()
            return
        if status in NO_RESUMPTION and restarts < ATTEMPTS:
            restarts += 1
            part.unlink()
            continue
        if status in (CANNOT_WRITE, TOO_LARGE):
            raise UserError(
                f"{file.path} ({file.size}) does not fit: {part.parent} has only "
                f"{size_text(shutil.disk_usage(part.parent).free)} free ({message}): make room, or "
                f"make {Path(file.path).parts[0]} a link to another disk"
            )
        if status in (*WRONG_ADDRESS, NO_SUCH_FILE) or (code >= "400" and code not in BUSY):
            raise Refused(f"the server says {code}" if code >= "400" else message)
        failures = 0 if _size(part) > before else failures + 1
        if failures >= (2 if status in UNREACHABLE else ATTEMPTS):
            raise NoConnection(message)
        print(f"{message} at {size_text(_size(part))}; again", flush=True)
        time.sleep(min(BACKOFF * 2**failures, 60))


def _curl(file: RemoteFile, part: Path) -> tuple[int, str, str]:
    """Run curl once; return its exit status, the server's status code and the error in words."""
    free = shutil.disk_usage(part.parent).free
    command = ["curl", "--globoff", "--fail", "--location", "--silent", "--continue-at", "-"]
    # An address, and where it sends on, may be another protocol only if the checksum tells.
    scheme = urlsplit(str(file.url)).scheme
    for option in ("--proto", "--proto-redir"):
        command += [option, "=https" if scheme == "https" else f"={scheme},https"]
    command += ["--connect-timeout", "10", "--speed-limit", "1", "--speed-time", "60"]
    command += ["--max-filesize", str(max(free - MARGIN, 1)), "--create-dirs", "--output"]
    command += [str(part), "--write-out", "%{http_code} %{errormsg}", str(file.url)]
    if sys.stderr.isatty():
        command.remove("--silent")
    try:
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise UserError(
            f"{file.path} cannot be downloaded: curl is not installed; install it, or put the file "
            f"in place by hand, from {file.source}"
        ) from None
    code, _, message = process.stdout.partition(" ")
    return process.returncode, code, message.strip() or f"curl exit status {process.returncode}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def size_text(size: float) -> str:
    """Write a size in bytes with three digits at most and a unit."""
    for unit in ("bytes", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def overview(items: Mapping[str, Sequence[RemoteFile]], root: Path) -> str:
    """Return a line for each file (place, size and address) and one for all of them."""
    lines = []
    for item, files in items.items():
        lines.append(f"{item.replace('~', ' ')}:")
        for file in files:
            by = "from" if file.url else "by hand, from"
            lines.append(f"  {file.path}  {file.size}  {by} {file.source}")
    return "\n".join([*lines, _total({file for files in items.values() for file in files}, root)])


def _total(files: Collection[RemoteFile], root: Path) -> str:
    """Sum up files: number, size, and how many are in place."""
    known = sum(file.bytes or 0 for file in files)
    about = "about " if any(file.estimated for file in files) else ""
    text = f"total: {len(files)} files, {about}{size_text(known)}"
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
    """Return one line: which files are missing, why, and how to put them in place by hand."""
    each = "; ".join(
        f"{file.path} ({file.size}) from {file.source} ({reason})" for file, reason in missing
    )
    plural = "s" if len(missing) > 1 else ""
    return (
        f"{item.replace('~', ' ')}: {len(missing)} file{plural} missing: {each}: fetch by other "
        "means, put in place and run again"
    )
