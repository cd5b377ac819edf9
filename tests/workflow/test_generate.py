"""Structures that the workflow makes, from the shipped configuration cut down to a tiny one."""

from __future__ import annotations

import copy
import subprocess
import sys

import pandas as pd
import pytest
import yaml
from ase.io import read

from pretraining.data.store import Store

NAME = "C-melt-quench"
FOLDER = f"results/generate/data/{NAME}"
RUNS = ["density~2_anneal~2000_replica~1", "density~3.2_anneal~2000_replica~1"]


@pytest.fixture(scope="module")
def config(root):
    """The shipped study with two trajectories of 16 atoms and half a picosecond."""
    config = yaml.safe_load((root / "config/generate.yaml").read_text())
    dataset = config["datasets"][NAME]
    dataset["generate"] |= {
        "atoms": 16,
        "densities": [2.0, 3.2],
        "anneal_temperatures": [2000],
        "stages": [
            {"temperature": 6000, "ps": 0.2},
            {"from": 6000, "to": "anneal", "ps": 0.1},
            {"temperature": "anneal", "ps": 0.2},
        ],
        "frame_every_ps": 0.05,
    }
    dataset["filters"] = [{"key": "time", "min": 0.2}]
    dataset["split"] = {"n_val": 2, "n_test": 2}
    config["experiments"]["fig3"]["pretrain_sizes"] = [10]
    return config


