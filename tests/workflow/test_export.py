"""Exports of a finished study: a folder that needs NequIP alone."""

from __future__ import annotations

import subprocess
import sys

import ase.io
import pytest

from copper import CONFIG, add_files, counts, run, write

pytestmark = pytest.mark.slow

DIRECT = "results/copper/runs/direct/target~Cu/source~none/n~3/seed~1"


@pytest.fixture(scope="module")
def study(copy_repository, tmp_path_factory):
    """A study of which one run has finished."""
    checkout = copy_repository(tmp_path_factory.mktemp("study"))
    add_files(checkout)
    write(checkout, CONFIG)
    run(checkout, f"{DIRECT}/metrics.json")
    return checkout


def script(study, name, *arguments):
    """Run a script of the checkout."""
    command = [sys.executable, f"workflow/scripts/{name}.py", *arguments]
    return subprocess.run(command, cwd=study.folder, capture_output=True, text=True)


def test_the_target_exports_the_models_of_each_dft_set(study):
    assert counts(study, "--nolock", "export")["export_models"] == 1


def test_an_export_without_compiled_models(study):
    config = ["--config", "config/copper.yaml", "--compile", "none"]
    done = script(study, "export", *config, "--best", "Cu", "--out", "export")
    assert done.returncode == 0, done.stderr
    folder = study.folder / "export"
    sums = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(sums, cwd=folder, capture_output=True).returncode == 0
    known = ase.io.read(folder / "check.extxyz")
    model = ["--model", f"{DIRECT}/model.ckpt", "--structures", "export/check.extxyz"]
    assert script(study, "predict", *model, "--out", "predicted.xyz").returncode == 0
    energy = ase.io.read(study.folder / "predicted.xyz").get_potential_energy()
    assert known.info["seed1_energy"] == pytest.approx(energy, abs=1e-6)
    again = script(study, "export", *config, "--run", DIRECT, "--out", "export")
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("error: --out: export is not empty")
