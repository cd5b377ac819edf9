"""From structures to Table 1 on the CPU: copper, two calculators of ASE and a tiny network."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import copper
from copper import add_files, counts, run, write
from pretraining.data.energy_references import read_reference
from pretraining.data.store import Store
from pretraining.dynamics.stability.survival import read_counts, summarise
from pretraining.figures.dynamics import snapshots
from pretraining.labels.chunks import join
from pretraining.results.runs_table import read_metrics
from pretraining.runtime.errors import UserError
from pretraining.training.network.checkpoint import load_model

CONFIG = copper.CONFIG | {
    "datasets": copper.CONFIG["datasets"]
    | {"Cu": copper.CONFIG["datasets"]["Cu"] | {"keep": ["place"]}},
    "dynamics": {
        "heat": {
            "models": [{"experiment": "fig3", "kinds": ["direct"], "n": [3]}],
            "start": {"dataset": "Cu", "nearest": {"place": 0}},
            "stages": [{"temperature": 300, "ps": 0.01}],
            "log_every_ps": 0.005,
            "frame_every_ps": 0.005,
        }
    },
}


@pytest.fixture(scope="module")
def study(copy_repository, tmp_path_factory):
    """A finished study in a checkout of its own."""
    checkout = copy_repository(tmp_path_factory.mktemp("study"))
    add_files(checkout)
    write(checkout, CONFIG)
    checkout.output = run(checkout).stdout
    return checkout


def table(study, name):
    return pd.read_csv(study.folder / f"results/copper/tables/{name}.csv")


def test_every_result_is_a_row(study):
    runs = table(study, "runs")
    eight = ["kind", "target", "source", "npre", "n", "seed"]
    eight += ["test_energy_rmse", "test_force_rmse"]
    assert set(eight) <= set(runs.columns)
    kinds = runs["kind"].value_counts()
    assert dict(kinds) == {"finetune": 4, "direct": 2, "pretrain": 2, "source": 2}
    assert np.isfinite(runs[["test_energy_rmse", "test_force_rmse"]].to_numpy()).all()
    assert (runs.loc[runs["kind"] == "direct", "source"] == "none").all()


def test_the_source_that_made_the_labels_has_no_error(study):
    runs = table(study, "runs").set_index(["kind", "source"])
    # The energy reference, the labels and the test set went three ways and meet again.
    assert runs.loc[("source", "emt"), "test_energy_rmse"] < 1e-3
    assert runs.loc[("source", "emt"), "test_force_rmse"] < 1e-6
    assert runs.loc[("source", "lj"), "test_force_rmse"] > 0.01


def test_table1(study):
    cells = table(study, "table1")
    columns = ["n", "source", "mean", "std", "count", "flagged", "unconverged"]
    assert list(cells.columns) == columns
    assert len(cells) == 6 and (cells["count"] == 1).all()
    runs = table(study, "runs")
    direct = runs[(runs["kind"] == "direct") & (runs["n"] == 3)]["test_energy_rmse"].item()
    cell = cells[(cells["n"] == 3) & (cells["source"] == "none")]["mean"].item()
    assert cell == pytest.approx(direct, rel=1e-6)


def test_every_artefact_is_there(study):
    results = study.folder / "results/copper"
    for name in ["figures/fig3.pdf", "figures/fig3.png", "tables/table1.md", "tables/table1.tex"]:
        assert (results / name).stat().st_size > 100, name
    for name in ["tables/efficiency.csv", "tables/cost.csv"]:
        assert (results / name).stat().st_size > 20, name
    for folder in (results / "runs").glob("*/**/seed~1"):
        assert {"model.ckpt", "metrics.json", "curve.csv"} <= {p.name for p in folder.iterdir()}
        assert not (folder / "state").exists()


def test_runs_record_what_they_are(study):
    path = study.folder / "results/copper/runs/direct/target~Cu/source~none/n~3/seed~1"
    metrics = json.loads((path / "metrics.json").read_text())
    assert metrics["kind"] == "direct" and metrics["n"] == 3 and metrics["seed"] == 1
    assert metrics["device"] == "cpu" and metrics["diverged"] is False
    assert len(pd.read_csv(path / "curve.csv")) == metrics["epochs"] + 1


def test_a_second_run_has_nothing_to_do(study):
    assert "Nothing to be done" in run(study).stdout


@pytest.mark.slow
def test_shipped_runs_redraw_the_study(study, tmp_path):
    """The tables of the runs themselves, of each experiment and of the cost are the same.

    They lie in a folder outside the repository.
    """
    again = tmp_path / "scratch/again"
    script = [sys.executable, "workflow/scripts/ship.py", "--config", "config/copper.yaml"]
    shipped = subprocess.run([*script, "--out", "shipped.csv"], cwd=study.folder, check=False)
    assert shipped.returncode == 0
    run(study, "--config", "metrics_from=shipped", "shipped=shipped.csv", f"results={again}")
    assert not (again / "runs").exists() and (again / "figures/fig3.png").is_file()
    files = [f"tables/{name}" for name in ("runs.csv", "fig3-runs.csv", "table1.md", "cost.csv")]
    for name in [*files, "tables/fig3-panels.csv"]:
        assert (again / name).read_text() == (study.folder / "results/copper" / name).read_text()
    # A run that is not shipped is missing.
    table = (study.folder / "shipped.csv").read_text().splitlines()
    kept = [line for line in table if not line.startswith("direct,Cu,none,0,3,")]
    assert len(kept) == len(table) - 1
    (study.folder / "shipped.csv").write_text("\n".join(kept))
    run(study, "--config", "metrics_from=shipped", "shipped=shipped.csv", f"results={again}")
    assert "– (0/1)" in (again / "tables/table1.md").read_text()
    process = run(study, "-n", "--config", "metrics_from=shipped", check=False)
    assert process.returncode == 1
    last = process.stdout.strip().splitlines()[-1]
    assert last.endswith("the study ships no results; name their table in the key 'shipped'")


def test_a_fresh_checkout_of_the_same_code_reruns_nothing(study):
    for file in (study.folder / "workflow").rglob("*"):
        file.touch()
    assert "Nothing to be done" in run(study).stdout


def change(path, value):
    """Return a function that sets an entry of a configuration."""

    def edit(config):
        *keys, last = path.split(".")
        for key in keys:
            config = config.setdefault(key, {})
        config[last] = value

    return edit


# What follows from a change of the runs, of their number, and of a dynamics test.
TABLES = {"collect_runs": 2, "cost": 1, "efficiency": 1, "students": 1, "table1": 1}
TABLES["learning_curves"] = 1
GRID = {"settings": 1, "grid_table": 1, "results_grid": 2, **TABLES}
SPLIT = GRID | {"settings": 2, "prepare": 1}
# Drawn anew after almost any change; other tests hold what they show.
DRAWN = ("all", "summary", "time_figure", "angles_figure", "surface_figure", "predictions")
MD = {"dynamics": 1, "md_table": 1, "md_figure": 1}
PRETRAINED = {"pretrain": 2, "evaluate": 2, "finetune": 4}
TRAININGS = PRETRAINED | {"direct": 2} | MD | TABLES


@pytest.mark.parametrize(
    ("key", "value", "jobs"),
    [
        # Where and how runs are carried out, and what is drawn beside the curves.
        ("training.device", "auto", {}),
        ("training.checkpoint_seconds", 5, {}),
        ("figures.aggregate", "mean", {"learning_curves": 1, "students": 1}),
        ("figures.lines", True, {"learning_curves": 1}),
        ("experiments.fig3.compare", "pretrain_size", {"learning_curves": 1}),
        ("cost.power_w", 200, {"cost": 1}),
        ("sources.lj.title", "LJ", GRID | {"settings": 2, "md_figure": 1}),
        ("datasets.Cu.title", "Copper", GRID | {"settings": 2, "md_figure": 1}),
        ("sources.lj.time_limit", 50, GRID),
        # The procedure, for all runs or for those of one kind.
        ("training.patience", 30, TRAININGS | {"settings": 3}),
        ("network.num_features", 8, TRAININGS | {"settings": 3}),
        ("training.direct", {"max_epochs": 4}, {"settings": 1, "direct": 2} | MD | TABLES),
        ("training.finetune", {"max_epochs": 4}, {"settings": 1, "finetune": 4} | TABLES),
        ("training.pretrain", {"max_epochs": 4}, {"settings": 1} | PRETRAINED | TABLES),
        # More runs: theirs alone.
        ("experiments.fig3.finetune_seeds", [1, 2], GRID | {"finetune": 4}),
        ("experiments.fig3.direct_seeds", [1, 2], GRID | {"direct": 2} | MD),
        ("experiments.fig3.pretrain_seeds", [1, 2], GRID | PRETRAINED),
        ("experiments.fig3.sizes", [3, 6, 10], GRID | {"direct": 1, "finetune": 2}),
        # Two chunks of 8 were labelled for 12 structures; 20 need a third.
        (
            "experiments.fig3.pretrain_sizes",
            [12, 20],
            GRID | PRETRAINED | {"chunk": 1, "label": 2, "join_labels": 2},
        ),
        ("experiments.fig3.sizes", [3], GRID),
        ("transforms", {"Ag": {"elements": {"Cu": "Ag"}}}, GRID | {"settings": 2, "md_figure": 1}),
        # Labels of one source, and what has learned from them.
        (
            "sources.lj.kwargs.epsilon",
            0.5,
            GRID
            | {"settings": 2, "isolated_atoms": 1, "label": 4, "join_labels": 1, "pretrain": 1}
            | {"source_error": 1, "evaluate": 1, "finetune": 2},
        ),
        # Chunks of another size are others; their labels are joined to the same sets.
        (
            "labelling.chunk_size",
            16,
            PRETRAINED | {"chunk": 3, "label": 6, "join_labels": 2, "source_error": 2} | TABLES,
        ),
        # Another test set of the target, or another pool to pre-train on.
        (
            "datasets.Cu.split.seed",
            7,
            SPLIT
            | {"direct": 2, "finetune": 4, "evaluate": 2, "chunk": 1, "label": 2}
            | {"source_error": 2, "dynamics_start": 1}
            | MD,
        ),
        (
            "datasets.Cu-synthetic.split.seed",
            7,
            SPLIT | PRETRAINED | {"chunk": 3, "label": 6, "join_labels": 2},
        ),
        # A dynamics test.
        ("dynamics.heat.stages", [{"temperature": 400, "ps": 0.01}], MD | {"settings": 1}),
        ("dynamics.heat.limits", {"min_distance": 0.5}, MD | {"settings": 1}),
        ("dynamics.heat.replicas", 2, MD),
        ("dynamics.heat.title", "Heat", {"md_figure": 1}),
    ],
)
def test_a_change_makes_again_what_it_concerns(study, key, value, jobs):
    config = json.loads(json.dumps(CONFIG))
    change(key, value)(config)
    write(study, config)
    found = {rule: number for rule, number in counts(study).items() if rule not in DRAWN}
    assert found == jobs


RUN = "runs/direct/target~Cu/source~none/n~3/seed~1"
PRE = "structures~Cu-synthetic/transform~none/source~emt/npre~12/seed~1"
CHUNKS = "labels/Cu-synthetic/emt/chunks"
HEAT = "dynamics/heat/direct/target~Cu/source~none/n~3/seed~1/replica~1"


def joined(path):
    """Join the chunks of a study, the folder of one of which is given."""
    folder = path.parents[4]
    files = [path.parent / f"{name}.extxyz" for name in ("eval", "00000", "00001")]
    made = [file.with_suffix(".provenance.json") for file in files]
    with Store(folder / "data/Cu-synthetic/prepared.h5") as store:
        join(store, "emt", files, folder / "joined.h5", n=12, provenance=made)


@pytest.mark.parametrize("left", ["half", "nothing"])
@pytest.mark.parametrize(
    ("file", "read"),
    [
        (f"{RUN}/model.ckpt", load_model),
        (f"runs/pretrain/{PRE}/model.ckpt", load_model),
        (f"{RUN}/metrics.json", read_metrics),
        ("data/Cu/prepared.h5", Store),
        ("labels/Cu-synthetic/emt/npre~12.h5", Store),
        ("labels/references/emt.json", read_reference),
        (f"{CHUNKS}/00000.extxyz", joined),
        (f"{CHUNKS}/00000.provenance.json", joined),
        (f"{HEAT}/outcome.json", lambda path: summarise([path])),
        (f"{HEAT}/coordination.csv", lambda path: read_counts(path.parent)),
        (f"{HEAT}/trajectory.extxyz", lambda p: snapshots(pd.Series({"folder": p.parent}), [0])),
    ],
)
def test_a_file_that_is_cut_short_is_named_with_the_cure(study, tmp_path, file, read, left):
    results = tmp_path / "results"
    shutil.copytree(study.folder / "results/copper", results)
    path = results / file
    read_whole = path.read_bytes()
    path.write_bytes(read_whole[: len(read_whole) // 2] if left == "half" else b"")
    with pytest.raises(UserError, match="anew.* with `snakemake … -R ") as error:
        read(path)
    assert str(path.parent) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
def test_a_run_whose_metrics_are_cut_short_is_made_again_alone(study):
    write(study, CONFIG)
    path = study.folder / "results/copper" / RUN / "metrics.json"
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:300])
    process = run(study, check=False)
    message = f"error: {path.relative_to(study.folder)} is damaged (JSONDecodeError"
    assert process.returncode != 0 and message in process.stdout
    assert "Traceback" not in process.stdout
    cure = ["-R", str(path.relative_to(study.folder))]
    found = {rule: number for rule, number in counts(study, *cure).items() if rule not in DRAWN}
    assert found == {"direct": 1} | MD | TABLES
    run(study, *cure)
    again = json.loads(path.read_text())
    assert again["test"] == whole["test"] and again["config_hash"] == whole["config_hash"]


@pytest.mark.slow
def test_a_grid_larger_than_the_pool_stops_before_training(study):
    config = json.loads(json.dumps(CONFIG))
    config["experiments"]["fig3"]["sizes"] = [3, 25]
    write(study, config)
    process = run(study, check=False)
    assert process.returncode != 0
    assert "error: the grid needs 25 training structures of 'Cu'" in process.stdout
    # A split that leaves enough is not held to what the old one left.
    config["datasets"]["Cu"]["split"] = {"n_val": 2, "n_test": 2}
    write(study, config)
    assert counts(study)["prepare"] == 1
    config["datasets"]["Cu"]["split"] = CONFIG["datasets"]["Cu"]["split"]
    # Nor does a study that has prepared nothing yet get further than that.
    config["results"] = "results/other"
    write(study, config)
    process = run(study, check=False)
    assert process.returncode != 0
    assert "error: dataset 'Cu'" in process.stdout and "25" in process.stdout
    assert "rule direct" not in process.stdout


@pytest.mark.slow
def test_figures_from_what_has_finished(study):
    config = json.loads(json.dumps(CONFIG))
    config["experiments"]["fig3"]["finetune_seeds"].append(3)
    config["allow_missing"] = True
    write(study, config)
    output = run(study).stdout
    assert "rule finetune" not in output
    runs = table(study, "runs")
    assert (runs["status"] == "missing").sum() == 4


def test_the_report_is_made(study):
    write(study, CONFIG)
    run(study)
    run(study, "--report", "report.html")
    text = (study.folder / "report.html").read_text()
    assert "fig3" in text and len(text) > 100_000
