"""A target without labels, labelled by one of the configured sources."""

from __future__ import annotations

import copy
import json

import ase.io
import numpy as np
import pytest
import yaml
from ase.calculators.emt import EMT

from copper import CONFIG, structures
from pretraining.data.store import Store

pytestmark = pytest.mark.slow

RUN = "results/copper/runs/direct/target~Cu/source~none/n~3/seed~1/metrics.json"
ERROR = "results/copper/evaluations/target~Cu/source~lj/metrics.json"


@pytest.fixture(scope="module")
def study(copy_repository, tmp_path_factory):
    """A checkout in which EMT has labelled the target and a network was trained on it."""
    checkout = copy_repository(tmp_path_factory.mktemp("labelled"))
    config = copy.deepcopy(CONFIG)
    config["datasets"]["Cu"]["labels"] = {"source": "emt"}
    del config["datasets"]["Cu"]["energy_reference"]
    known = {"elements": ["Cu", "Li"], "isolated_atom": {"energies": {"Li": 0.0}}}
    config["sources"]["emt"] |= {"on_error": "skip", **known}
    config["sources"]["lj"] |= {"elements": ["Cu", "Li"]}
    frames = structures(30, 2, labelled=False)
    # EMT knows no lithium, so that a test structure and one of the pool get no label.
    order = np.random.RandomState(42).permutation(30)
    for place in (-1, 5):
        frames[order[place]].numbers[0] = 3
    ase.io.write(checkout.folder / "resources/cu-synthetic.extxyz", structures(30, 1, False))
    ase.io.write(checkout.folder / "resources/cu.extxyz", frames)
    (checkout.folder / "config/labelled.yaml").write_text(yaml.safe_dump(config))
    checkout.config = config
    checkout.snakemake("--configfile", "config/labelled.yaml", "--cores", "2", RUN, ERROR)
    return checkout


def test_labels_are_those_of_the_source(study):
    with Store(study.folder / "results/copper/labels/Cu/emt/n~3.h5") as store:
        assert (store.n_val, store.n_test, store.n_train) == (4, 5, 3)
        atom = ase.Atoms("Cu", calculator=EMT()).get_potential_energy()
        for row in range(len(store)):
            atoms, arrays = store[row], store.arrays(row)
            atoms.calc = EMT()
            expected = atoms.get_potential_energy() - len(atoms) * atom
            assert arrays["energy"] == pytest.approx(expected, abs=1e-6)
            np.testing.assert_allclose(arrays["forces"], atoms.get_forces(), atol=1e-6)


def test_a_network_learns_from_them(study):
    metrics = json.loads((study.folder / RUN).read_text())
    assert np.isfinite(metrics["test"]["force_rmse_ev_per_angstrom"])


def test_another_source_is_compared_with_them(study):
    metrics = json.loads((study.folder / ERROR).read_text())
    assert metrics["test"]["n_structures"] == 5
    assert metrics["test"]["force_rmse_ev_per_angstrom"] > 0.1


def test_paths_may_be_relative_to_the_configuration(study):
    folder = study.folder / "studies/copper"
    folder.mkdir(parents=True)
    config = copy.deepcopy(study.config)
    for name, file in [("Cu", "cu.extxyz"), ("Cu-synthetic", "cu-synthetic.extxyz")]:
        (study.folder / "resources" / file).rename(folder / file)
        config["datasets"][name]["path"] = f"{{config}}/{file}"
    config["sources"]["lj"]["env"] = "{config}/lj.yaml"
    (folder / "lj.yaml").write_text("dependencies: [ase]\n")
    (folder / "study.yaml").write_text(yaml.safe_dump(config))
    output = study.snakemake("-n", "-F", ERROR, "--configfile", "studies/copper/study.yaml").stdout
    assert "studies/copper/cu.extxyz" in output
    assert "{config}" not in output
