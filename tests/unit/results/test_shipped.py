"""The table of finished runs that is shipped with a study."""

from __future__ import annotations

import json

from pretraining.results.runs_table import read_runs

RUN = "runs/direct/target~C-GAP-17-PBE/source~none/n~25/seed~1"
PRETRAINING = "runs/pretrain/structures~C-demo-synthetic/transform~none/source~gap_demo/npre~300"
PRETRAINING += "/seed~42"


def finish(folder, **identity):
    """Write the metrics of a run."""
    errors = {"energy_rmse_mev_per_atom": 70.0, "force_rmse_ev_per_angstrom": 0.9}
    folder.mkdir(parents=True)
    metrics = identity | {"test": errors, "wall_time_s": 9.0}
    (folder / "metrics.json").write_text(json.dumps(metrics))


def test_only_what_has_finished_is_shipped(root, script, tmp_path):
    results, out = tmp_path / "results", tmp_path / "runs.csv"
    options = ["--config", root / "config/replication.yaml", "--results", results, "--out", out]
    message = f"error: {results}: no run of the study has finished there\n"
    assert script("ship", *options) == (1, message)
    assert not out.exists()
    finish(results / RUN, kind="direct", n=25, seed=1)
    assert script("ship", *options)[0] == 0
    (run,) = read_runs(out).to_dict("records")
    assert (run["kind"], run["target"], run["n"], run["seed"]) == ("direct", "C-GAP-17-PBE", 25, 1)
    assert (run["test_energy_rmse"], run["wall_time_s"]) == (70.0, 9.0)


def test_pretrainings_count_for_the_cost(root, script, tmp_path):
    results, out = tmp_path / "results", tmp_path / "runs.csv"
    finish(results / PRETRAINING, kind="pretrain")
    options = ["--config", root / "config/demo.yaml", "--results", results]
    assert script("ship", *options, "--out", out)[0] == 0
    (run,) = read_runs(out).to_dict("records")
    assert (run["kind"], run["target"], run["npre"]) == ("pretrain", "", 300)
    status, message = script("ship", *options)
    assert status == 1 and message.endswith(
        "no key 'shipped', the table to write: add it or give --out\n"
    )
