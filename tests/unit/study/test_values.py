"""Any number or short text in any key of a configuration ends in a plan or in one line."""

from __future__ import annotations

import copy
import inspect
import json
import os
import subprocess

import ase.io
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import copper
from pretraining.data.retrieve import remote_files, study_items
from pretraining.runtime.errors import UserError
from pretraining.study import estimate
from pretraining.study.config import (
    REPOSITORY,
    ROOT,
    load_config,
    validate_config,
    validate_study,
)
from pretraining.study.generation import trajectories
from pretraining.study.grid import check_pools, grid_table, results_table, stability_models
from pretraining.study.network import HYPERPARAMETERS, RUN_ARGUMENTS
from pretraining.study.queries import replica_batches
from pretraining.study.views import config_view

# The study of copper with an entry in every section.
MORE = {
    "transforms": {"big": {"elements": {"Cu": "Ag"}, "scale": 1.2, "cutoff": 4.5}},
    "pretrained_weights": [
        {
            "structures": "Cu-synthetic",
            "source": "emt",
            "npre": 12,
            "seed": 7,
            "file": "resources/weights.pth",
            "avg_num_neighbors": 31.5,
            "elements": ["Cu"],
        }
    ],
    "check_sources": {"crystals": {"Cu": {"fcc": {"prototype": "fcc", "a": 3.6}}}},
    "compare_sources": {"datasets": ["Cu"], "sources": ["emt"]},
    "embeddings": {
        "map": {
            "base": [{"dataset": "Cu", "structures": 5, "environments": 9, "shown": 3}],
            "project": [{"dataset": "melt", "transform": "big", "neighbour_radius": 2.9}],
        }
    },
    "dynamics": {
        "heat": {
            "models": [{"experiment": "fig3", "kinds": ["direct"], "n": [3], "seed": [1]}],
            "start": {"file": "resources/cu.extxyz"},
            "stages": [{"from": 300, "to": 600, "ps": 2}, {"temperature": 600, "ps": 1}],
            "snapshots": [1.0],
        }
    },
}
MELT = {
    "generate": {
        "source": "emt",
        "composition": {"Cu": 1},
        "atoms": 8,
        "densities": {"start": 6.0, "stop": 8.0, "step": 1.0},
        "anneal_temperatures": [600, 700],
        "stages": [{"from": 300, "to": "anneal", "ps": 1}, {"temperature": "anneal", "ps": 2}],
        "frame_every_ps": 1,
    },
    "filters": [
        {"key": "config_type", "min": 0.0},
        {"key": "run", "exclude": [3]},
        {"min_cell_edge": 1.0},
    ],
    "split": {"n_val": 2, "fraction": 0.2},
}


@pytest.fixture(scope="module")
def study(root, tmp_path_factory):
    """Return a folder with the files of the study, and its configuration with all defaults."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "resources").mkdir()
    for name, labelled in (("cu-synthetic", False), ("cu", True)):
        ase.io.write(folder / f"resources/{name}.extxyz", copper.structures(2, 1, labelled))
    (folder / "resources/weights.pth").write_text("")
    costs = root / "resources/published/training-cost.csv"
    (folder / "costs.csv").write_bytes(costs.read_bytes())
    config = copy.deepcopy(copper.CONFIG) | copy.deepcopy(MORE)
    config["datasets"]["melt"] = copy.deepcopy(MELT)
    return folder, validate_config(config, "config")


def places(value, path=()):
    """Return the paths of all entries of a nested value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in entries:
        yield (*path, key)
        if isinstance(entry, dict | list):
            yield from places(entry, (*path, key))


def changed(config, path, value):
    """Return a copy with another value at a path."""
    config = copy.deepcopy(config)
    entry = config
    for key in path[:-1]:
        entry = entry[key]
    entry[path[-1]] = value
    return config


