"""Download one file over HTTP so that a broken connection costs only what was under way."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from pretraining.data.remote import RemoteFile, size_text
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import room_for

# Connections that break without having brought anything, in a row.
ATTEMPTS = 5
BACKOFF = 1.0
TIMEOUT = (10, 60)
BLOCK = 1 << 16
REPORT_SECONDS = 10
# What a download leaves free on the disk.
MARGIN = 100_000_000
# Answers of a server that is busy.
BUSY = (429, 500, 502, 503, 504)


class NoConnection(Exception):
    """The server cannot be reached."""


class Refused(Exception):
    """The server does not have the file, or has another one."""


def download(file: RemoteFile, path: Path) -> None:
    """Download `file` to `path`, where it appears whole and checked or not at all.

    It is written to ``<path>.part``, from where a later call goes on.

    Raises
    ------
    NoConnection, Refused
        If the file cannot be had.
    UserError
        If the disk is too full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with _session() as session, _opened_alone(part) as handle:
        if path.exists():  # another process was faster
            part.unlink()
            return
        if file.digest is None:
            # Nothing would tell that the beginning is of another version.
            handle.truncate(0)
        resumed = handle.seek(0, os.SEEK_END) > 0
        try:
            _fetch(session, file, handle)
            fault = file.fault(part)
            if fault is not None and resumed:
                print(f"{path.name}: {fault}; starting over", flush=True)
                handle.truncate(0)
                _fetch(session, file, handle)
                fault = file.fault(part)
            if fault is not None:
                handle.truncate(0)
                raise Refused(f"what the server sends {fault}")
        finally:
            if part.stat().st_size == 0:
                part.unlink()
        os.replace(part, path)


def _session() -> requests.Session:
    session = requests.Session()
    retry = Retry(
        total=ATTEMPTS,
        connect=2,
        read=0,
        backoff_factor=BACKOFF,
        status_forcelist=BUSY,
        raise_on_status=False,
    )
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    # The stored bytes are wanted, not what a compression in transit makes of them.
    session.headers["Accept-Encoding"] = "identity"
    return session


@contextmanager
def _opened_alone(part: Path) -> Iterator[BinaryIO]:
    """Open the unfinished file when no other process writes to it."""
    while True:
        with room_for(part), open(part, "ab") as handle:
            with suppress(OSError):  # some file systems of clusters have no locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            # The one who held it may have moved it into place or removed it.
            if part.exists() and os.path.samestat(part.stat(), os.fstat(handle.fileno())):
                yield handle
                return


def _fetch(session: requests.Session, file: RemoteFile, handle: BinaryIO) -> None:
    """Append to `handle` what is still missing, over as many connections as it takes."""
    if file.url.startswith("file://"):
        _copy(Path(file.url.removeprefix("file://")), handle)
        return
    failures = 0
    while True:
        before = handle.seek(0, os.SEEK_END)
        try:
            _receive(session, file, handle)
            return
        except requests.RequestException as error:
            reason = type(error).__name__
        failures = 0 if handle.tell() > before else failures + 1
        # A server that never answered was asked several times already.
        if failures == ATTEMPTS or (reason == "ConnectionError" and handle.tell() == 0):
            raise NoConnection(reason)
        print(f"connection broke ({reason}) at {size_text(handle.tell())}; again", flush=True)
        time.sleep(min(BACKOFF * 2**failures, 60))


def _copy(source: Path, handle: BinaryIO) -> None:
    """Take the file from a folder of this machine."""
    if not source.is_file():
        raise Refused(f"there is no {source}")
    handle.truncate(0)
    with open(source, "rb") as mirror:
        shutil.copyfileobj(mirror, handle)
    handle.flush()


def _receive(session: requests.Session, file: RemoteFile, handle: BinaryIO) -> None:
    """One connection: ask for what is missing and write what comes."""
    have = handle.tell()
    headers = {"Range": f"bytes={have}-"} if have else {}
    with session.get(file.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:  # nothing is missing, or all is wrong: the checksum tells
            return
        if response.status_code >= 400:
            raise Refused(f"the server says {response.status_code} {response.reason}")
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if response.status_code != 206 or start is None or int(start[1]) != have:
            handle.truncate(0)
            have = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        _check_disk(file, handle, total or file.bytes, have)
        began = reported = time.monotonic()
        print(
            f"{file.path}: {size_text(total) if total else file.size} from {file.url}", flush=True
        )
        for block in response.iter_content(BLOCK):
            handle.write(block)
            now = time.monotonic()
            if now - reported > REPORT_SECONDS:
                reported = now
                done = handle.tell()
                pace = size_text((done - have) / (now - began))
                of = f" of {size_text(total)}" if total else ""
                print(f"{file.path}: {size_text(done)}{of}, {pace}/s", flush=True)
        handle.flush()
    if total is not None and handle.tell() < total:
        raise requests.ConnectionError("cut short")


def _check_disk(file: RemoteFile, handle: BinaryIO, total: int | None, have: int) -> None:
    folder = Path(handle.name).parent
    free = shutil.disk_usage(folder).free
    if total is not None and total - have + MARGIN > free:
        raise UserError(
            f"{file.path}: {size_text(total - have)} to download, but {folder} has only "
            f"{size_text(free)} free: make room, or make it a link to another disk"
        )
