"""Results that are copied to another machine, and the file to attach to a paper."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
import zipfile

import h5py
import pytest

from copper import CONFIG, add_files, counts, run, write

pytestmark = pytest.mark.slow

RESULTS = "results/copper"
DIRECT = "runs/direct/target~Cu/source~none/n~3/seed~1"
PRETRAINED = "runs/pretrain/structures~Cu-synthetic/transform~none/source~emt/npre~12/seed~1"
FINETUNED = (
    "runs/finetune/target~Cu/structures~Cu-synthetic/transform~none/source~emt/npre~12/preseed~1/"
    "n~3/seed~1"
)
# What is made again in any case.
DERIVED = {"collect_runs", "learning_curves", "table1", "efficiency", "cost", "students", "all"}
DERIVED |= {"results_grid", "grid_table", "settings", "summary", "time_figure"}


def config_at(checkout):
    """Return the configuration of a machine: it names a file by where that machine has it."""
    config = copy.deepcopy(CONFIG)
    config["experiments"]["fig3"]["sources"] = ["emt"]
    config["datasets"]["Cu"]["path"] = str(checkout.folder / "resources/cu.extxyz")
    return config


@pytest.fixture(scope="module")
def origin(copy_repository, tmp_path_factory):
    """A finished study, and in ``other`` its runs trained with other settings."""
    checkout = copy_repository(tmp_path_factory.mktemp("origin"))
    add_files(checkout)
    config = config_at(checkout)
    config["results"] = "results/other"
    config["training"]["learning_rate"] = 0.02
    write(checkout, config)
    run(checkout, *(f"results/other/{path}/metrics.json" for path in (DIRECT, PRETRAINED)))
    write(checkout, config_at(checkout))
    run(checkout)
    return checkout


@pytest.fixture
def clone(origin, copy_repository, tmp_path):
    """A fresh checkout with a copy of the results, whose times are scrambled."""
    checkout = copy_repository(tmp_path / "clone")
    add_files(checkout)
    write(checkout, config_at(checkout))
    shutil.copytree(origin.folder / RESULTS, checkout.folder / RESULTS)
    generator = random.Random(1)
    for file in (checkout.folder / RESULTS).rglob("*"):
        at = time.time() - generator.uniform(0, 1e6)
        os.utime(file, (at, at))
    return checkout


def accept(checkout, *arguments):
    command = [sys.executable, "workflow/scripts/accept.py", "--config", "config/copper.yaml"]
    return subprocess.run(
        [*command, *arguments],
        cwd=checkout.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left(output):
    """Return the jobs that are left but those of tables and figures, as `accept.py` says."""
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE))
    return {rule: int(n) for rule, n in jobs.items() if rule not in DERIVED}


def put(origin, clone, path):
    for name in ("metrics.json", "model.ckpt", "curve.csv"):
        file = origin.folder / "results/other" / path / name
        shutil.copy(file, clone.folder / RESULTS / path / name)


def test_copied_results_are_accepted(clone):
    """Without raw data and chunks, which only led to the runs."""
    for folder in ("data/Cu-synthetic/chunks", "labels/Cu-synthetic/emt/chunks"):
        shutil.rmtree(clone.folder / RESULTS / folder)
    assert counts(clone)["finetune"] == 2
    output = accept(clone).stdout
    assert "5 training runs accepted, 0 not, 0 not there" in output
    assert left(output) == {} and "learning_curves" in output
    # Snakemake has recorded them as its own: it notices what changes from here on.
    config = config_at(clone)
    config["training"]["direct"] = {"max_epochs": 4}
    write(clone, config)
    assert {rule: n for rule, n in counts(clone).items() if rule not in DERIVED} == {"direct": 2}


def test_runs_of_other_settings_are_trained_again_with_what_follows(origin, clone):
    for run_of_other in (DIRECT, PRETRAINED):
        put(origin, clone, run_of_other)
    output = accept(clone).stdout
    for run_of_other in (DIRECT, PRETRAINED):
        assert f"not accepted: {run_of_other}: it was trained with other settings\n" in output
    assert output.count("or from another model") == 2 and "it is of another model" in output
    assert "1 training runs accepted, 4 not" in output
    wanted = {"direct": 1, "pretrain": 1, "finetune": 2, "evaluate": 1}
    assert left(output) == wanted
    run(clone, f"{RESULTS}/{DIRECT}/metrics.json")
    # Snakemake's records of the first do not vouch for the second.
    put(origin, clone, DIRECT)
    assert left(accept(clone).stdout) == wanted


def test_other_data_and_damaged_files_are_noticed(clone):
    results = clone.folder / RESULTS
    model = results / DIRECT / "model.ckpt"
    other = results / DIRECT.replace("n~3", "n~6") / "metrics.json"
    # A model of another run of this very study: only the run's record can tell.
    shutil.copy(other.with_name("model.ckpt"), model)
    other.write_text(re.sub('"record_digest": .*', '"a": 1', other.read_text()))
    other.write_text(other.read_text().replace('"data_checksum": "', '"data_checksum": "0'))
    metrics = results / FINETUNED / "metrics.json"
    metrics.write_text(metrics.read_text().replace('"epochs": 3', '"epochs": 4'))
    chunk = results / "labels/Cu-synthetic/emt/chunks/00000.extxyz"
    chunk.write_text(chunk.read_text().replace("emt_energy=", "emt_energy=1", 1))
    with h5py.File(results / "labels/Cu-synthetic/emt/npre~12.h5", "r+") as labelled:
        labelled["energy"][0] += 0.001
    structures = clone.folder / "resources/cu-synthetic.extxyz"
    structures.write_text(structures.read_text().replace("0.1", "0.2", 1))
    output = accept(clone, "-n").stdout
    for file in (model, metrics, chunk, results / "labels/Cu-synthetic/emt/npre~12.h5"):
        assert f"{file.relative_to(clone.folder)} was changed after it was written" in output
    assert "n~6/seed~1: it was trained on other data than" in output
    assert "dataset Cu-synthetic: resources/cu-synthetic.extxyz was another file there" in output


def test_labels_of_other_settings_stay_refused(clone):
    """Until Snakemake has made them again, with all that follows from them."""
    refusal = (
        "not accepted: labels/Cu-synthetic/emt/chunks: it was made with another kwargs of the "
        "source 'emt'"
    )
    following = {"label", "join_labels", "pretrain", "finetune"}
    first = {"isolated_atoms", "prepare", "direct"}
    changed = config_at(clone)
    changed["sources"]["emt"]["kwargs"] = {"asap_cutoff": True}
    write(clone, changed)
    for _ in range(2):
        output = accept(clone).stdout
        assert output.count(refusal) == 1
        assert following | first <= set(left(output))
    # Interrupted: the settings are new, and the isolated atoms.
    run(clone, f"{RESULTS}/settings/source~emt.yaml", f"{RESULTS}/labels/references/emt.json")
    output = accept(clone).stdout
    assert refusal in output and "references" not in output
    assert set(left(output)) >= following and "isolated_atoms" not in left(output)
    # With the settings that they were made with, labels are accepted, and now not the atoms.
    write(clone, config_at(clone))
    output = accept(clone).stdout
    assert "not accepted: labels/references/emt.json: it was made with another kwargs" in output
    assert set(left(output)) >= first


def test_nothing_is_accepted_while_snakemake_works(clone):
    (clone.folder / ".snakemake/locks").mkdir(parents=True)
    (clone.folder / ".snakemake/locks/0.input.lock").touch()
    process = accept(clone)
    assert process.returncode == 1
    assert process.stdout.startswith("error: Snakemake is at work in this folder")


@pytest.fixture(scope="module")
def unpacked(origin, tmp_path_factory):
    run(origin, "archive")
    folder = tmp_path_factory.mktemp("archive")
    with zipfile.ZipFile(origin.folder / RESULTS / "archive.zip") as archive:
        archive.extractall(folder)
    return folder / "copper-archive"


def test_an_archive_verifies_itself_and_the_models(origin, unpacked):
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=unpacked, check=True)
    models = (unpacked / "models.sha256").read_text()
    assert models.count("model.ckpt") == 5
    verify = ["sha256sum", "-c", "--quiet", "-"]
    subprocess.run(verify, cwd=origin.folder / RESULTS, input=models, text=True, check=True)
    files = {str(file.relative_to(unpacked)) for file in unpacked.rglob("*") if file.is_file()}
    assert {"README.md", "requirements.lock", "config/as-written/copper.yaml"} <= files
    assert {"results/tables/runs.csv", "results/figures/fig3.pdf", "results/grid.tsv"} <= files
    assert f"records/{DIRECT}/metrics.json" in files
    assert not any(file.endswith(".ckpt") for file in files)
    listed = {line.split()[1] for line in (unpacked / "SHA256SUMS").read_text().splitlines()}
    assert listed == files - {"SHA256SUMS"}
    versions = json.loads((unpacked / "versions.json").read_text())
    assert versions["runs"][0]["number"] == 5 and "torch" in versions["runs"][0]["versions"]
    assert "5 of the 5 training runs" in (unpacked / "README.md").read_text()


def test_its_configuration_is_that_of_the_study(origin, unpacked):
    shutil.copy(unpacked / "config/configuration.yaml", origin.folder / "config/again.yaml")
    assert origin.job_counts("--configfile", "config/again.yaml") == {}


def test_the_same_results_give_the_same_bytes(origin, unpacked):
    before = (origin.folder / RESULTS / "archive.zip").read_bytes()
    for file in (origin.folder / RESULTS / "tables").iterdir():
        file.touch()
    run(origin, "-R", "archive", "--", "archive")
    assert (origin.folder / RESULTS / "archive.zip").read_bytes() == before
    run(origin, "--config", "archive_models=true", "--", "archive")
    with zipfile.ZipFile(origin.folder / RESULTS / "archive.zip") as archive:
        names = archive.namelist()
    assert f"copper-archive/records/{DIRECT}/model.ckpt" in names


def test_an_archive_starts_no_training(origin):
    shutil.rmtree(origin.folder / RESULTS / DIRECT)
    process = run(origin, "archive", check=False)
    assert process.returncode != 0
    error = process.stdout.strip().splitlines()[-1]
    assert error.startswith("error: target 'archive': 1 of 5 training runs have not finished")
    output = run(origin, "--config", "allow_missing=true", "--", "archive").stdout
    assert "rule direct" not in output
    with zipfile.ZipFile(origin.folder / RESULTS / "archive.zip") as archive:
        assert "4 of the 5 training runs" in archive.read("copper-archive/README.md").decode()
