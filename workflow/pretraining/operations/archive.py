"""One file to attach to a paper: what a study found, how, and how to verify it.

The same results give the same bytes: no times are kept, and files are in the order of their names.
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

from pretraining.runtime.files import file_sha256, write_atomically

# Below the results folder: what goes into every archive, and where.
RESULTS = (
    "report.html",
    "grid.tsv",
    "tables/*",
    "figures/**/*",
    "comparisons/*",
    "checks/sources.*",
    "embeddings/*.md",
    "embeddings/*/*.csv",
)
RECORDS = (
    "data/*/summary.*",
    "data/*/trajectories.*",
    "retrieved/*",
    "labels/references/*",
    "labels/*/*/chunks/*.provenance.json",
    "runs/**/metrics.json",
    "evaluations/**/metrics.json",
    "dynamics/**/outcome.json",
)
MODELS = ("runs/**/model.ckpt",)
WITH_MODELS = (*MODELS, "runs/**/curve.csv", "runs/**/train.log")
EPOCH = (1980, 1, 1, 0, 0, 0)

README = Path(__file__).resolve().parents[2] / "report" / "archive.md"


def write_archive(
    out: Path,
    config: dict[str, Any],
    written: Iterable[Path],
    root: Path,
    models: bool,
) -> int:
    """Write the archive of a study; return the number of files in it.

    Parameters
    ----------
    out
        Archive (ZIP).
    config
        The study's configuration, defaults included.
    written
        Files that it was written in.
    root
        The repository's root.
    models
        Whether it holds the models and their learning curves, too.
    """
    results = Path(config["results"])
    chosen = RECORDS + (WITH_MODELS if models else ())
    members: dict[str, Path | bytes] = {
        f"{folder}/{file.relative_to(results)}": file
        for folder, patterns in (("results", RESULTS), ("records", chosen))
        for file in found(results, patterns)
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    members["config/configuration.yaml"] = text.encode()
    members |= {f"config/as-written/{file.name}": file for file in written}
    members["requirements.lock"] = root / "requirements.lock"
    members["models.sha256"] = "".join(
        f"{file_sha256(file)}  {file.relative_to(results)}\n" for file in found(results, MODELS)
    ).encode()
    commit, clean = commit_of(root)
    versions = {"workflow": {"commit": commit, "clean": clean}, **versions_of(results)}
    members["versions.json"] = (json.dumps(versions, indent=1) + "\n").encode()
    members["README.md"] = readme(config, results, models, commit, clean).encode()
    sums = "".join(f"{_sha256(members[name])}  {name}\n" for name in sorted(members))
    members["SHA256SUMS"] = sums.encode()
    name = f"{results.name}-archive"
    write_atomically(out, lambda tmp: _pack(tmp, name, members))
    return len(members)


def found(results: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Yield the files below the results folder that match, each once, in order."""
    for pattern in patterns:
        yield from (file for file in sorted(results.glob(pattern)) if file.is_file())


def _pack(path: Path, folder: str, members: dict[str, Path | bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(f"{folder}/{name}", EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            content = members[name]
            archive.writestr(info, content if isinstance(content, bytes) else content.read_bytes())


def _sha256(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return file_sha256(content)


def versions_of(results: Path) -> dict[str, Any]:
    """Count which versions the records of runs, tests and labels name.

    Returns
    -------
    dict
        ``runs``, ``dynamics`` and ``labels``: sets of versions, each with the ``number`` of records
        that name it.
    """
    sources = {
        "runs": ("runs/**/metrics.json", lambda record: record.get("versions")),
        "dynamics": ("dynamics/**/outcome.json", lambda record: record.get("versions")),
        "labels": (
            "labels/*/*/chunks/*.provenance.json",
            lambda record: {k: record.get(k) for k in ("source", "code", "ase", "numpy", "python")},
        ),
    }
    counted = {}
    for name, (pattern, pick) in sources.items():
        counts = Counter(
            json.dumps(pick(json.loads(file.read_text(encoding="utf-8"))), sort_keys=True)
            for file in found(results, [pattern])
        )
        counted[name] = [
            {"versions": json.loads(text), "number": number}
            for text, number in sorted(counts.items())
        ]
    return counted


def commit_of(root: Path) -> tuple[str | None, bool | None]:
    """Return the workflow's commit, and whether its files are as committed; None if not known."""

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
    """Return what is what in an archive."""
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