def plan(config, root):
    """Do what a dry run does with a configuration."""
    config = validate_study(config, "file", root)
    grid = grid_table(config)
    check_pools(grid, config)
    results_table(config, grid, config["experiments"])
    costs = estimate.published_costs(root / "costs.csv")
    estimate.compile_choice(config["training"], grid, estimate.estimated_seconds(grid, costs))
    views = ["study", "direct", "finetune", "styles", *(f"dataset~{n}" for n in config["datasets"])]
    views += [f"{kind}~{n}" for kind in ("source", "files", "check") for n in config["sources"]]
    views += [f"pretrain~{n}" for n in config["transforms"]]
    for name, dataset in config["datasets"].items():
        if "generate" in dataset:
            trajectories(dataset["generate"])
            views.append(f"generate~{name}")
    for name in config["embeddings"]:
        views += [f"embedding~{name}", f"umap~{name}"]
    for name, test in config["dynamics"].items():
        stability_models(config, grid, name)
        replica_batches(test)
        views += [f"dynamics~{name}", f"start~{name}"]
    json.dumps([config_view(config, view) for view in views], allow_nan=False)
    for item in study_items(config):
        remote_files(config, item)


NUMBERS = st.one_of(
    st.integers(),
    st.integers(-3, 20),
    st.floats(),
    st.floats(0, 20),
    st.sampled_from([1e-9, 1e-300, 1e300, 8.0, 1e15, 10**400, 2**63, 1e-12]),
)
WORDS = st.text(max_size=8) | st.sampled_from(
    ["", ".", "..", "/", "~", "nan", "-.inf", "1e9", "none", "Cu", "Ag", "fig3", "{root}", "anneal"]
)


def check(study, path, value):
    """Assert that the study with this value is planned, or refused in one line."""
    folder, config = study
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(changed(config, path, value)), encoding="utf-8")
    try:
        plan(load_config(file), folder)
    except UserError as error:
        assert str(error) and "Traceback" not in str(error)


def test_the_study_itself_ends_in_a_plan(study):
    folder, config = study
    plan(config, folder)


@settings(
    max_examples=int(os.environ.get("VALUES_EXAMPLES", 60)),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_any_value_in_any_key_ends_in_a_plan_or_in_one_line(study, data):
    path = data.draw(st.sampled_from(list(places(study[1]))), label="key")
    check(study, path, data.draw(NUMBERS | WORDS | st.booleans() | st.none(), label="value"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.learning_rate", float("nan"), "training.learning_rate: nan is not a finite"),
        ("training.min_delta", float("inf"), "training.min_delta: inf is not a finite number"),
        ("sources.lj.kwargs.sigma", float("-inf"), "sources.lj.kwargs.sigma: -inf is not a fin"),
        ("datasets.Cu.checks.min_distance", float("nan"), "min_distance: nan is not a finite"),
        ("dynamics.heat.timestep_fs", 1e-300, "timestep_fs: 1e-300 is too small to mean"),
        ("dynamics.heat.replicas", 10**9, "dynamics.heat.replicas: 1000000000 is greater than"),
        ("sources.lj.kwargs", {6: 1.0}, "the key 6 is no text; write it in quotes"),
        ("experiments.fig3.sizes", [3.5], "experiments.fig3.sizes[0]: 3.5 is not of type"),
        ("network.model", "papr", "network.model: 'papr' is not allowed"),
        ("network.model", "nequip.model.NequIPGNNModl", "there is no 'nequip.model.NequIPGNNModl'"),
        ("network.num_layer", 2, "network.num_layer: the network 'paper' has no such"),
        ("network.r_max", 4, "network.r_max: it is decided by each run"),
        ("datasets.melt.generate.densities.step", 1e-9, "make 4,000,000,002 trajectories"),
        ("datasets.melt.generate.replicas", 10**9, "replicas make 6,000,000,000 trajectories"),
        ("labelling.chunk_size", float("nan"), "labelling.chunk_size: nan"),
        ("sources.lj.elements", ["Si"], "'lj' does not know Cu of dataset"),
        ("datasets.Cu.energy_reference.source", "ag", "energy_reference.source: 'ag' does not"),
        (
            "pretrained_weights",
            [{**MORE["pretrained_weights"][0], "seed": 1, "elements": ["C"]}],
            "pretrained_weights: 'resources/weights.pth' does not know Cu of dataset 'Cu'",
        ),
        ("dynamics.heat.start.file", "no.xyz", "dynamics.heat.start.file: no such file: 'no.xyz'"),
        ("experiments.fig3.pretrain_sizes", [10**12], "are more than 100,000 labelling jobs"),
        ("labelling.chunk_size", 1e-5, "labelling.chunk_size: 1e-05 is not of type 'integer'"),
        ("results", "..", "results: '..' is part of the repository"),
        ("results", "results/..", "results: 'results/..' is part of the repository"),
        ("results", "config/mine", "results: 'config/mine' is part of the repository"),
        ("results", "resources", "results: 'resources' is part of the repository"),
        ("results", ".git", "results: '.git' is part of the repository"),
        ("results", "README.md", "results: 'README.md': README.md is a file"),
        ("results", "~", "results: '~' is not allowed"),
        ("results", "/", "results: '/' is not allowed"),
        ("results", str(ROOT), f"results: '{ROOT}' is part of the repository"),
        ("results", str(ROOT.parent), f"results: '{ROOT.parent}' is part of the repository"),
        ("results", f"{ROOT}/docs/x", f"results: '{ROOT}/docs/x' is part of the repository"),
        ("results", "/etc/passwd/x", "results: '/etc/passwd/x': passwd is a file"),
    ],
)
def test_what_would_fail_late_is_refused(study, key, value, words):
    folder, config = study
    ag = {"title": "Ag", "kind": "empirical", "elements": ["Ag"], "calculator": "a.b"}
    config = changed(config, ("sources", "ag"), ag)
    *path, last = key.split(".")
    with pytest.raises(UserError) as error:
        plan(changed(config, (*path, last), value), folder)
    assert words in str(error.value)


def test_results_outside_the_repository_must_be_writable(study, tmp_path, monkeypatch):
    folder, config = study
    config = changed(config, ("results",), str(tmp_path / "deep/results"))
    plan(config, folder)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UserError, match=f"cannot be made: {tmp_path} is not writable; give anoth"):
        plan(config, folder)


