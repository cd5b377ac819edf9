"""What a generated dataset consists of, and what is wrong with one that cannot be made."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from pretraining.runtime.errors import UserError
from pretraining.study.config import load_config, validate_study
from pretraining.study.generation import frames_of, stages_of, structures_of, trajectories, values
from pretraining.study.queries import largest_pool
from pretraining.study.views import config_view

GENERATE = Path(__file__).resolve().parents[3] / "config" / "generate.yaml"
NAME = "C-melt-quench"


@pytest.fixture(scope="module")
def shipped():
    return load_config(GENERATE)


@pytest.fixture
def config(shipped):
    config = copy.deepcopy(shipped)
    # As written by a user, who does not count.
    del config["datasets"][NAME]["structures"]
    return config


def test_the_shipped_protocol_has_the_published_size(shipped):
    validate_study(shipped, "generate.yaml")
    generate = shipped["datasets"][NAME]["generate"]
    runs = trajectories(generate)
    assert len(runs) == 546 and frames_of(generate) == 211
    assert shipped["datasets"][NAME]["structures"] == structures_of(generate) == 115206
    assert runs[0].name == "density~1_anneal~2000_replica~1"
    assert runs[-1].name == "density~3.5_anneal~4000_replica~1"
    assert len({run.name for run in runs}) == 546
    assert sum(stage.steps for stage in stages_of(generate, 3000)) == 210_000


def test_values():
    assert values([2, 1.5]) == [2.0, 1.5]
    assert values({"start": 1.0, "stop": 3.5, "step": 0.1})[-1] == 3.5
    assert values({"start": 1.0, "stop": 1.95, "step": 0.3}) == [1.0, 1.3, 1.6, 1.9]


def test_stages():
    generate = {
        "timestep_fs": 0.5,
        "stages": [
            {"temperature": 9000, "ps": 1},
            {"from": 9000, "to": "anneal", "ps": 0.5},
            {"temperature": "anneal", "ps": 2},
        ],
    }
    melt, quench, anneal = stages_of(generate, 3000)
    assert (melt.first, melt.last, melt.steps) == (9000, 9000, 2000)
    assert (quench.first, quench.last, quench.steps) == (9000, 3000, 1000)
    assert quench.temperature(0) == 9000 and quench.temperature(500) == 6000
    assert anneal.temperature(3999) == 3000


def test_another_density_changes_no_trajectory(config):
    generate = config["datasets"][NAME]["generate"]
    before = trajectories(generate), config_view(config, f"generate~{NAME}")
    generate["densities"] = [0.5, *values(generate["densities"])]
    generate["exclude"] = ["density~1_anneal~2000_replica~1"]
    after = trajectories(generate)
    assert set(before[0]) - set(after) == {before[0][0]}
    assert len(after) == 546 + 21 - 1
    config["sources"]["lcbop_lammps"]["python"] = "/elsewhere/python"
    assert config_view(config, f"generate~{NAME}") == before[1]
    generate["timestep_fs"] = 0.5
    assert config_view(config, f"generate~{NAME}") != before[1]


def test_the_settings_of_a_trajectory_and_of_the_preparation(shipped):
    part = config_view(shipped, f"generate~{NAME}")
    assert list(part["sources"]) == ["lcbop_lammps"]
    assert part["generate"]["clash_distance"] == 0.5
    prepared = config_view(shipped, f"dataset~{NAME}")["datasets"][NAME]
    assert "generate" not in prepared and prepared["structures"] == 115206
    folder = f"results/generate/data/{NAME}/trajectories"
    assert prepared["path"][0] == f"{folder}/density~1_anneal~2000_replica~1.extxyz"
    assert len(prepared["path"]) == 546


def test_sizes_are_checked_against_what_will_be_made(config):
    config["datasets"][NAME]["generate"]["densities"] = [2.0]
    with pytest.raises(UserError, match=r"pretrain_sizes\[0\]: 10000 is more than the pool"):
        validate_study(config, "x.yaml")
    config["experiments"]["fig3"]["pretrain_sizes"] = [3000]
    valid = validate_study(config, "x.yaml")["datasets"][NAME]
    assert valid["structures"] == 21 * 211 and largest_pool(valid) < 21 * 211


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "lcbopp"}, "source: 'lcbopp' is not one of the configured sources; allowed: l"),
        ({"source": "own"}, "source: 'own' has no calculator"),
        ({"composition": {"Si": 1}}, "composition: source 'lcbop_lammps' does not know Si"),
        ({"composition": {"C": 3}}, "atoms: 200 is no multiple of the 3 atoms"),
        ({"frame_every_ps": 3}, r"stages\[0\].ps: 5 ps is no multiple of the 3 ps"),
        (
            {"frame_every_ps": 0.0005},
            "frame_every_ps: 0.0005 ps is not a whole number of steps of 1 ",
        ),
        ({"frame_every_ps": 10}, r"stages\[0\].ps: 5 ps is no multiple"),
        ({"anneal_temperatures": None}, "anneal_temperatures: missing; a stage has the temp"),
        ({"stages": [{"temperature": 300, "ps": 1}]}, "no stage has the temperature 'anneal'"),
        ({"stages": [{"temperature": 300}]}, r"stages\[0\]: key 'ps' is missing"),
        ({"stages": [{"ps": 1}]}, r"stages\[0\]: give one of: temperature \| from \+ to"),
        ({"stages": [{"temperature": "hot", "ps": 1}]}, r"stages\[0\].temperature"),
        ({"densities": {"start": 3, "stop": 1, "step": 1}}, "stop 1 is below start 3"),
        ({"densities": {"start": 3, "stop": 4}}, "densities: key 'step' is missing"),
        ({"densities": []}, "densities"),
        ({"densities": [1.2345671, 1.2345672]}, "two trajectories are called 'density~1.23457_ann"),
        ({"exclude": ["density~9"]}, "exclude: no trajectory is called 'density~9'"),
        ({"thermostat": "berendsen"}, "'berendsen' is not one of .'nose-hoover', 'langevin'"),
        ({"engine": "lammps", "source": "emt"}, "engine: source 'emt' is no LAMMPS pair style"),
        ({"timestep": 1}, "unknown key 'timestep'; did you mean 'timestep_fs'"),
    ],
)
def test_what_cannot_be_made_is_one_line(config, changes, message):
    config["sources"]["own"] = {"title": "x", "kind": "ml", "elements": ["C"], "own_labels": True}
    config["sources"]["emt"] = {"title": "x", "kind": "empirical", "elements": ["C"]}
    config["sources"]["emt"]["calculator"] = "ase.calculators.emt.EMT"
    generate = config["datasets"][NAME]["generate"]
    for key, value in changes.items():
        generate.pop(key, None)
        if value is not None:
            generate[key] = value
    with pytest.raises(UserError, match=message) as error:
        validate_study(config, "x.yaml")
    assert str(error.value).startswith(f"x.yaml: datasets.{NAME}.generate")
    assert "\n" not in str(error.value)


def test_files_and_counts_are_not_the_users(config):
    config["datasets"][NAME]["structures"] = 100
    with pytest.raises(UserError, match=f"{NAME}.structures: generate makes 115206; leave"):
        validate_study(config, "x.yaml")
    del config["datasets"][NAME]["structures"]
    config["datasets"][NAME]["path"] = "a.xyz"
    with pytest.raises(UserError, match="give only one of"):
        validate_study(config, "x.yaml")
