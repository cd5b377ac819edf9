"""``check.py`` names the faults of a configuration as Snakemake does, and says what is planned."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import signal
import subprocess
import time

import pytest
import yaml

import copper
from scripts import SCRIPTS, run_script

SOURCE = {"title": "A", "kind": "empirical", "elements": ["Cu"]}
EMT = "ase.calculators.emt.EMT"


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Return a function that checks configurations, given as text or as keys beside the toy's."""
    (tmp_path / "resources").mkdir()
    shutil.copytree(SCRIPTS.parents[1] / "resources/published", tmp_path / "resources/published")
    copper.add_files(type("Checkout", (), {"folder": tmp_path}))
    monkeypatch.chdir(tmp_path)

    def run(*configs):
        for number, config in enumerate(configs):
            text = config if isinstance(config, str) else yaml.safe_dump(config)
            (tmp_path / f"{number}.yaml").write_text(text)
        return run_script("check", *(f"{number}.yaml" for number in range(len(configs))))

    return run


def test_a_sound_configuration(check):
    done = check(copper.CONFIG)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("0.yaml: no fault found; results in results/copper\n")
    assert "sources: emt, lj\n" in done.stdout and "8 training runs, 0 finished" in done.stdout


def test_later_files_take_precedence(check):
    more = {"experiments": {"fig3": {"finetune_seeds": [1, 2]}}}
    done = check(copper.CONFIG, more)
    assert done.stdout.startswith("0.yaml + 1.yaml: ") and "12 training runs" in done.stdout


@pytest.mark.parametrize(
    "change, words",
    [
        ("", "0.yaml is empty; see config/README.md"),
        ("a: [", "0.yaml, line 2, column 1: not valid YAML"),
        ({"training": {"device": "tpu"}}, "training.device: 'tpu' is not one of"),
        ({"datasets": {"Cu": {"path": "nowhere.xyz"}}}, "datasets.Cu.path: no such file"),
        ({"sources": {"emt": {"python": "/no/python"}}}, "sources.emt.python: no interpreter"),
        ({"sources": {"emt": {"kwargs": {"folder": "."}}}}, "names the folder ., which holds"),
        ({"datasets": {"Cu-synthetic": {"load_atoms": "NO"}}}, "'NO' is unknown to the installed"),
        ({"datasets": {"Cu": {"structures": 12}}}, "fig3.sizes[0]: 3 is more than"),
    ],
)
def test_faults(check, change, words):
    config = change
    if isinstance(change, dict):
        config = copy.deepcopy(copper.CONFIG)
        for section, entries in change.items():
            for name, entry in entries.items():
                if isinstance(entry, dict):
                    config[section][name].update(entry)
                    if "load_atoms" in entry:
                        del config[section][name]["path"]
                else:
                    config[section][name] = entry
    done = check(config)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.fixture(scope="module")
def study(checkout):
    copper.add_files(checkout)
    return checkout


@pytest.mark.parametrize(
    "change, words",
    [
        ({"training": {"device": "tpu"}}, "training.device: 'tpu' is not one of"),
        ({"sources": {"emt": SOURCE | {"calculator": EMT, "python": "/no/python"}}}, "/no/python"),
    ],
)
def test_snakemake_says_the_same_last_and_alone(study, change, words):
    config = copper.CONFIG | change
    config["sources"] = copper.CONFIG["sources"] | change.get("sources", {})
    (study.folder / "config/bad.yaml").write_text(yaml.safe_dump(config))
    done = study.snakemake("--configfile", "config/bad.yaml", "-n", "--quiet", "rules", check=False)
    assert done.returncode == 1 and "Exception" not in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("error: ") and words in last


def test_the_default_configuration_is_named_too(study):
    file = study.folder / "config/config.yaml"
    file.write_text(file.read_text() + "figures:\n\tx: 1\n")
    done = study.snakemake("-n", check=False)
    last = done.stdout.splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("error: config/config.yaml, line ") and "indent with spaces" in last


def test_after_an_interruption_it_says_to_start_again(study):
    copper.write(study, copper.CONFIG)
    job = subprocess.Popen(
        ["snakemake", "--configfile", "config/copper.yaml", "--cores", "1", "--forceall"],
        cwd=study.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # What runs in the background of a shell ignores it, and so does what that starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # While it waits for a job: elsewhere Snakemake may miss it.
    logs = study.folder / "results/copper/logs"
    try:
        while not list(logs.rglob("*.log")):
            assert job.poll() is None
            time.sleep(0.1)
        time.sleep(0.5)
        os.killpg(job.pid, signal.SIGINT)
        last = job.communicate(timeout=60)[0].splitlines()[-1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    assert job.returncode != 0 and last.startswith("You interrupted it: start it again")


def test_a_failed_job_is_named_last(study):
    (study.folder / "resources/cu.extxyz").write_text("nothing\n")
    copper.write(study, copper.CONFIG)
    wanted = "results/copper/data/Cu/prepared.h5"
    done = copper.run(study, wanted, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and lines[-4:-2] == ["Failed:", "  prepare/Cu"]
    assert "resources/cu.extxyz" in lines[-2]
    assert lines[-1] == "    log:   results/copper/logs/prepare/Cu.log"
