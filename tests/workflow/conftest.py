"""A copy of the repository to run the workflow in, so that tests leave no trace in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PARTS = ["Snakefile", "workflow", "config", "envs", "profiles", "resources/demo"]
PARTS += [
    "resources/tutorial",
    "resources/published",
    "resources/replication/runs.csv",
    "pyproject.toml",
    "requirements.lock",
]


class Checkout:
    """A copy of the repository and Snakemake in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        """Run Snakemake; its output and errors come back as one text in ``stdout``."""
        process = subprocess.run(
            ["snakemake", *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if check:
            assert process.returncode == 0, process.stdout[-8000:]
        return process

    def job_counts(self, *arguments: str) -> dict[str, int]:
        """Return the number of jobs by rule that a dry run announces."""
        output = self.snakemake("-n", *arguments, "--quiet", "rules").stdout
        counts = {}
        table = output.split("Job stats:", 1)[-1].split("total", 1)[0]
        for line in table.splitlines():
            words = line.split()
            if len(words) == 2 and words[1].isdigit():
                counts[words[0]] = int(words[1])
        return counts


@pytest.fixture(scope="session")
def copy_repository(root):
    """Return a function that copies the repository into a folder."""

    def copy(folder: Path) -> Checkout:
        ignore = shutil.ignore_patterns("__pycache__", "*.part", "work")
        for part in PARTS:
            source, target = root / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=ignore)
            else:
                shutil.copy2(source, target)
        return Checkout(folder)

    return copy


@pytest.fixture(scope="module")
def checkout(copy_repository, tmp_path_factory):
    """A copy that the tests of one module share."""
    return copy_repository(tmp_path_factory.mktemp("checkout"))
