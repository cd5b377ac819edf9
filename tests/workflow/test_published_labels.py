"""A study whose pre-training labels are files that others have published."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from copper import CONFIG, add_files, run, structures, write
from pretraining.data.store import Store
from pretraining.operations.fit import examine
from pretraining.runtime.files import file_sha256
from pretraining.study.config import validate_study
from pretraining.study.grid import grid_table

pytestmark = pytest.mark.slow

MODEL = "structures~Cu-synthetic/transform~none/source~published/npre~12/seed~1/model.ckpt"
MODEL = f"results/copper/runs/pretrain/{MODEL}"
LABELS = "results/copper/labels/Cu-synthetic/published/npre~12.h5"
FILES = ("resources/emt-0.npz", "resources/emt-1.npz")


def publish(checkout, turn=1.0):
    """Publish EMT's labels of the structures from the fourth on, and the study that uses them."""
    frames = structures(30, 1, False)[4:]
    for atoms in frames:
        atoms.calc = EMT()
    atom = Atoms("Cu", calculator=EMT()).get_potential_energy()
    energy = np.array([atoms.get_potential_energy() - len(atoms) * atom for atoms in frames])
    # All structures have four atoms: a pickled array (n, 4, 3) of numbers.
    forces = np.array([turn * atoms.get_forces() for atoms in frames], dtype=object)
    entries = []
    for name, part in zip(FILES, (slice(0, 15), slice(15, None)), strict=True):
        path = checkout.folder / name
        np.savez_compressed(path, energy=energy[part], force=forces[part])
        entries.append({"path": name, "sha256": file_sha256(path)})
    config = copy.deepcopy(CONFIG)
    config["training"] |= {"max_epochs": 1}
    config["datasets"]["Cu-synthetic"]["filters"] = [{"key": "place", "min": 4}]
    config["sources"]["published"] = {
        **config["sources"]["emt"],
        "title": "published EMT",
        "calculator": "not.installed.here",
        "published_labels": {"files": entries, "verify_with": "lj"},
    }
    config["experiments"]["fig3"] |= {"sources": ["published"], "sizes": [3]}
    write(checkout, config)
    return config, energy, forces


@pytest.fixture(scope="module")
def study(copy_repository, tmp_path_factory):
    """A network pre-trained for an epoch."""
    checkout = copy_repository(tmp_path_factory.mktemp("published"))
    add_files(checkout)
    checkout.config, checkout.energy, checkout.forces = publish(checkout)
    checkout.output = run(checkout, MODEL).stdout
    return checkout


def test_a_network_is_pretrained_on_published_labels(study):
    assert (study.folder / MODEL).is_file()
    with Store(study.folder / LABELS) as store:
        assert (store.n_val, store.n_test, store.n_train) == (4, 2, 12)
        for row in range(len(store)):
            labels = store.arrays(row)
            place = labels["index"] - 4
            assert labels["energy"] == pytest.approx(study.energy[place])
            np.testing.assert_array_equal(labels["forces"], study.forces[place].astype(float))
    for name in FILES:
        assert f"{name}: beside lj its forces in" in study.output


def test_nothing_is_computed_but_the_comparison(study):
    labelled = (study.folder / "results/copper/labels").glob("*/*/chunks/*.extxyz")
    names = {str(path.relative_to(study.folder / "results/copper/labels")) for path in labelled}
    assert names == {"Cu-synthetic/lj/chunks/eval.extxyz"}
    assert study.job_counts(MODEL, "--configfile", "config/copper.yaml") == {}


def test_other_files_are_not_accepted(study, monkeypatch):
    monkeypatch.chdir(study.folder)
    config = validate_study(study.config, "copper.yaml")
    grid = grid_table(config)
    assert examine(config, grid) == []
    first, second = (Path(name).read_bytes() for name in FILES)
    Path(FILES[0]).write_bytes(second)
    (stamp, labels) = examine(config, grid)
    Path(FILES[0]).write_bytes(first)
    assert labels.what == LABELS.removeprefix("results/copper/")
    assert labels.why == f"{FILES[0]} was another file there"


def test_files_of_the_wrong_sign_stop_the_study_in_one_line(study):
    publish(study, turn=-1.0)
    done = run(study, LABELS, "--quiet", "all", check=False)
    (error,) = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1
    assert error.startswith(f"error: {FILES[0]}: beside lj its forces in")
    assert error.endswith("the opposite sign: get forces, not gradients")


def refused(study, change):
    config = copy.deepcopy(study.config)
    change(config)
    write(study, config)
    done = run(study, "-n", check=False)
    assert done.returncode == 1
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"verify_with": "vasp"}, "published_labels.verify_with: 'vasp' is not one of"),
        ({"verify_with": "published"}, "verify_with: 'published' has no calculator to compare"),
        ({"verify_with": None}, "nothing to compare them with: give verify_with, a source with"),
        ({"order": "file"}, "published_labels.order: 'filtered' was expected"),
        ({"files": []}, "published_labels.files: "),
    ],
)
def test_an_entry_that_cannot_work_is_refused_before_anything_runs(study, entry, message):
    def change(config):
        labels = config["sources"]["published"]["published_labels"] | entry
        labels = {key: value for key, value in labels.items() if value is not None}
        config["sources"]["published"]["published_labels"] = labels

    error = refused(study, change)
    assert error.startswith("error: config/copper.yaml: ") and message in error
