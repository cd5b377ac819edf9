"""The demo's label sources, checked and compared through Snakemake."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from ase.io import read

from pretraining.data.store import Store
from pretraining.labels.evaluate import make_calculator
from pretraining.study.sources import load_source

pytestmark = pytest.mark.slow

RESULTS = "results/sources"


@pytest.fixture(scope="module")
def study(root, copy_repository, tmp_path_factory):
    """A checkout in which two sources of the demo and a missing one were checked."""
    for name in ("lcbop_lammps", "gap_demo"):
        try:
            make_calculator(load_source(root / "config/demo.yaml", name))
        except ValueError as error:
            pytest.skip(str(error))
    checkout = copy_repository(tmp_path_factory.mktemp("sources"))
    config = yaml.safe_load((checkout.folder / "config/demo.yaml").read_text())
    sources = {name: config["sources"][name] for name in ("lcbop_lammps", "gap_demo")}
    sources["absent"] = sources["gap_demo"] | {
        "title": "absent",
        "calculator": "no_such.Calculator",
        "install": "pip install no-such-calculator",
    }
    config |= {"results": RESULTS, "sources": sources}
    config["check_sources"] = {"points": {"fast": {"dimer": 21, "crystal": 9}}}
    config["datasets"]["C-demo"]["split"] = {"n_test": 12, "n_val": 4}
    (checkout.folder / "config/sources.yaml").write_text(yaml.safe_dump(config))
    checkout.options = ["--configfile", "config/sources.yaml", "--cores", "2"]
    checkout.snakemake("check_sources", *checkout.options)
    return checkout


def test_the_page_has_numbers_and_cures(study):
    page = (study.folder / RESULTS / "checks/sources.md").read_text()
    assert "`absent` is not installed" in page and "pip install no-such-calculator" in page
    table = pd.read_csv(study.folder / RESULTS / "checks/sources.csv").set_index("source")
    lcbop = table.loc["lcbop_lammps"]
    # Los and Fasolino's potential: 3.566 Å and -7.35 eV/atom.
    assert lcbop["diamond_a"] == pytest.approx(3.566, abs=0.005)
    assert lcbop["diamond_energy"] == pytest.approx(-7.35, abs=0.01)
    assert lcbop["graphite_a"] == pytest.approx(2.459, abs=0.005)
    # Known of LAMMPS: exact near a crystal, not where coordinations are fractional.
    assert lcbop["consistent"] == "not when stretched"
    assert table.loc["gap_demo", "consistent"] == "yes"
    for name in ("sources.png", "sources.pdf"):
        assert (study.folder / RESULTS / "figures" / name).stat().st_size > 10_000


def test_only_what_is_missing_is_tried_again(study):
    counts = study.job_counts("check_sources", *study.options)
    assert counts == {"check_source": 1, "report_sources": 1, "check_sources": 1}
    study.snakemake("check_sources", *study.options)
    path = study.folder / RESULTS / "checks/sources/absent.json"
    result = json.loads(path.read_text())
    assert result["attempt"].startswith("after-")
    # Once it is there, it is left alone.
    path.write_text(json.dumps(result | {"status": "installed"}))
    assert "check_source" not in study.job_counts("check_sources", *study.options)


def test_sources_are_compared_with_the_labels(study):
    study.snakemake("compare_sources", *study.options)
    table = pd.read_csv(study.folder / RESULTS / "comparisons/C-demo.csv")
    row = table[(table["second"] == "gap_demo") & (table["config_type"] == "all")].iloc[0]
    assert (row["first"], row["structures"], row["left_out"]) == ("labels", 16, 0)
    # The GAP was fitted to the same DFT, LCBOP to something else.
    other = table[(table["first"] == "labels") & (table["config_type"] == "all")]
    assert row["force_rmse_ev_per_angstrom"] == other["force_rmse_ev_per_angstrom"].min()
    assert 50 < row["energy_rmse_mev_per_atom"] < 400
    # What source_error.py says of the same labels has the same definition.
    labels = study.folder / RESULTS / "labels/C-demo/gap_demo/chunks/eval.extxyz"
    with Store(study.folder / RESULTS / "data/C-demo/prepared.h5") as store:
        own = np.array([atoms.get_potential_energy() / len(atoms) for atoms in store][:16])
    found = read(labels, ":")
    difference = np.array([a.info["gap_demo_energy"] / len(a) for a in found]) - own
    shifted = 1000 * (difference - np.median(difference))
    assert row["energy_rmse_mev_per_atom"] == pytest.approx(np.sqrt(np.mean(shifted**2)), rel=1e-4)
