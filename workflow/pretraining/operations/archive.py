"""Archive of a study to attach to a paper: its results, their records, and how to verify them.

The same results give the same bytes: the archive has no times, and its files are sorted by name.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pretraining.operations.accept import DERIVED
from pretraining.runtime.cli import refuse_overwriting
from pretraining.runtime.files import file_sha256, write_atomically

# Files of every archive, below the results folder.
RESULTS = (
    "report.html",
    *DERIVED,
    "embeddings/*.md",
    "embeddings/*/*.csv",
)
RECORDS = (
    "data/*/summary.*",
    "data/*/trajectories.*",
    "retrieved/*",
    "labels/references/*",
    "labels/*/*/chunks/*.provenance.json",
    "data/*/trajectories/*.provenance.json",
    "dynamics/*/start.provenance.json",
    "runs/**/metrics.json",
    "evaluations/**/metrics.json",
    "dynamics/**/outcome.json",
)
MODELS = ("runs/**/model.ckpt",)
WITH_MODELS = (*MODELS, "runs/**/curve.csv", "runs/**/train.log")
# Records with versions, and their keys if not ``versions``.
CODES = ("source", "code", "ase", "numpy", "python")
VERSIONS = {
    "runs": ("runs/**/metrics.json", ()),
    "dynamics": ("dynamics/**/outcome.json", ()),
    "labels": ("labels/*/*/chunks/*.provenance.json", CODES),
}
EPOCH = (1980, 1, 1, 0, 0, 0)

README = Path(__file__).resolve().parents[2] / "report" / "archive.md"


def write_archive(
    out: Path, config: dict[str, Any], written: Iterable[Path], root: Path, models: bool
) -> int:
    """Write the archive of a study (ZIP); return the number of its files.

    Parameters
    ----------
    written
        Files of the configuration as written; `config` has the defaults.
    root
        Root folder of the repository.
    models
        Whether the archive holds models and learning curves.
    """
    results = Path(config["results"])
    records = RECORDS + (WITH_MODELS if models else ())
    members: dict[str, Path | bytes] = {
        f"{folder}/{file.relative_to(results)}": file
        for folder, patterns in (("results", RESULTS), ("records", records))
        for file in _files(results, patterns)
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    members["config/configuration.yaml"] = text.encode()
    members |= {f"config/as-written/{file.name}": file for file in written}
    members["requirements.lock"] = root / "requirements.lock"
    sums = (
        f"{file_sha256(file)}  {file.relative_to(results)}\n" for file in _files(results, MODELS)
    )
    members["models.sha256"] = "".join(sums).encode()
    commit, clean = commit_of(root)
    versions = {"workflow": {"commit": commit, "clean": clean}, **versions_of(results)}
    members["versions.json"] = (json.dumps(versions, indent=1) + "\n").encode()
    members["README.md"] = readme(config, results, models, commit, clean).encode()
    sums = (
        f"{hashlib.sha256(_content(members[name])).hexdigest()}  {name}\n"
        for name in sorted(members)
    )
    members["SHA256SUMS"] = "".join(sums).encode()
    packed = [(name, path) for name, path in members.items() if isinstance(path, Path)]
    refuse_overwriting([("--out", out)], packed)
    write_atomically(out, lambda tmp: _pack(tmp, f"{results.name}-archive", members))
    return len(members)


def _files(results: Path, patterns: Iterable[str]) -> Iterator[Path]:
    for pattern in patterns:
        yield from (file for file in sorted(results.glob(pattern)) if file.is_file())


def _pack(path: Path, folder: str, members: dict[str, Path | bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(f"{folder}/{name}", EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, _content(members[name]))


def _content(member: Path | bytes) -> bytes:
    return member if isinstance(member, bytes) else member.read_bytes()


def versions_of(results: Path) -> dict[str, Any]:
    """Return the sets of software versions of runs, dynamics and labels, each with its number."""
    counted = {}
    for name, (pattern, keys) in VERSIONS.items():
        counts: Counter[str] = Counter()
        for file in _files(results, [pattern]):
            record = json.loads(file.read_text(encoding="utf-8"))
            versions = {key: record.get(key) for key in keys} if keys else record.get("versions")
            counts[json.dumps(versions, sort_keys=True)] += 1
        counted[name] = [
            {"versions": json.loads(text), "number": number}
            for text, number in sorted(counts.items())
        ]
    return counted


def commit_of(root: Path) -> tuple[str | None, bool | None]:
    """Return the workflow's commit, and whether its files are as committed; None if unknown."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None, None
        return git("rev-parse", "HEAD"), not git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None, None


def readme(
    config: dict[str, Any], results: Path, models: bool, commit: str | None, clean: bool | None
) -> str:
    """Return the text that explains the archive and how to verify it."""
    grid = pd.read_csv(results / "grid.tsv", sep="\t", keep_default_na=False)
    done = sum((results / path / "metrics.json").is_file() for path in grid["path"])
    count = f"{done:,} of the {len(grid):,} training runs of the grid have finished."
    if models:
        where, verify = "in `records/`", "(cd records && sha256sum -c ../models.sha256)"
    else:
        where = "that are not here, by their path below the folder of results"
        verify = "(cd RESULTS && sha256sum -c -) < models.sha256   # RESULTS: the folder of results"
    remark = {
        True: "The workflow's files were as committed when this was made.",
        False: "**The workflow's files differed from that commit when this was made.**",
        None: "The commit is not known: the workflow was not in a git repository.",
    }[clean]
    return README.read_text(encoding="utf-8").format(
        results=config["results"],
        count=count,
        where=where,
        verify=verify,
        commit=f"commit `{commit}`" if commit else "the version",
        clean=remark,
    )
