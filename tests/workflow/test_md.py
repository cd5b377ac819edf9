"""Molecular dynamics with trained models through the workflow: copper, EMT and tiny networks."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
import time

import ase.io
import numpy as np
import pandas as pd
import pytest
import yaml
from ase.build import bulk

import copper

pytestmark = pytest.mark.slow

TEST = "results/copper/dynamics/heat"
SETTINGS = "results/copper/settings/dynamics~heat.yaml"
CONFIG = copper.CONFIG | {
    "datasets": {
        name: {
            "path": f"resources/{name}.extxyz",
            "labels": {"source": "emt"},
            "split": {"n_val": 3, "n_test": 4},
            "keep": ["density"],
        }
        for name in ("synthetic", "target")
    },
    "sources": {"emt": copper.CONFIG["sources"]["emt"]},
    "training": {"max_epochs": 8, "device": "cpu", "batch_size": 4, "learning_rate": 0.03},
    "experiments": {
        "fig3": copper.CONFIG["experiments"]["fig3"]
        | {"target": "target", "structures": "synthetic", "sources": ["emt"], "sizes": [6]}
    },
    "dynamics": {
        "heat": {
            "models": [{"experiment": "fig3", "n": [6], "kinds": ["direct", "finetune"]}],
            "replicas": 2,
            "start": {"dataset": "target", "nearest": {"density": 8.9}, "repeat": [2, 1, 1]},
            "stages": [{"from": 100, "to": 600, "ps": 0.05}, {"temperature": 600, "ps": 0.05}],
            "frame_every_ps": 0.01,
            "log_every_ps": 0.005,
            "limits": {"temperature_factor": 50, "energy_per_atom": 50},
            "snapshots": [0, 0.1],
        }
    },
}


def write(checkout, config):
    (checkout.folder / "config/heat.yaml").write_text(yaml.safe_dump(config))


def run(checkout, *targets, check=True):
    options = ["--configfile", "config/heat.yaml", "--cores", "2"]
    return checkout.snakemake(*options, "--", *targets, check=check)


def counts(checkout):
    return checkout.job_counts("md", "--configfile", "config/heat.yaml")


@pytest.fixture(scope="module")
def heated(copy_repository, tmp_path_factory):
    """A checkout in which the test has been run."""
    checkout = copy_repository(tmp_path_factory.mktemp("heat"))
    rng = np.random.default_rng(1)
    for name, n in (("synthetic", 20), ("target", 14)):
        frames = []
        for _ in range(n):
            atoms = bulk("Cu", cubic=True)
            atoms.set_cell(atoms.cell * rng.uniform(0.97, 1.03), scale_atoms=True)
            atoms.positions += rng.normal(scale=0.1, size=(4, 3))
            atoms.info["density"] = 63.546 * 4 / atoms.get_volume() * 1.66054
            frames.append(atoms)
        ase.io.write(checkout.folder / f"resources/{name}.extxyz", frames)
    write(checkout, CONFIG)
    run(checkout, "md")
    return checkout


def test_a_trajectory_for_every_model_and_replica(heated):
    outcomes = sorted((heated.folder / TEST).rglob("outcome.json"))
    assert [path.parent.name for path in outcomes] == ["replica~1", "replica~2"] * 2
    for path in outcomes:
        assert {p.name for p in path.parent.iterdir()} == {
            "trajectory.extxyz", "thermodynamics.csv", "coordination.csv", "outcome.json"
        }  # fmt: skip
        assert json.loads(path.read_text())["n_atoms"] == 8
    starts = [pd.read_csv(p.parent / "thermodynamics.csv")["kinetic_ev"][0] for p in outcomes]
    # The same velocities for every model in the same replica.
    assert starts[0] == starts[2] and starts[1] == starts[3] and starts[0] != starts[1]


def test_table_and_figure(heated):
    tables = heated.folder / "results/copper/tables"
    table = pd.read_csv(tables / "md-heat.csv")
    assert table["group"].tolist() == ["direct"] * 2 + ["fine-tuned"] * 2
    assert (table["time_ps"] <= 0.1).all()
    assert pd.read_csv(tables / "md-heat-survival.csv")["survival"][0] == 1
    page = (tables / "md-heat.md").read_text().split()
    assert "| fine-tuned | 2 |" in " ".join(page)
    for format in ("pdf", "png"):
        figure = heated.folder / f"results/copper/figures/md-heat.{format}"
        assert figure.stat().st_size > 5000


def test_what_was_made_says_what_with(heated):
    """As accept.py asks for."""
    line = [sys.executable, "workflow/scripts/accept.py", "--config", "config/heat.yaml", "-n"]

    def examined():
        return subprocess.run(line, cwd=heated.folder, capture_output=True, text=True).stdout

    assert examined() == "results/copper: 3 training runs accepted, 0 not, 0 not there\n"
    other = copy.deepcopy(CONFIG)
    other["dynamics"]["heat"]["limits"]["eight_fold"] = 0.5
    write(heated, other)
    assert examined().count("replica~1: it was made with another limits") == 2
    write(heated, CONFIG)


def test_what_changes_runs_again_and_no_more(heated):
    assert "Nothing to be done" in run(heated, "md").stdout
    for change, expected in (
        # Another engine, two replicas a job.
        ({"engine": "torch-sim"}, {"dynamics": 0, "dynamics_heat_1": 2, "dynamics_start": 0}),
        (
            {"engine": "torch-sim", "replicas": 3, "batch": 2},
            {"dynamics_heat_1": 2, "dynamics_heat_3": 2, "md_table": 1},
        ),
        ({"replicas": 3}, {"dynamics": 2, "md_table": 1, "md_figure": 1}),
        ({"snapshots": [0.05]}, {"dynamics": 0, "md_table": 0, "md_figure": 1}),
        ({"seed": 1}, {"dynamics": 4, "md_table": 1, "dynamics_start": 0}),
    ):
        other = copy.deepcopy(CONFIG)
        other["dynamics"]["heat"] |= change
        write(heated, other)
        new = counts(heated)
        assert {rule: new.get(rule, 0) for rule in expected} == expected, change
        assert not {"direct", "finetune", "prepare"} & set(new)
    write(heated, CONFIG)


def moving(heated, out, settings):
    """Return a finished trajectory, and the command that runs it again into another folder."""
    done = next((heated.folder / TEST).rglob("replica~1/outcome.json")).parent
    model = heated.folder / "results/copper/runs" / done.parent.relative_to(heated.folder / TEST)
    command = [sys.executable, "workflow/scripts/dynamics.py", "--model", model / "model.ckpt"]
    command += ["--start", heated.folder / TEST / "start.extxyz", "--settings", settings]
    command += ["--machine", "{device: cpu}", "--out", out.parent, "--checkpoint-seconds", "0"]
    return done, command


def test_a_stopped_job_goes_on(heated, tmp_path):
    """SIGTERM ends the program with 75; started again it goes on to the same trajectory."""
    out = tmp_path / "replica~1"
    done, command = moving(heated, out, SETTINGS)
    process = subprocess.Popen(command, cwd=heated.folder, stderr=subprocess.PIPE, text=True)
    while not (out / "state/checkpoint.npz").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75 and "stopped by SIGTERM" in errors
    again = subprocess.run(command, cwd=heated.folder, capture_output=True, text=True)
    assert again.returncode == 0 and "resuming after" in again.stderr
    for name in ("trajectory.extxyz", "thermodynamics.csv", "coordination.csv"):
        assert (out / name).read_bytes() == (done / name).read_bytes()


def test_a_failure_is_a_result(heated, tmp_path):
    """The program ends well and says what has failed; a start that breaks a limit is an error."""
    protocol = yaml.safe_load((heated.folder / SETTINGS).read_text())
    out = tmp_path / "replica~1"

    def moved(**limits):
        protocol["dynamics"]["limits"] |= limits
        (tmp_path / "settings.yaml").write_text(yaml.safe_dump(protocol))
        _, command = moving(heated, out, tmp_path / "settings.yaml")
        return subprocess.run(command, cwd=heated.folder, capture_output=True, text=True)

    process = moved(temperature_factor=0.01)
    assert process.returncode == 0 and "K, above 6 K" in process.stderr
    outcome = json.loads((out / "outcome.json").read_text())
    assert (outcome["status"], outcome["time_ps"]) == ("failed", 0)
    process = moved(eight_fold=0.01)
    refused = "already breaks a limit of the test: 8 of 8 atoms have 8 or more neighbours"
    assert process.returncode == 1 and refused in process.stderr


def test_replicas_together(heated):
    """One job a model: the trajectories of the engine ASE, until chaos magnifies the rounding."""
    pytest.importorskip("torch_sim", reason="torch-sim is not installed")
    other = copy.deepcopy(CONFIG)
    other["dynamics"]["heat"]["engine"] = "torch-sim"
    other["dynamics"]["together"] = other["dynamics"].pop("heat")
    write(heated, other)
    assert counts(heated)["dynamics_together_1"] == 2
    run(heated, "md")
    assert "Nothing to be done" in run(heated, "md").stdout
    # Another division into batches is no reason to run again.
    other["dynamics"]["together"]["batch"] = 1
    write(heated, other)
    assert "Nothing to be done" in run(heated, "md").stdout
    write(heated, CONFIG)
    outcomes = sorted((heated.folder / TEST).rglob("outcome.json"))
    for path in outcomes:
        folder = heated.folder / TEST.replace("heat", "together")
        mine = folder / path.relative_to(heated.folder / TEST)
        assert {p.name for p in mine.parent.iterdir()} == {p.name for p in path.parent.iterdir()}
        assert json.loads(mine.read_text())["batch"] == 2
        logs = [pd.read_csv(p.parent / "thermodynamics.csv") for p in (mine, path)]
        np.testing.assert_allclose(*(log.to_numpy()[:8] for log in logs), rtol=1e-4)


# ---------------------------------------------------------------- the shipped configurations


@pytest.mark.parametrize(("file", "trajectories"), [("config", 10), ("demo", 4)])
def test_shipped(checkout, file, trajectories):
    new = checkout.job_counts("md", "--configfile", f"config/{file}.yaml")
    assert new["dynamics"] == trajectories
    assert new["dynamics_start"] == new["md_table"] == new["md_figure"] == 1
