"""The package: which room imports what, and an installed copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile

import grimp
import pytest

# Modules of optional packages, which need not be installed.
OPTIONAL = {"torch_sim"}
ALLOWED = {
    "rules": {"numpy", "pandas", "jsonschema", "yaml"},
    "label sources": {"numpy", "ase", "yaml"},
}
IMPORT_ALL = """
import importlib, sys
for name in sys.argv[2:]:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error.name)
    else:
        assert module.__file__.startswith(sys.argv[1]), module
"""


def test_import_contracts(root):
    done = subprocess.run(
        ["lint-imports", "--no-logo", "--no-cache"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("contract", ALLOWED)
def test_a_contract_forbids_everything_that_it_does_not_allow(root, contract):
    """A new dependency of the package is added to both lists."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]
    (entry,) = [c for c in settings["contracts"] if c["name"].startswith(contract)]
    graph = grimp.build_graph("pretraining", include_external_packages=True)
    foreign = {name for name in graph.modules if not name.startswith("pretraining")}
    heavy = foreign - set(sys.stdlib_module_names) - ALLOWED[contract]
    assert heavy == set(entry["forbidden_modules"])


@pytest.mark.slow
def test_a_wheel_has_every_module(root, tmp_path):
    source, installed = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(root / "workflow/pretraining", source / "workflow/pretraining")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(root / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(installed)
    modules = [
        ".".join(path.relative_to(root / "workflow").with_suffix("").parts)
        for path in sorted((root / "workflow/pretraining").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(installed), *modules],
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= OPTIONAL
