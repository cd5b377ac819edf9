"""Figures of several panels: which runs are in which panel, and what the panels say."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_rgb

from pretraining.figures.composed import alchemical, specialised
from pretraining.figures.learning_curves import panel_table
from pretraining.figures.panels import Options
from pretraining.figures.style import ramp
from pretraining.results.forgetting import as_markdown, forgetting
from pretraining.results.published import (
    claims_of_forgetting,
    published_points,
    read_claims,
    with_published_errors,
)
from pretraining.results.runs_table import COLUMNS, normalise
from pretraining.results.selection import (
    Selection,
    nearest_size,
    on_test_set,
    select,
    select_each,
    sets_tested,
)
from pretraining.runtime.tables import write_csv
from pretraining.study.titles import read_titles

SEEDS = (1, 2, 3)
SIZES = (15, 60, 240)
EXTRA = ["structures", "transform", "preseed", "trained_on"]
FORCE = Options(metrics=("force",), untuned=True)
BY_SIZE = Options(compare="npre", metrics=("force",))


def table_of(rows):
    return normalise(pd.DataFrame(rows, columns=[*COLUMNS, *EXTRA]), "runs")


@pytest.fixture(scope="module")
def tubes():
    """Specialised: 0.7 times direct on its own set, 1.4 and 2.7 times pre-trained on another."""
    rows = []
    for tested, error in (("tubes", 0.6), ("general", 0.8)):
        rows.append(("pretrain", tested, "ace", 100, 0, 42, 90.0, error, "S", "none", "42", ""))
        rows.append(("source", tested, "ace", 0, 0, 0, 50.0, 0.9 * error, "", "none", "", ""))
    for n in SIZES:
        for seed in SEEDS:
            own, far = n**-0.3 * (1 + seed / 100), 1 + (3 - seed) / 50
            direct, tuned = ("", "none", ""), ("S", "none", "42")
            rows += [
                ("direct", "tubes", "none", 0, n, seed, 9.0, own, *direct, ""),
                ("finetune", "tubes", "ace", 100, n, seed, 9.0, 0.7 * own, *tuned, ""),
                ("transfer", "general", "none", 0, n, seed, 500.0, 2.16 * far, *direct, "tubes"),
                ("transfer", "general", "ace", 100, n, seed, 500.0, 1.12 * far, *tuned, "tubes"),
            ]
    return table_of(rows)


@pytest.fixture(scope="module")
def silicon():
    """An alchemical study: of two transforms only the second one helps, the more the larger."""
    rows = []
    for n in (25, 400, 1600):
        for seed in SEEDS:
            error = n**-0.4 * (1 + seed / 100)
            rows.append(("direct", "Si", "none", 0, n, seed, 9.0, error, "", "none", "", ""))
            for transform, gain in (("Si", 0.0), ("Si-x1.5", 0.1)):
                for npre in (100, 1000):
                    tuned = error * (1 - gain * np.log10(npre))
                    row = ("finetune", "Si", "ace", npre, n, seed, 9.0, tuned)
                    rows.append((*row, "S", transform, "42", ""))
    return table_of(rows)


def on_each(runs, compare="source"):
    return [
        select(on_test_set(runs, "tubes", tested), Selection(target=tested), compare=compare)
        for tested in sets_tested(runs, "tubes")
    ]


def curves(axes):
    """Colour and points of each curve."""
    return {c.lines[0].get_color(): c.lines[0].get_xydata()[:, 1] for c in axes.containers}


def letters(figure):
    return [axes.get_title("left") for axes in figure.axes if axes.get_title("left")]


def heads(figure):
    return {
        axes.get_title("left"): [text.get_text() for text in axes.texts] for axes in figure.axes
    }


def test_the_same_models_on_two_test_sets(tubes):
    assert sets_tested(tubes, "tubes") == ["tubes", "general"]
    own, general = on_each(tubes)
    assert general.chosen.target == "general"
    key = ["kind", "source", "npre", "n", "seed"]
    assert own.runs[key].values.tolist() == general.runs[key].values.tolist()
    # They are no runs of the general dataset, for any other table.
    assert select(tubes).chosen.target == "tubes"
    assert not len(tubes[(tubes["kind"] == "direct") & (tubes["target"] == "general")])


def test_a_specialised_target_has_a_panel_for_each_test_set(tubes):
    titles = {"datasets": {"general": "everything"}}
    figure = specialised(on_each(tubes), FORCE, titles=titles)
    assert letters(figure) == ["a", "c"]
    assert heads(figure) == {"a": ["tested on tubes"], "c": ["tested on everything"]}
    best = [n**-0.3 * 1.01 for n in SIZES]
    here, there = (curves(axes) for axes in figure.axes)
    assert here["#000000"].tolist() == pytest.approx(best)
    assert here["#0072B2"].tolist() == pytest.approx([0.7 * error for error in best])
    assert there["#000000"].tolist() == pytest.approx([2.16] * 3)
    assert there["#0072B2"].tolist() == pytest.approx([1.12] * 3)
    levels = [
        [line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1][-1]
        for axes in figure.axes
    ]
    assert levels == [0.6, 0.8]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["direct", "fine-tuned\n(C-ACE)", "pre-trained,\nnot tuned"]
    note = figure.texts[0].get_text()
    assert "trained on tubes" in note and "100 pre-training structures" in note
    assert "best of 3 seeds" in note


def test_an_embedding_takes_the_second_letter(tubes):
    drawn = []
    figure = specialised(on_each(tubes), FORCE, embedding=drawn.append)
    assert letters(figure) == ["a", "b", "c"]
    assert drawn[0].get_title("left") == "b"


def test_transforms_have_panels_and_bars(silicon):
    titles = {"transforms": {"Si": "unscaled"}, "datasets": {}}
    selections = select_each(silicon, compare="npre")
    figure = alchemical(selections, BY_SIZE, titles=titles)
    assert letters(figure) == ["a", "b", "d"]
    assert heads(figure)["a"] == ["unscaled"] and heads(figure)["b"] == ["Si-x1.5"]
    a, b, bars = figure.axes
    assert a.get_ylim() == b.get_ylim()
    assert len(curves(a)) == 3 and len(curves(b)) == 3
    # No colour but black is in both.
    assert set(curves(a)) & set(curves(b)) == {"#000000"}
    assert heads(figure)["d"] == ["400 DFT-labelled structures"]
    heights = [patch.get_height() for patch in bars.patches]
    mean = 400**-0.4 * 1.02
    assert heights == pytest.approx([mean, mean, 0.8 * mean, mean, 0.7 * mean])
    ticks = [tick.get_text() for tick in bars.get_xticklabels()]
    assert ticks == ["direct", "100", "1000"]
    assert bars.get_yscale() == "log" and 0.5 * mean < bars.get_ylim()[0] < 0.7 * mean
    points = [len(line.get_ydata()) for line in bars.lines if line.get_marker() == "o"]
    assert points == [3] * 5
    with_map = alchemical(selections, BY_SIZE, embedding=lambda axes: None)
    assert sorted(letters(with_map)) == ["a", "b", "c", "d"]


def test_curves_far_above_direct_training_are_marked_at_the_end_of_the_axis(silicon):
    runs = silicon.copy()
    far = (runs["transform"] == "Si") & (runs["npre"] == 100) & (runs["n"] == 25)
    runs.loc[far, "test_force_rmse"] = 3.7
    a, b, bars = alchemical(select_each(runs, compare="npre"), BY_SIZE, bars_of="last").axes
    worst = 25**-0.4 * 1.01
    assert worst < a.get_ylim()[1] < 1.5 * worst
    assert "▲ up to 3.7" in [text.get_text() for text in a.texts]
    (arrow,) = [line for line in a.lines if line.get_marker() == "^"]
    assert list(arrow.get_xdata()) == [25] and arrow.get_color() in curves(a)
    assert not [line for line in b.lines if line.get_marker() == "^"]
    # One bar of direct training, and one a size of the last transform.
    assert len(bars.patches) == 3


def test_bars_are_at_the_nearest_size_that_was_run(silicon):
    selections = select_each(silicon, compare="npre")
    assert [nearest_size(selections, n) for n in (400, 1, 90, 900, 10**6)] == [
        *(400, 25, 25, 1600, 1600),
    ]


def test_a_diverged_run_does_not_flatten_the_bars(silicon):
    runs = silicon.copy()
    lost = (runs["n"] == 400) & (runs["npre"] == 1000) & (runs["seed"] == 3)
    runs.loc[lost, "test_force_rmse"] = 50.0
    figure = alchemical(select_each(runs, compare="npre"), BY_SIZE)
    bars = figure.axes[-1]
    assert bars.get_ylim()[1] < 0.2
    assert [text.get_text() for text in bars.texts].count("*") == 2
    assert "* a seed diverged" in figure.texts[0].get_text()


def test_other_shapes_of_experiment_are_drawn(tubes, silicon):
    """By size on several test sets, by source, with one seed or transform, mean of the seeds."""
    by_size = Options(compare="npre", metrics=("force",), untuned=True, aggregate="mean")
    assert letters(specialised(on_each(tubes, "npre"), by_size)) == ["a", "c"]
    by_source = select_each(silicon[silicon["npre"] != 100], compare="source")
    assert letters(alchemical(by_source, FORCE)) == ["a", "b", "d"]
    one = select_each(silicon[silicon["transform"] != "Si"], compare="npre")
    assert letters(alchemical(one, BY_SIZE)) == ["a", "c"]
    seed = silicon[silicon["seed"] == 1]
    assert letters(alchemical(select_each(seed, compare="npre"), BY_SIZE)) == ["a", "b", "d"]
    direct = silicon[silicon["kind"] == "direct"]
    assert letters(alchemical(select_each(direct, compare="npre"), BY_SIZE)) == ["a", "c"]


def test_missing_runs_are_said(tubes, silicon):
    runs = silicon.copy()
    runs["status"] = "missing"
    runs[["test_energy_rmse", "test_force_rmse"]] = np.nan
    figure = alchemical(select_each(runs, compare="npre"), BY_SIZE)
    assert "45 of 45 runs missing" in figure.texts[0].get_text()
    assert sum("no results yet" in texts for texts in heads(figure).values()) == 3


def test_the_numbers_of_all_panels_are_a_table(tubes, silicon):
    table = panel_table(on_each(tubes), FORCE, "specialised")
    counts = table.groupby(["panel", "test_set", "kind"]).size()
    assert counts.to_dict() == {
        (panel, tested, kind): count
        for panel, tested in (("a", "tubes"), ("c", "general"))
        for kind, count in (("direct", 3), ("finetune", 3), ("pretrain", 1))
    }
    table = panel_table(select_each(silicon, compare="npre"), BY_SIZE, "alchemical", 400)
    bars = table[table["panel"] == "d"].set_index(["transform", "npre"])
    assert set(bars["aggregate"]) == {"mean"} and len(bars) == 5
    assert bars.loc[("none", 0), "value"] == pytest.approx(400**-0.4 * 1.02)
    assert bars.loc[("none", 0), "std"] == pytest.approx(400**-0.4 * 0.01)
    table = panel_table([select(silicon[silicon["transform"] != "Si"])], Options())
    assert set(table["metric"]) == {"energy", "force"} and set(table["panel"]) == {""}


def test_forgetting_in_units_of_the_pre_trained_model(tubes):
    runs = tubes.assign(test_energy_shifted_rmse=tubes["test_energy_rmse"])
    table = forgetting(runs)
    force = table[table["metric"] == "force"].set_index(["aggregate", "n"])
    row = force.loc[("best", 60)]
    assert row["ratio_finetuned"] == pytest.approx(1.4)
    assert row["ratio_direct"] == pytest.approx(2.7)
    assert row["seeds_direct"] == 3 and row["rmse_pretrained"] == 0.8
    # Seed 1 is the best on the tubes, seed 3 on the general test set.
    assert force.loc[("same", 60), "ratio_direct"] == pytest.approx(2.7 * 1.04)
    assert force.loc[("mean", 60), "ratio_direct"] == pytest.approx(2.7 * 1.02)
    energy = table[table["metric"] == "energy"].set_index(["aggregate", "n"])
    assert energy.loc[("best", 15), "ratio_finetuned"] == pytest.approx(500 / 90)
    # Energies before a shift say nothing here, and are left out.
    assert set(forgetting(tubes)["metric"]) == {"force"}


def test_forgetting_beside_the_published(tubes, root):
    runs = tubes.replace({"general": "C-GAP-17"})
    runs["npre"] = runs["npre"].replace(100, 10000)
    table = forgetting(runs)
    claims = read_claims(root / "resources/published/headline.csv")
    beside = claims_of_forgetting(claims, table).set_index("quantity")
    assert beside.loc["forgetting_finetuned", "median"] == pytest.approx(1.4)
    assert beside.loc["forgetting_direct", "value"] == 2.7
    text = " ".join(as_markdown(table, claims=beside.reset_index()).split())
    assert "| forgetting direct | 2.70 (2.70 to 2.70) | 2.7 |" in text
    assert len(claims_of_forgetting(claims, forgetting(tubes))) == 0


def test_published_values_are_drawn_on_the_target_and_beside_the_untuned_model(tubes, root):
    """On the general test set only the untuned model is published: 0.881 eV/Å."""
    runs = tubes.replace({"general": "C-GAP-17", "tubes": "nanotubes"})
    runs["npre"] = runs["npre"].replace(100, 10000)
    options = Options(metrics=("force",), untuned=True)
    selections = [
        with_published_errors(
            select(on_test_set(runs, "nanotubes", tested), Selection(target=tested)),
            root / "resources/published/headline.csv",
            tested,
        )
        for tested in ("nanotubes", "C-GAP-17")
    ]
    points = root / "resources/published/points.csv"
    published = published_points(None, points, "nanotubes", selections[:1])
    figure = specialised(selections, options, published=published)

    def hollow(axes):
        lines = [line for line in axes.get_lines() if line.get_markerfacecolor() == "none"]
        return [y for line in lines for y in line.get_ydata()]

    assert hollow(figure.axes[0])[:2] == [0.6338, 0.4388]
    assert hollow(figure.axes[1]) == [0.881]
    table = panel_table(selections, options, "specialised", published=published)
    table = table[table["kind"] == "published"]
    assert set(table["metric"]) == {"force"}
    assert table.loc[table["test_set"] == "C-GAP-17", "value"].tolist() == [0.881]


def test_published_values_of_transforms_stand_beside_direct_training_too(silicon, root):
    runs = silicon.replace({"target": {"Si": "Si-GAP-18"}})
    selections = select_each(runs, Selection(target="Si-GAP-18"), compare="npre")
    points = root / "resources/published/points.csv"
    published = published_points(None, points, "Si-GAP-18", selections, compare="npre")
    assert published.loc[published["npre"] == 0, "transform"].unique().tolist() == ["none"]
    options = Options(compare="npre", metrics=("force",))
    figure = alchemical(selections, options, published=published)
    assert "published, same statistic" in [
        text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()
    ]


def test_shades_of_a_colour_darken():
    values = [10_000, 100, 330, 1000, 3300]
    shades = ramp("#1BA3A3", values)
    light = [sum(to_rgb(shades[value])) for value in sorted(values)]
    assert light == sorted(light, reverse=True) and len(set(shades.values())) == 5


def test_titles_say_what_a_transform_does(tmp_path):
    path = tmp_path / "styles.yaml"
    path.write_text(
        "sources: {}\ndatasets: {T: {title: tubes}}\n"
        "transforms: {none: {scale: 1.0}, x: {elements: {C: Si}, scale: 1.5, cutoff: 6.0}}\n"
    )
    titles = read_titles(path)
    assert titles["datasets"] == {"T": "tubes"}
    assert titles["transforms"]["x"] == "C as Si, scaled 1.5 ×, cut-off 6 Å"
    assert titles["transforms"]["none"] == "unscaled"


def test_the_script(tmp_path, script, silicon, tubes):
    for name, runs, target in (("alchemical", silicon, "Si"), ("specialised", tubes, "tubes")):
        write_csv(tmp_path / "runs.csv", runs)
        options = ["--figure", name, "--runs", tmp_path / "runs.csv", "--target", target]
        options += ["--out", tmp_path / f"{name}.png", "--table", tmp_path / f"{name}.csv"]
        assert script("composed_figure", *options) == (0, "")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert set(pd.read_csv(tmp_path / f"{name}.csv")["panel"]) <= set("abcd")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 2)), columns=["x", "y"])
    table = table.assign(density=2.0, coordination=3, energy=-7.0, sample="one", role="base")
    table.loc[40:, ["sample", "role"]] = "two", "project"
    table.to_csv(tmp_path / "map.csv", index=False)
    samples = {"one": {"role": "base"}, "two": {"role": "project"}}
    titled = {name: {**s, "title": "a title as long as titles are"} for name, s in samples.items()}
    style = {"colour_by": ["set"], "samples": titled}
    (tmp_path / "style.yaml").write_text(yaml.safe_dump(style))
    embedding = ["--embedding", tmp_path / "map.csv", "--embedding-style", tmp_path / "style.yaml"]
    # Matplotlib only warns of panels without space.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert script("composed_figure", *options, *embedding) == (0, "")
    failed = script("composed_figure", *options, "--embedding", "map.csv")
    assert failed == (1, "error: --embedding and --embedding-style: give both or neither\n")
