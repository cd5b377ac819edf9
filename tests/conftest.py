"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from scripts import run_script

ROOT = Path(__file__).resolve().parents[1]
# Scripts find the package of this checkout in any interpreter.
os.environ["PYTHONPATH"] = str(ROOT / "workflow")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture
def script() -> Callable[..., tuple[int, str]]:
    """Run a script of the workflow in this process: its exit status and its stderr."""

    def run(name: str, *arguments: object) -> tuple[int, str]:
        done = run_script(name, *arguments)
        return done.returncode, done.stderr

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real reference data beside the checkout; tests that need it skip without it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def compile_cache(tmp_path_factory) -> Path:
    """Compile cache that all tests and their programs share, apart from the user's."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    os.environ["PRETRAINING_COMPILE_CACHE"] = str(folder / "compiled")
    # The compiler's own cache outlives a session, which saves minutes in the next.
    own = user_cache_path("synthetic-pretraining") / "compiler-of-tests"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(own))
    return folder / "compiled"