@pytest.mark.parametrize("size", [8.0, 1.0e1, 8])
def test_whole_numbers_may_be_written_with_a_point(study, size):
    config = changed(study[1], ("experiments", "fig3", "sizes"), [3, size])
    config = changed(config, ("datasets", "melt", "generate", "composition"), {"Cu": 4.0})
    config = validate_study(config, "file")
    assert [type(n) for n in config["experiments"]["fig3"]["sizes"]] == [int, int]
    assert config["datasets"]["melt"]["generate"]["composition"] == {"Cu": 4}
    assert f"n~{int(size)}/" in "".join(grid_table(config)["path"])


@pytest.mark.parametrize("results", ["results", "results/mine", "mine", "../mine"])
def test_results_may_lie_elsewhere(study, results):
    folder, config = study
    plan(changed(config, ("results",), results), folder)


def test_a_builder_is_looked_for_without_importing_it(study):
    folder, config = study
    for builder in (
        "nequip.model.NequIPGNNModel",
        "pretraining.training.network.paper.PaperNetwork",
    ):
        plan(changed(config, ("network", "model"), builder), folder)


def test_the_known_hyperparameters_are_those_of_the_builders():
    from nequip.model import NequIPGNNModel
    from nequip.model.nequip_models import FullNequIPGNNModel

    from pretraining.training.network.paper import PaperNetwork

    made = {"feature_irreps_hidden", "irreps_edge_sh"}  # of num_features, l_max and parity
    for name, builders in (
        ("paper", [PaperNetwork]),
        ("stock", [NequIPGNNModel, FullNequIPGNNModel]),
    ):
        names = {n for builder in builders for n in inspect.signature(builder).parameters}
        expected = names - made - set(RUN_ARGUMENTS) - {"kwargs"} | {"cutoff"}
        assert set(HYPERPARAMETERS[name]) == expected


def test_every_folder_of_the_repository_is_kept_from_results(root):
    if not (root / ".git").exists():
        pytest.skip("not a git repository")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    top = {path.split("/")[0] for path in listed if path[0] != "."}
    assert {name for name in top if (root / name).is_dir()} - {"results"} == set(REPOSITORY)
