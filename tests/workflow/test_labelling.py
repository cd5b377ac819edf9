"""Labelling by the rules: several processes, repeated structures, what makes labels again."""

from __future__ import annotations

import json
import os
import shutil
from copy import deepcopy

import ase.io
import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT

import copper
from pretraining.data.store import Store

N_EVAL, CHUNK, N_PRE = 6, 4, 10
SET = "results/copper/labels/Cu-synthetic/emt/npre~10.h5"
CHUNKS = "results/copper/labels/Cu-synthetic/emt/chunks"
CONFIG = copper.CONFIG | {
    "datasets": {
        "Cu-synthetic": {
            "path": "resources/cu.extxyz",
            "split": {"n_val": 3, "n_test": 3, "key": "part"},
        },
        "Cu": {"path": "resources/cu.extxyz", "labels": {"energy": "e", "forces": "f"}},
    },
    "sources": {
        "emt": copper.CONFIG["sources"]["emt"]
        | {
            # EMT takes any argument.
            "kwargs": {"model_dir": "resources/model"},
            "neutral_kwargs": {"txt": "emt.log"},
            "files": [{"path": "resources/emt.txt", "url": "https://host.invalid/emt.txt"}],
        },
        # Nothing uses it, so that its interpreter need not be there.
        "absent": {
            "title": "absent",
            "kind": "dft",
            "elements": ["Cu"],
            "calculator": "absent.Code",
            "python": "/nowhere/python",
        },
    },
    "labelling": {"chunk_size": CHUNK},
    "training": {"device": "cpu"},
    "experiments": {
        "fig3": copper.CONFIG["experiments"]["fig3"]
        | {"sources": ["emt"], "pretrain_sizes": [N_PRE], "sizes": [3]}
    },
}


def write_config(folder, change=lambda source: None):
    """Write the configuration, with a change to the source."""
    config = deepcopy(CONFIG)
    change(config["sources"]["emt"])
    (folder / "config" / "copper.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def labelled(checkout):
    """The repository in which a copper set, half of it repeated, has been labelled."""
    rng = np.random.default_rng(3)
    frames = []
    for i in range(20):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, rng=rng)
        # The last ten repeat the first: whatever their order, some chunks lack structures.
        frames.append(atoms if i < 10 else frames[i - 10].copy())
        frames[-1].info["part"] = "test" if i < 3 else "train"
    ase.io.write(checkout.folder / "resources" / "cu.extxyz", frames)
    (checkout.folder / "resources" / "emt.txt").write_text("parameters")
    for name in ("model", "model-2"):
        (checkout.folder / "resources" / name).mkdir()
        (checkout.folder / "resources" / name / "weights.bin").write_text("1 2 3")
    write_config(checkout.folder)
    options = ["--configfile", "config/copper.yaml", "--cores", "2"]
    checkout.snakemake(*options, "--set-threads", "label=2", "--", SET)
    return checkout


def would_run(labelled, rule):
    """Number of jobs of a rule that would run now."""
    return labelled.job_counts(SET, "--configfile", "config/copper.yaml").get(rule, 0)


def test_repeats_are_labelled_once_and_have_their_labels(labelled):
    folder = labelled.folder
    reference = folder / "results" / "copper" / "labels" / "references" / "emt.json"
    alone = json.loads(reference.read_text())
    with Store(folder / SET) as joined:
        assert joined.n_train == N_PRE
        assert (joined.duplicate_of != np.arange(len(joined))).any()
        for atoms in joined:
            bare = atoms.copy()
            bare.calc = EMT()
            expected = bare.get_potential_energy() - 4 * alone["Cu"]
            assert atoms.get_potential_energy() == pytest.approx(expected, abs=1e-6)
            np.testing.assert_allclose(atoms.get_forces(), bare.get_forces(), atol=1e-6)
        (made,) = joined.provenance["labels"]
    assert made["code"]["package"] == "ase" and made["calculator"] == "ase.calculators.emt.EMT"
    chunks = sorted(path.name for path in (folder / CHUNKS).glob("*.extxyz"))
    assert chunks == ["00000.extxyz", "00001.extxyz", "00002.extxyz", "eval.extxyz"]
    text = "".join((folder / CHUNKS / name).read_text() for name in chunks)
    assert text.count("emt_energy=") <= 10 < N_EVAL + N_PRE