def write(checkout, config):
    (checkout.folder / "config/tiny.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture(scope="module")
def made(copy_repository, tmp_path_factory, config):
    """A checkout in which the tiny dataset has been generated and prepared."""
    checkout = copy_repository(tmp_path_factory.mktemp("generate"))
    write(checkout, config)
    checkout.output = run(checkout, "structures", f"{FOLDER}/prepared.h5").stdout
    return checkout


def run(checkout, *targets, check=True):
    options = ["--configfile", "config/tiny.yaml", "--cores", "2"]
    return checkout.snakemake(*options, "--", *targets, check=check)


def counts(checkout, target="structures"):
    return checkout.job_counts(target, "--configfile", "config/tiny.yaml")


def test_trajectories(made):
    folder = made.folder / FOLDER / "trajectories"
    suffixes = ("extxyz", "csv", "provenance.json")
    files = {f"{run}.{suffix}" for run in RUNS for suffix in suffixes}
    assert {path.name for path in folder.iterdir()} == files
    for name, density in zip(RUNS, (2.0, 3.2), strict=True):
        frames = read(folder / f"{name}.extxyz", ":")
        assert len(frames) == 11 and len(frames[0]) == 16
        assert frames[-1].info["time"] == 0.5
        assert {atoms.info["density"] for atoms in frames} == {density}
        log = pd.read_csv(folder / f"{name}.csv")
        assert log["target_k"].tolist()[::5] == [6000, 4000, 2000]
    assert "engine lammps" in made.output


def test_table_and_figure(made):
    table = pd.read_csv(made.folder / FOLDER / "trajectories.csv")
    assert table["run_id"].tolist() == RUNS
    assert table["energy_ev_per_atom"].between(-8, -3).all()
    for format in ("pdf", "png"):
        figure = made.folder / f"results/generate/figures/structures-{NAME}.{format}"
        assert figure.stat().st_size > 5000


def test_the_prepared_set_is_of_the_frames_after_the_melt(made):
    with Store(made.folder / FOLDER / "prepared.h5") as store:
        assert (store.n_val, store.n_test, store.n_train) == (2, 2, 10)
        runs = [store.info(i)["run_id"] for i in range(len(store))]
        times = [store.info(i)["time"] for i in range(len(store))]
    assert set(runs) == set(RUNS) and min(times) == 0.2


def test_a_second_run_has_nothing_to_do(made):
    assert "Nothing to be done" in run(made, "structures", f"{FOLDER}/prepared.h5").stdout


def test_what_was_made_says_what_with(made, config):
    """As accept.py asks for."""
    line = [sys.executable, "workflow/scripts/accept.py", "--config", "config/tiny.yaml", "-n"]

    def examined():
        return subprocess.run(line, cwd=made.folder, capture_output=True, text=True).stdout

    write(made, config)
    assert "not accepted" not in examined()
    hotter = copy.deepcopy(config)
    hotter["datasets"][NAME]["generate"]["stages"][0]["temperature"] = 7000
    write(made, hotter)
    refused = f"not accepted: data/{NAME}/trajectories: it was made with another stages"
    assert examined().count("not accepted") == 1 and refused in examined()


def test_another_density_makes_only_its_trajectory(made, config):
    larger = copy.deepcopy(config)
    larger["datasets"][NAME]["generate"]["densities"].append(2.6)
    write(made, larger)
    new = counts(made)
    assert new["generate"] == 1 and new["structures_figure"] == 1
    assert "isolated_atoms" not in new
    larger["datasets"][NAME]["split"]["n_test"] = 3
    larger["datasets"][NAME]["generate"]["densities"].pop()
    write(made, larger)
    new = counts(made, f"{FOLDER}/prepared.h5")
    assert new["prepare"] == 1 and "generate" not in new


def test_another_protocol_makes_all_anew(made, config):
    hotter = copy.deepcopy(config)
    hotter["datasets"][NAME]["generate"]["stages"][0]["temperature"] = 7000
    write(made, hotter)
    assert counts(made)["generate"] == 2


@pytest.mark.slow
def test_the_driving_source_labels_what_it_drove(made, config):
    """With the frames' own labels nothing is labelled again."""
    own = copy.deepcopy(config)
    own["sources"]["driven"] = {"title": "LCBOP", "kind": "empirical", "elements": ["C"]}
    own["sources"]["driven"]["own_labels"] = True
    keys = {"energy": "lcbop_lammps_energy", "forces": "lcbop_lammps_force"}
    own["datasets"][NAME]["labels"] = keys
    own["experiments"]["fig3"]["sources"] = ["driven"]
    own["results"] = "results/own"
    write(made, own)
    labels = f"results/own/labels/{NAME}/driven/npre~10.h5"
    assert not {"label", "chunk"} & set(counts(made, labels))
    run(made, labels)
    with Store(made.folder / labels) as store:
        energies = [store.arrays(i)["energy"] / 16 for i in store.indices("train")]
    assert len(energies) == 10 and -8 < min(energies) < max(energies) < -3


def test_a_failing_trajectory_stops_the_study(made, config):
    bad = copy.deepcopy(config)
    bad["datasets"][NAME]["generate"] |= {"timestep_fs": 25, "densities": [3.2]}
    bad["datasets"][NAME]["split"] = {"n_val": 1, "n_test": 1}
    bad["experiments"]["fig3"]["pretrain_sizes"] = [1]
    bad["results"] = "results/bad"
    write(made, bad)
    output = run(made, "structures", check=False).stdout
    errors = [line.strip() for line in output.splitlines() if "error: " in line]
    # Snakemake repeats the log of a failed job.
    assert len(set(errors)) == 1
    assert errors[0].startswith(f"error: {RUNS[1]}: source 'lcbop_lammps' failed at 0 ps")
    assert "Lost atoms" in errors[0] and "generate.exclude" in errors[0]
    kept = made.folder / f"results/bad/data/{NAME}/trajectories"
    assert not list(kept.glob("*.extxyz"))
    assert list((kept / f"{RUNS[1]}.state").glob("*.extxyz"))


# ---------------------------------------------------------------- the shipped configurations


@pytest.mark.slow
def test_the_shipped_dataset_has_546_jobs(checkout):
    options = ["--configfile", "config/generate.yaml"]
    new = checkout.job_counts("structures", *options)
    assert new["generate"] == 546 and new["isolated_atoms"] == 1
    assert not {"prepare", "label", "pretrain"} & set(new)
    assert checkout.job_counts(*options)["finetune"] == 80
