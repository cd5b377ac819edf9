"""A specialised and an alchemical experiment on the CPU: two metals, EMT and a tiny network."""

from __future__ import annotations

import ase.io
import numpy as np
import pandas as pd
import pytest
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

import copper

pytestmark = pytest.mark.slow

SHARED = copper.CONFIG["experiments"]["fig3"]
SHARED = SHARED | {"structures": "synthetic", "sources": ["emt"], "sizes": [3]}
LABELS = {"labels": {"energy": "energy", "forces": "forces"}, "energy_reference": {"source": "emt"}}
CONFIG = copper.CONFIG | {
    "results": "results/metals",
    "datasets": {
        "synthetic": {"path": "resources/synthetic.extxyz", "split": {"n_val": 4, "n_test": 2}},
        "dense": {"path": "resources/dense.extxyz", "split": {"n_val": 4, "n_test": 5}, **LABELS},
        "loose": {"path": "resources/loose.extxyz", "split": {"n_val": 4, "n_test": 7}, **LABELS},
        "Ag": {"path": "resources/ag.extxyz", "split": {"n_val": 4, "n_test": 6}, **LABELS},
    },
    "sources": {"emt": copper.CONFIG["sources"]["emt"] | {"elements": ["Cu", "Ag"]}},
    "transforms": {
        "Ag": {"elements": {"Cu": "Ag"}},
        "Ag-x1.13": {"elements": {"Cu": "Ag"}, "scale": 1.13, "energy_shift": {"Ag": 0.5}},
    },
    "experiments": {
        "special": {**SHARED, "target": "dense", "also_test": ["loose"]},
        "other": {
            **SHARED,
            "target": "Ag",
            "transforms": ["Ag", "Ag-x1.13"],
            "compare": "pretrain_size",
        },
    },
    "figures": {"lines": True},
}


def structures(element, n, seed, strain):
    """Return strained and rattled cells of four atoms, with EMT's energies and forces."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        atoms = bulk(element, cubic=True)
        change = strain * np.eye(3) + rng.normal(scale=0.03, size=(3, 3))
        atoms.set_cell(atoms.cell @ change, scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=(4, 3))
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        yield atoms


@pytest.fixture(scope="module")
def study(copy_repository, tmp_path_factory):
    """A finished study in a checkout of its own."""
    checkout = copy_repository(tmp_path_factory.mktemp("panels"))
    made = [("synthetic", "Cu", 1.0), ("dense", "Cu", 0.96), ("loose", "Cu", 1.05), ("ag", "Ag", 1)]
    for seed, (name, element, strain) in enumerate(made):
        path = checkout.folder / f"resources/{name}.extxyz"
        ase.io.write(path, list(structures(element, 24, seed, strain)))
    (checkout.folder / "config/metals.yaml").write_text(yaml.safe_dump(CONFIG))
    run(checkout)
    return checkout


def run(checkout, *arguments):
    return checkout.snakemake("--configfile", "config/metals.yaml", "--cores", "2", *arguments)


def test_models_are_tested_where_they_were_not_trained(study):
    runs = pd.read_csv(study.folder / "results/metals/tables/special-runs.csv")
    kinds = runs["kind"].value_counts()
    assert dict(kinds) == {"finetune": 1, "direct": 1, "transfer": 2, "pretrain": 2, "source": 2}
    transfer = runs[runs["kind"] == "transfer"]
    assert set(transfer["target"]) == {"loose"} and set(transfer["trained_on"]) == {"dense"}
    shifted = transfer["test_energy_shifted_rmse"]
    assert (shifted <= transfer["test_energy_rmse"]).all() and (shifted > 0).all()
    # EMT is what made the labels: it has no error on either test set.
    assert (runs.loc[runs["kind"] == "source", "test_force_rmse"] < 1e-6).all()


def test_tables_and_figures_are_there(study):
    results = study.folder / "results/metals"
    for name in ("special", "other", "students", "time-special", "time-other"):
        for suffix in ("png", "pdf"):
            assert (results / f"figures/{name}.{suffix}").stat().st_size > 5_000
    forgetting = pd.read_csv(results / "tables/forgetting.csv")
    row = forgetting.set_index(["metric", "aggregate"]).loc[("force", "best")]
    assert row["seeds_finetuned"] == 1 and row["seeds_direct"] == 1
    assert row["ratio_direct"] == pytest.approx(row["rmse_direct"] / row["rmse_pretrained"])
    panels = pd.read_csv(results / "tables/special-panels.csv")
    assert set(panels["panel"]) == {"a", "c"}
    panels = pd.read_csv(results / "tables/other-panels.csv")
    assert set(panels["panel"]) == {"a", "b", "d"}
    assert set(panels.loc[panels["panel"] == "b", "transform"]) == {"Ag-x1.13"}
    cost = pd.read_csv(results / "tables/cost.csv")
    by_experiment = cost[cost["kind"] == "experiment"].set_index("experiment")["runs"]
    assert by_experiment.to_dict() == {"special": 3, "other": 5}


def test_a_parity_plot_by_its_path(study):
    model = "direct/target~dense/source~none/n~3/seed~1"
    run(study, f"results/metals/figures/parity/target~loose/{model}.png")
    stored = np.load(study.folder / f"results/metals/predictions/target~loose/{model}.npz")
    assert len(stored["energy"]) == 7 and stored["forces"].shape == (28, 3)


def test_a_second_run_has_nothing_to_do(study):
    assert "Nothing to be done" in run(study).stdout
