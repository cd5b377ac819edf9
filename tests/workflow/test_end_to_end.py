"""From structures to Table 1 on the CPU: copper, two calculators of ASE and a tiny network."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from copper import CONFIG, add_files, counts, run, write


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
    assert list(cells.columns) == ["n", "source", "mean", "std", "count", "flagged"]
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


def test_a_fresh_checkout_of_the_same_code_reruns_nothing(study):
    for file in (study.folder / "workflow").rglob("*"):
        file.touch()
    assert "Nothing to be done" in run(study).stdout


def test_a_new_seed_trains_only_its_runs(study):
    config = json.loads(json.dumps(CONFIG))
    config["experiments"]["fig3"]["finetune_seeds"].append(2)
    write(study, config)
    new = counts(study)
    assert new.pop("finetune") == 4
    assert not {"pretrain", "direct", "label", "prepare", "join_labels"} & set(new)


def test_a_larger_size_labels_and_trains_only_its_own(study):
    config = json.loads(json.dumps(CONFIG))
    config["experiments"]["fig3"]["pretrain_sizes"].append(20)
    write(study, config)
    new = counts(study)
    # Two chunks of 8 were labelled for 12 structures; 20 need a third.
    assert new["label"] == 2 and new["pretrain"] == 2 and new["finetune"] == 4
    assert not {"direct", "prepare"} & set(new)


def test_other_training_settings_retrain_without_labelling_again(study):
    config = json.loads(json.dumps(CONFIG))
    config["training"]["learning_rate"] = 0.005
    write(study, config)
    new = counts(study)
    assert (new["pretrain"], new["direct"], new["finetune"]) == (2, 2, 4)
    assert not {"label", "prepare", "join_labels"} & set(new)


def test_another_device_retrains_nothing(study):
    config = json.loads(json.dumps(CONFIG))
    config["training"] |= {"device": "auto", "checkpoint_seconds": 5}
    write(study, config)
    assert not {"pretrain", "direct", "finetune"} & set(counts(study))


def test_a_change_of_one_kind_of_run_leaves_the_others(study):
    config = json.loads(json.dumps(CONFIG))
    config["training"]["direct"] = {"max_epochs": 4}
    config["transforms"] = {"Ag": {"elements": {"Cu": "Ag"}}}
    write(study, config)
    new = counts(study)
    assert new["direct"] == 2 and not {"pretrain", "finetune"} & set(new)


def test_another_title_redraws_only(study):
    config = json.loads(json.dumps(CONFIG))
    config["sources"]["lj"]["title"] = "LJ"
    write(study, config)
    assert set(counts(study)) <= {
        *("settings", "results_grid", "collect_runs", "learning_curves", "table1"),
        *("efficiency", "cost", "students", "grid_table", "all"),
    }


def test_a_larger_size_of_the_target_trains_only_its_runs(study):
    config = json.loads(json.dumps(CONFIG))
    config["experiments"]["fig3"]["sizes"].append(10)
    write(study, config)
    new = counts(study)
    assert new["direct"] == 1 and new["finetune"] == 2
    assert not {"pretrain", "label", "prepare"} & set(new)


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
