"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Scripts find the package of this checkout in any interpreter.
os.environ["PYTHONPATH"] = str(ROOT / "workflow")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture
def script(root, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """Run a script of the workflow in this process: its exit status and what it writes to stderr.

    Faster than a process of its own by the imports.
    """

    def run(name: str, *arguments: object) -> tuple[int, str]:
        path = root / f"workflow/scripts/{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(path), run_name="__main__")
        return ended.value.code, capsys.readouterr().err

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real reference data beside the checkout; tests that need it skip without it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}")
    return folder
