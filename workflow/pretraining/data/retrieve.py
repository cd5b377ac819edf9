"""Retrieve the files that a study reads and that do not come with the repository.

A file in place with the right checksum is used; one with a wrong checksum is an error and is left
as it is. The others are downloaded if their address is known. What is still missing is named in one
line, with place, size and address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pretraining.data.remote import (
    NoConnection,
    Refused,
    RemoteFile,
    download,
    missing_message,
    refuse_wrong,
)
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256
from pretraining.study.queries import address_faults, datasets_read, sources_read


def study_items(config: Mapping[str, Any]) -> list[str]:
    """Return what has files to be retrieved: ``dataset~NAME``, ``source~NAME``, ``weights~FILE``.

    A study needs those of its experiments, maps and dynamics; a configuration without experiments
    needs all.
    """
    used = {kind: set(config.get(kind, {})) for kind in ("datasets", "sources")}
    if "experiments" in config:
        used = {"datasets": datasets_read(config), "sources": sources_read(config)}
    items = [
        f"{kind.removesuffix('s')}~{name}"
        for kind, names in used.items()
        for name in config.get(kind, {})
        if name in names
    ]
    files = [Path(weights["file"]).name for weights in config.get("pretrained_weights", [])]
    items += dict.fromkeys(f"weights~{name}" for name in files)
    return [item for item in items if is_retrieved(config, item)]


def is_retrieved(config: Mapping[str, Any], item: str) -> bool:
    """Return whether a dataset, a source or published weights have files to be retrieved."""
    entry = _entry(config, item)
    return bool(entry.keys() & {"load_atoms", "url"} or entry.get("files"))


def _entry(config: Mapping[str, Any], item: str) -> Mapping[str, Any]:
    kind, name = item.split("~", 1)
    if kind == "weights":
        weights = config["pretrained_weights"]
        return next(entry for entry in weights if Path(entry["file"]).name == name)
    return config[f"{kind}s"][name]


def remote_files(config: Mapping[str, Any], item: str) -> list[RemoteFile]:
    """Return the files of an item of :func:`study_items`; `config` may be a view with this item.

    Raises a `UserError` if load-atoms does not know the dataset, addresses and files do not match,
    or one of them is not allowed.
    """
    entry = _entry(config, item)
    for key, reason in address_faults(entry):
        raise UserError(f"{item.replace('~', ' ')}: {key}: {reason}")
    if "load_atoms" in entry:
        # A heavy import, not needed by a study of the user's own files.
        from pretraining.data.load_atoms import raw_files

        return raw_files(entry["load_atoms"])
    if "url" in entry:
        path = "file" if item.startswith("weights~") else "path"
        paths, urls, hashes = (_as_list(entry.get(key)) for key in (path, "url", "sha256"))
        if len(paths) != len(urls) or len(hashes) not in (0, len(paths)):
            raise UserError(
                f"{item.replace('~', ' ')}: {len(paths)} path, {len(urls)} url and {len(hashes)} "
                "sha256: give one of each a file"
            )
        hashes = hashes or [None] * len(paths)
        return [
            RemoteFile(path, url, digest=digest)
            for path, url, digest in zip(paths, urls, hashes, strict=True)
        ]
    files = []
    for file in entry.get("files", []):
        kind = next((kind for kind in ("sha256", "md5", "git_blob") if kind in file), "sha256")
        address = file.get("url"), file.get("from")
        files.append(RemoteFile(file["path"], *address, kind, file.get(kind), file.get("bytes")))
    return files


def identity_of(file: RemoteFile) -> str:
    """Return the name and the checksum, if known, that make a file the right one anywhere."""
    return f"{Path(file.path).name} {file.digest or ''}".strip()


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def retrieve(item: str, files: Sequence[RemoteFile], root: Path) -> list[dict[str, Any]]:
    """Put the files of an item in their places, relative to `root`, and check them.

    Raises a `UserError`, in one line that names every file that is missing or wrong.

    Returns
    -------
    list of dict
        ``path``, ``sha256`` and ``bytes`` of each file, and of the sparse points of a GAP.
    """
    missing: list[tuple[RemoteFile, str]] = []
    unreachable: dict[str, str] = {}
    found = []
    waiting = list(files)
    while waiting:
        file = waiting.pop(0)
        path = root / file.path
        if path.exists():
            refuse_wrong(item, file, path)
            print(f"{file.path}: in place", flush=True)
        else:
            reason = _download(file, root, unreachable)
            if reason is not None:
                missing.append((file, reason))
                continue
        found.append(file)
        known = {other.path for other in [*files, *found]}
        waiting += [other for other in sparse_points(file, path) if other.path not in known]
    if missing:
        raise UserError(missing_message(item, missing))
    return [
        {
            "path": file.path,
            "sha256": file_sha256(root / file.path),
            "bytes": (root / file.path).stat().st_size,
        }
        for file in found
    ]


def sparse_points(file: RemoteFile, path: Path) -> list[RemoteFile]:
    """Return the files of sparse points beside a GAP's XML file, with the checksums it gives."""
    if path.suffix != ".xml":
        return []
    folder, found = Path(file.path).parent, {}
    for element in re.findall(r"<gpCoordinates\s[^>]*>", path.read_text(errors="replace")):
        attributes = dict(re.findall(r'(\w+)="([^"]*)"', element))
        if "sparseX_filename" in attributes:
            target = str(folder / Path(attributes["sparseX_filename"]).name)
            md5 = attributes.get("sparseX_md5sum")
            origin = f"where {path.name} is from"
            found[target] = RemoteFile(target, origin=origin, algorithm="md5", digest=md5)
    return list(found.values())


def _refuse_outside(path: str, root: Path) -> None:
    """Raise a `UserError` if links lead a file out of the repository; its first folder may."""
    top = root / Path(path).parts[0]
    folder, part = (root / path).parent, root / f"{path}.part"
    homes = {root.resolve(), top.resolve()} if folder != root else {root.resolve()}
    if part.is_symlink() or not homes & {folder.resolve(), *folder.resolve().parents}:
        raise UserError(
            f"{path}: a link leads out of the repository, where nothing is downloaded to; remove "
            "the link, or put the file in place by hand"
        )


def _download(file: RemoteFile, root: Path, unreachable: dict[str, str]) -> str | None:
    """Download a file; return the reason if it is not available."""
    if file.url is None:
        return "no direct address is known"
    _refuse_outside(file.path, root)
    host = urlsplit(file.url).netloc
    if host in unreachable:
        return unreachable[host]
    try:
        download(file, root / file.path)
    except NoConnection as error:
        unreachable[host] = f"no connection to {host}: {error}"
        return unreachable[host]
    except Refused as error:
        return str(error)
    return None
