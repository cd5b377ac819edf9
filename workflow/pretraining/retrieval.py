"""Which files a study reads that do not come with it, and how they get into their places.

A file that lies in its place with the right checksum is taken, whoever put it there; one with a
wrong checksum is refused by name and never touched. The rest is downloaded where its address is
known; what then is missing is named in one line: where it goes, how large it is and where it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretraining.errors import UserError

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


def study_items(config: Mapping[str, Any]) -> list[str]:
    """Return what is to be retrieved: ``dataset~NAME``, ``source~NAME`` and ``weights~FILE``.

    That is what the experiments of a study use, and all of a configuration without experiments.
    """
    used = {kind: set(config.get(kind, {})) for kind in ("datasets", "sources")}
    if "experiments" in config:
        experiments = config["experiments"].values()
        used["datasets"] = {e[key] for e in experiments for key in ("target", "structures")}
        used["sources"] = {source for e in experiments for source in e["sources"]}
        for name in used["datasets"]:
            for key in ("energy_reference", "generate", "labels"):
                used["sources"].add(config["datasets"][name].get(key, {}).get("source"))
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
    """Say whether a dataset, a source or published weights have files to be retrieved."""
    entry = _entry(config, item)
    return bool(entry.keys() & {"load_atoms", "url"} or entry.get("files"))


def _entry(config: Mapping[str, Any], item: str) -> Mapping[str, Any]:
    kind, name = item.split("~", 1)
    if kind == "weights":
        weights = config["pretrained_weights"]
        return next(entry for entry in weights if Path(entry["file"]).name == name)
    return config[f"{kind}s"][name]


def remote_files(
    config: Mapping[str, Any], item: str, root: Path | None = None
) -> list[RemoteFile]:
    """Return the files of a dataset, of a source or of published weights.

    Parameters
    ----------
    config
        Configuration, or the part of it with this item.
    item
        As :func:`study_items` names it.
    root
        The repository's root: if load-atoms' own cache of a dataset is there, its raw files are
        not needed.

    Raises
    ------
    UserError
        If load-atoms does not know the dataset, or addresses and files do not match.
    """
    entry = _entry(config, item)
    if "load_atoms" in entry:
        # Heavy, and not needed by a study of the user's own files.
        from pretraining.loadatoms import cache_of, raw_files

        files = raw_files(entry["load_atoms"])
        return files[:1] if root and cache_of(entry["load_atoms"], root) else files
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
    return [_listed(file) for file in entry.get("files", [])]


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _listed(file: Mapping[str, Any]) -> RemoteFile:
    algorithm = "md5" if "md5" in file and "sha256" not in file else "sha256"
    return RemoteFile(
        path=file["path"],
        url=file.get("url"),
        origin=file.get("from"),
        algorithm=algorithm,
        digest=file.get(algorithm),
        bytes=file.get("bytes"),
    )


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


def retrieve(item: str, files: Sequence[RemoteFile], root: Path) -> list[dict[str, Any]]:
    """Put files in their places and check them.

    Parameters
    ----------
    item
        What they belong to, for messages.
    files
        Files.
    root
        The repository's root.

    Returns
    -------
    list of dict
        ``path``, ``sha256`` and ``bytes`` of each.

    Raises
    ------
    UserError
        In one line that names every file that is missing or wrong.
    """
    missing: list[tuple[RemoteFile, str]] = []
    unreachable: dict[str, str] = {}
    for file in files:
        path = root / file.path
        if path.exists():
            refuse_wrong(item, file, path)
            print(f"{file.path}: in place", flush=True)
            continue
        if file.url is None:
            missing.append((file, "no direct address is known"))
            continue
        reason = _download(file, path, unreachable)
        if reason is not None:
            missing.append((file, reason))
    if missing:
        raise UserError(missing_message(item, missing))
    return [
        {
            "path": file.path,
            "sha256": file_sha256(root / file.path),
            "bytes": (root / file.path).stat().st_size,
        }
        for file in files
    ]


def _download(file: RemoteFile, path: Path, unreachable: dict[str, str]) -> str | None:
    """Download a file; return the reason if that cannot be done."""
    from urllib.parse import urlsplit

    from pretraining.download import NoConnection, Refused, download

    host = urlsplit(file.url).netloc
    if host in unreachable:
        return unreachable[host]
    try:
        download(file, path)
    except NoConnection as error:
        unreachable[host] = f"no connection to {host}: {error}"
        return unreachable[host]
    except Refused as error:
        return str(error)
    return None


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


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
