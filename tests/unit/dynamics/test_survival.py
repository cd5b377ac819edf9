"""How long trajectories last: survival curves, their table and figure, and which models are run."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from ase.build import bulk
from ase.io import write

from pretraining.data.geometry import FOLDS, LAYERING
from pretraining.data.store import Store
from pretraining.dynamics.stability.start import start_structure
from pretraining.dynamics.stability.survival import (
    as_markdown,
    identity_of,
    kaplan_meier,
    median_time,
    summarise,
    survival_curves,
)
from pretraining.figures.dynamics import draw_coordination, draw_survival, stability_figure
from pretraining.runtime.errors import UserError
from pretraining.study.config import load_config, validate_study
from pretraining.study.generation import FIRST_FIVE_FOLD, duration_ps, stages_of
from pretraining.study.grid import grid_table, stability_models
from pretraining.study.views import config_view

# ---------------------------------------------------------------- Kaplan and Meier


def test_survival_by_hand():
    """Ten trajectories: failures at 2, 2 and 5; one lost sight of at 3; six alive at 10.

    S = 8/10 at 2, and 8/10 · 6/7 at 5, since the one last seen at 3 is no longer at risk.
    Greenwood: 0.8² · 2/(10·8) and (0.8·6/7)² · (2/(10·8) + 1/(7·6)).
    """
    times = [2, 2, 5, 3, 10, 10, 10, 10, 10, 10]
    curve = kaplan_meier(times, [True, True, True, *[False] * 7])
    assert curve["time_ps"].tolist() == [0, 2, 3, 5, 10]
    assert curve["at_risk"].tolist() == [10, 10, 8, 7, 6]
    assert curve["failures"].tolist() == [0, 2, 0, 1, 0]
    assert curve["censored"].tolist() == [0, 0, 1, 0, 6]
    assert curve["survival"].tolist() == pytest.approx([1, 0.8, 0.8, 4.8 / 7, 4.8 / 7])
    errors = [0, np.sqrt(0.016), np.sqrt(0.016), 4.8 / 7 * np.sqrt(1 / 40 + 1 / 42)]
    assert curve["standard_error"].tolist()[:4] == pytest.approx(errors)
    assert median_time(curve) == np.inf


def test_survival_of_a_published_example():
    """Remission of 21 patients on 6-MP, Freireich et al., Blood 21, 699 (1963), in weeks."""
    failed = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    status = [True] * len(failed) + [False] * len(censored)
    curve = kaplan_meier([*failed, *censored], status).set_index("time_ps")
    known = {6: 0.8571, 7: 0.8067, 10: 0.7529, 13: 0.6902, 16: 0.6275, 22: 0.5378, 23: 0.4482}
    assert curve["survival"][list(known)].tolist() == pytest.approx(list(known.values()), abs=1e-4)
    assert curve["standard_error"][23] == pytest.approx(0.1346, abs=1e-4)
    assert median_time(curve.reset_index()) == 23


def test_survival_of_all_or_none():
    alive = kaplan_meier([5, 5], [False, False])
    assert alive["survival"].tolist() == [1, 1] and alive["standard_error"].tolist() == [0, 0]
    dead = kaplan_meier([1, 2], [True, True])
    assert dead["survival"].tolist() == [1, 0.5, 0]
    assert median_time(dead) == 1


# ---------------------------------------------------------------- the table


FINETUNED = "finetune/target~nt/structures~s/transform~none/source~ace/npre~9/preseed~42/n~60"


def outcome(
    folder: Path, model: str, replica: int, lasted: float, failed: bool, five: float | None = None
) -> Path:
    """Write what a trajectory of 10 ps leaves, and return its outcome."""
    out = folder / "dynamics" / "test" / model / f"replica~{replica}"
    out.mkdir(parents=True)
    times = np.arange(0, lasted + 1e-9, 0.5)
    counts = pd.DataFrame(0, index=range(len(times)), columns=FOLDS)
    counts["fold_3"] = np.linspace(2, 8, len(times)).round().astype(int)
    counts["fold_4"] = 8 - counts["fold_3"]
    if five is not None:
        counts.loc[times >= five, ["fold_4", "fold_5"]] = [0, 1]
    counts.insert(0, "time_ps", times)
    counts[LAYERING] = 0.25
    counts.to_csv(out / "coordination.csv", index=False)
    frames = [bulk("C", "diamond", a=3.57, cubic=True) for _ in times]
    for time, atoms in zip(times, frames, strict=True):
        atoms.info |= {"time": time, "temperature": 3000.0}
    write(out / "trajectory.extxyz", frames)
    content = {
        "status": "failed" if failed else "survived",
        "time_ps": lasted,
        "planned_ps": 10.0,
        "criterion": "clusters" if failed else None,
        "reason": "3 atoms have 8 or more neighbours" if failed else None,
        "n_atoms": 8,
        "steps_per_second": 2.0,
    }
    (out / "outcome.json").write_text(json.dumps(content))
    return out / "outcome.json"


@pytest.fixture
def outcomes(tmp_path):
    direct = "direct/target~nt/source~none/n~60"
    return [
        outcome(tmp_path, f"{FINETUNED}/seed~1", 1, 10, False),
        outcome(tmp_path, f"{FINETUNED}/seed~2", 1, 10, False),
        outcome(tmp_path, f"{direct}/seed~1", 1, 2, True, five=1.5),
        outcome(tmp_path, f"{direct}/seed~1", 2, 4, True, five=1.0),
        outcome(tmp_path, f"{direct}/seed~2", 1, 6, True, five=5.0),
    ]


def test_a_trajectory_is_known_by_its_folders(tmp_path):
    path = Path(f"results/dynamics/x/{FINETUNED}/seed~1/replica~3/outcome.json")
    assert identity_of(path) == {
        "kind": "finetune", "target": "nt", "structures": "s", "transform": "none",
        "source": "ace", "npre": "9", "preseed": "42", "n": "60", "seed": "1", "replica": "3",
    }  # fmt: skip
    imported = Path(
        "results/dynamics/x/imported/structures~s/npre~9/seed~42/replica~1/outcome.json"
    )
    assert identity_of(imported)["kind"] == "pretrain"


def test_table(outcomes):
    table = summarise(outcomes)
    assert table["group"].tolist() == ["direct"] * 3 + ["fine-tuned"] * 2
    assert table["time_ps"].tolist() == [2, 4, 6, 10, 10]
    assert table["first_five_fold_ps"].tolist()[:3] == [1.5, 1, 5]
    assert table["first_five_fold_ps"][3:].isna().all()
    assert table["sp2_start"].tolist() == [0.25] * 5
    # The last tenth of 10 ps: 9, 9.5 and 10 ps.
    assert table["sp2_end"][3] == pytest.approx(np.mean([7, 8, 8]) / 8, abs=0.05)
    curves = survival_curves(table).set_index("group")
    assert curves.loc["direct", "survival"].tolist() == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert curves.loc["fine-tuned", "survival"].tolist() == [1, 1]
    page = " ".join(as_markdown(table).split())
    assert "| direct | 3 | 0 | 0 ± 0 | 4 | 2 |" in page
    assert "| fine-tuned | 2 | 2 | 100 ± 0 | – | – |" in page
    assert "| direct | 1 | 2 | 4 | 1 | clusters: 3 atoms have 8 or more neighbours |" in page
    with pytest.raises(UserError, match="no trajectory"):
        summarise([])


def test_models_of_different_sizes_are_different_groups(tmp_path):
    files = [
        outcome(tmp_path, f"direct/target~nt/source~none/n~{n}/seed~1", 1, 10, False)
        for n in (60, 1200)
    ]
    assert summarise(files)["group"].tolist() == ["direct, n = 60", "direct, n = 1,200"]


def test_figure(outcomes):
    table = summarise(outcomes)
    figure = stability_figure(table, "title", 1.85, [0, 5, 8, 10])
    titles = [axes.get_title() for box in figure.subfigs for axes in box.axes]
    # Of three direct trajectories the middle one is drawn: it lasts 4 ps.
    assert titles[:4] == ["0 ps, 3,000 K", "failed: 4 ps, 3,000 K", "", ""]
    assert titles[4:8] == [f"{time:g} ps, 3,000 K" for time in (0, 5, 8, 10)]
    plt.close(figure)
    figure = stability_figure(table, "title", 1.85, [0, FIRST_FIVE_FOLD, 10])
    titles = [axes.get_title() for box in figure.subfigs for axes in box.axes]
    assert titles[1:3] == ["five neighbours: 1 ps, 3,000 K", "failed: 4 ps, 3,000 K"]
    assert titles[4] == "never five neighbours"
    plt.close(figure)


def test_panels_for_other_figures(outcomes):
    table = summarise(outcomes)
    figure, (left, right) = plt.subplots(1, 2)
    draw_survival(left, table)
    texts = [text.get_text() for text in left.get_legend().get_texts()]
    assert texts == ["direct (0 of 3 survive)", "fine-tuned (2 of 2 survive)"]
    steps = left.get_lines()[0].get_xydata()
    assert steps[-1].tolist() == [6, 0]
    draw_coordination(right, table[table["kind"] == "direct"])
    curves = [line for line in right.get_lines() if line.get_marker() != "x"]
    assert len(curves) == 3  # only the classes that occur
    sums = np.sum([line.get_ydata() for line in curves], axis=0)
    assert sums == pytest.approx(100)
    plt.close(figure)


def test_a_metal_has_no_columns_of_carbon(outcomes):
    for path in outcomes:
        counts = pd.read_csv(path.parent / "coordination.csv")
        counts[list(FOLDS)] = 0
        counts["fold_12"] = 8
        counts.to_csv(path.parent / "coordination.csv", index=False)
    table = summarise(outcomes)
    page = as_markdown(table)
    assert "sp²" not in page and "5-fold" not in page and "Layering is a mean over" in page
    figure = stability_figure(table, "a metal", None, [])
    (legend,) = (box.legends[0] for box in figure.subfigs if box.legends)
    assert [text.get_text() for text in legend.get_texts()] == ["12 or more"]


# ---------------------------------------------------------------- which models, and from where


@pytest.fixture(scope="module")
def config(root):
    return load_config(root / "config/config.yaml")


def test_the_papers_test(config):
    test = config["dynamics"]["fig4d"]
    chosen = stability_models(config, grid_table(config), "fig4d")
    assert len(chosen) == 10 and test["replicas"] == 1
    assert {path.split("/")[0] for path in chosen} == {"direct", "finetune"}
    assert all("/target~nanotubes/" in path and "/n~60/" in path for path in chosen)
    heating, hold = stages_of(test)
    assert (heating.first, heating.last, heating.steps) == (300, 3000, 100_000)
    assert (hold.first, hold.last, hold.steps) == (3000, 3000, 900_000)
    assert duration_ps(test) == 1000
    assert (test["timestep_fs"], test["thermostat"], test["damping_fs"]) == (1, "nose-hoover", 100)


def test_more_replicas_and_pictures_change_no_trajectory(config):
    other = copy.deepcopy(config)
    other["dynamics"]["fig4d"] |= {"replicas": 7, "snapshots": [3], "title": "x"}
    for part in ("dynamics~fig4d", "start~fig4d"):
        assert config_view(config, part) == config_view(other, part)
    other["dynamics"]["fig4d"]["limits"]["zero_fold"] = 0.5
    assert config_view(config, "dynamics~fig4d") != config_view(other, "dynamics~fig4d")


def test_selection_of_models(config):
    grid = grid_table(config)

    def select(**entry):
        other = copy.deepcopy(config)
        other["dynamics"]["fig4d"]["models"] = [entry]
        return stability_models(other, grid, "fig4d")

    kinds = ["direct", "finetune", "pretrain"]
    assert len(select(experiment="fig4", kinds=["pretrain"])) == 1
    assert len(select(experiment="fig4", kinds=kinds, n=[60], seed=[42])) == 3
    assert len(select(experiment="fig3", kinds=kinds, n=[25], source=["ace"])) == 5 + 5 + 1
    with pytest.raises(UserError, match=r"models\[0\].n: no such run has n 61; known: 15, 30"):
        select(experiment="fig4", kinds=["direct"], n=[60, 61])
    with pytest.raises(UserError, match="seed: no such run has seed 7"):
        select(experiment="fig4", kinds=["direct"], seed=[7])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": [{"experiment": "fig9"}]}, r"models\[0\].experiment: 'fig9' is not one"),
        ({"start": {"dataset": "x"}}, "start.dataset: 'x' is not one of"),
        (
            {"start": {"dataset": "C-SYNTH-23M", "nearest": {"colour": 1}}},
            "'colour' is not kept; add it to datasets.C-SYNTH-23M.keep",
        ),
        ({"frame_every_ps": 0.3}, r"stages\[0\].ps: 100 ps is no multiple"),
        ({"log_every_ps": 0.3}, "log_every_ps: 0.3 ps must divide frame_every_ps, 1"),
        ({"log_every_ps": 0.0005}, "must be a multiple of timestep_fs"),
        ({"snapshots": [1001]}, "snapshots: 1001 ps is after the end at 1000 ps"),
        ({"limits": {"temperature": 3}}, "unknown key 'temperature'; did you mean"),
        ({"start": {}}, "give one of: dataset | file"),
    ],
)
def test_faults_are_named(root, change, message):
    config = yaml.safe_load((root / "config/config.yaml").read_text())
    config["dynamics"]["fig4d"] |= change
    with pytest.raises(UserError, match=message):
        validate_study(config, "study.yaml")


def test_the_start_is_the_nearest_structure(tmp_path):
    frames = [bulk("C", "diamond", a=3.5 + i / 10) for i in range(6)]
    densities = [3, 1, 1.4, 1.7, 1.4, 1.4]
    for i, (atoms, density) in enumerate(zip(frames, densities, strict=True)):
        atoms.info |= {"density": density, "time": 10.0 - i}
    Store.write(tmp_path / "x.h5", frames, n_val=0, n_test=5, info=["density", "time"])

    def start(**entry):
        entry = {"where": {}, "nearest": {}, "repeat": [1, 2, 1]} | entry
        entry = {"dataset": "x", "part": "test"} | entry
        return start_structure(entry, tmp_path / "x.h5")[0]

    with pytest.raises(UserError, match=r"2 test .* equally near \(the first: index 2, .* apart"):
        start(nearest={"density": 1.5})
    assert start(nearest={"density": 1.5, "time": 6.2}).info["index"] == 4
    assert start(where={"density": 1.4, "time": 6.0}).info["index"] == 4
    assert start(where={"density": 1.4}, nearest={"time": 9.0}).info["index"] == 2
    with pytest.raises(UserError, match="start.where: no test structure .* has density 1.5"):
        start(where={"density": 1.5})
    assert len(start(nearest={"time": 9.0})) == 4
    with pytest.raises(UserError, match="no val structures"):
        start(part="val", nearest={})
    write(tmp_path / "x.extxyz", frames)
    entry = {"file": str(tmp_path / "x.extxyz"), "index": 3, "repeat": [1, 1, 1]}
    assert start_structure(entry, None)[0].cell[0] == pytest.approx(frames[3].cell[0])
    with pytest.raises(UserError, match="structure 9 cannot be read"):
        start_structure(entry | {"index": 9}, None)