@pytest.mark.parametrize(
    "change, again",
    [
        ({"time_limit": 10, "on_error": "skip", "title": "new", "install": "in ASE"}, 0),
        ({"python": "python3", "env": "envs/gap.yaml"}, 0),
        ({"files": [{"path": "resources/emt.txt", "url": "https://elsewhere.invalid/e"}]}, 0),
        ({"neutral_kwargs": {"txt": "elsewhere.log", "label": "run"}}, 0),
        ({"kwargs": {"asap_cutoff": True}}, 4),
        ({"kwargs": {"model_dir": "resources/model-2"}}, 4),
    ],
)
def test_what_makes_labels_again(labelled, change, again):
    write_config(labelled.folder, lambda source: source.update(change))
    try:
        assert would_run(labelled, "label") == again
    finally:
        write_config(labelled.folder)


def test_a_changed_model_makes_labels_again(labelled):
    """A folder that an argument names counts with its content, from the isolated atoms on."""
    how = labelled.folder / CHUNKS / "eval.provenance.json"
    before = json.loads(how.read_text())["parameter_files_sha256"]
    assert list(before) == ["model"]
    (labelled.folder / "resources/model/weights.bin").write_text("1 2 4")
    assert would_run(labelled, "isolated_atoms") == 1
    labelled.snakemake("--configfile", "config/copper.yaml", "--cores", "2", "--", SET)
    assert json.loads(how.read_text())["parameter_files_sha256"] != before
    assert would_run(labelled, "label") == 0
    (labelled.folder / "resources/model/.cache").write_text("hidden files are none of it")
    assert would_run(labelled, "label") == 0


def test_an_interpreter_that_is_not_there_matters_when_it_is_used(labelled):
    labels = (labelled.folder / SET).parent
    write_config(labelled.folder, lambda source: source.update(python="/nowhere/python"))
    try:
        options = ["-n", SET, "--configfile", "config/copper.yaml"]
        assert labelled.snakemake(*options).returncode == 0
        shutil.move(labels, labelled.folder / "moved")
        process = labelled.snakemake(*options, check=False)
        assert process.returncode != 0
        assert "error: sources.emt.python: no interpreter '/nowhere/python'" in process.stdout
    finally:
        shutil.move(labelled.folder / "moved", labels)
        write_config(labelled.folder)


CONDA = """#!/bin/sh
case "$*" in
  *info*) echo '{"conda_prefix": "/conda", "platform": "linux-64", "conda_version": "25.1.0"}' ;;
  *--version*) echo "conda 25.1.0" ;;
  *) echo '{"get": {"channel_priority": "strict"}}' ;;
esac
"""


def test_a_conda_environment_brings_the_interpreter(labelled, monkeypatch):
    conda = labelled.folder / "bin" / "conda"
    conda.parent.mkdir()
    conda.write_text(CONDA)
    conda.chmod(0o755)
    monkeypatch.setenv("PATH", f"{conda.parent}:{os.environ['PATH']}")
    source = {"python": "/nowhere/python", "env": "envs/gap.yaml"}
    write_config(labelled.folder, lambda entry: entry.update(source))
    options = ["-n", "--configfile", "config/copper.yaml", "-R", "isolated_atoms", "--", SET]
    try:
        assert labelled.snakemake(*options, check=False).returncode != 0
        output = labelled.snakemake("--sdm", "conda", *options).stdout
    finally:
        write_config(labelled.folder)
    assert "rule isolated_atoms" in output and "/nowhere" not in output
