"""Learning curves: what is drawn, what is said of it, and that the files are stable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from pretraining.figures.learning_curves import learning_curves, panel_table
from pretraining.figures.loss_surface import loss_surface
from pretraining.figures.panels import Options
from pretraining.figures.style import plain, round_values, save, shades, source_looks
from pretraining.results.published import published_points
from pretraining.results.runs_table import COLUMNS, normalise
from pretraining.results.seed_statistics import common_seeds, curve_points, describe_runs
from pretraining.results.selection import Selection, select, select_each
from pretraining.runtime.errors import UserError
from pretraining.study.titles import order_sources, read_styles

SIZES = (8, 16, 48)


def study(sources=("ace", "edip"), sizes=(100, 300), seeds=(1, 2), transforms=("none",)):
    """Runs whose errors fall with n, made of a formula."""
    rows = []
    for n in SIZES:
        for seed in seeds:
            error = 100 * n**-0.5 * (1 + seed / 100)
            rows.append(("direct", "T", "none", 0, n, seed, error, error / 50, "none", "ok"))
            for transform in transforms:
                for source in sources:
                    for npre in sizes:
                        tuned = error * (0.9 if source == "edip" else 30 / npre**0.8)
                        row = ("finetune", "T", source, npre, n, seed, tuned, tuned / 50)
                        rows.append((*row, transform, "ok"))
    return normalise(pd.DataFrame(rows, columns=[*COLUMNS, "transform", "status"]), "runs")


def note_of(figure: Figure) -> str:
    return figure.texts[0].get_text()


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def drawn(axes) -> list[np.ndarray]:
    return [bar.lines[0].get_xydata() for bar in axes.containers]


def test_points_are_the_best_or_the_mean_of_the_seeds():
    runs = study()
    best = curve_points(runs[runs["source"] == "none"], "energy", "best")
    assert best["value"].tolist() == pytest.approx([100 * n**-0.5 * 1.01 for n in SIZES])
    assert best["std"].isna().all()
    mean = curve_points(runs[runs["source"] == "none"], "energy", "mean")
    assert mean["value"].tolist() == pytest.approx([100 * n**-0.5 * 1.015 for n in SIZES])
    assert mean["std"].tolist() == pytest.approx([100 * n**-0.5 * 0.01 / 2**0.5 for n in SIZES])


def test_every_cell_of_the_loss_surface_has_its_error_and_the_published_one():
    runs = study(("ace",), transforms=("none", "Si"))
    selections = select_each(runs, compare="npre")
    points = curve_points(runs[runs["npre"] == 0], "energy", "best")
    published = points.assign(transform="none", aggregate="best", value=77.7)
    figure = loss_surface(selections, Options(compare="npre"), published=published)
    assert [axes.get_xlabel() for axes in figure.axes] == ["DFT-labelled structures"] * 4
    for energy, force in (figure.axes[:2], figure.axes[2:]):
        texts = [text.get_text() for text in energy.texts]
        assert len(texts) == len(force.texts) == 3 * len(SIZES)
        assert texts[-len(SIZES) :] == ["35.7\n(77.7)", "25.2\n(77.7)", "14.6\n(77.7)"]
        assert [label.get_text() for label in energy.get_yticklabels()] == ["none", "100", "300"]
    # Lost cells stay white; a figure of nothing says so.
    runs.loc[runs["npre"] == 100, ["test_energy_rmse", "test_force_rmse"]] = np.nan
    figure = loss_surface(select_each(runs, compare="npre"), Options(compare="npre"))
    assert len(figure.axes[0].texts) == 2 * len(SIZES)
    runs.loc[:, ["test_energy_rmse", "test_force_rmse"]] = np.nan
    figure = loss_surface(select_each(runs, compare="npre"), Options(compare="npre"))
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["no results yet"] * 4


def test_sizes_are_compared_with_the_seeds_they_share():
    runs = study(seeds=(1, 2, 42))
    few = (runs["npre"] == 100) & (runs["seed"] != 42)
    shared = common_seeds(runs[~few])
    assert set(shared[shared["kind"] == "finetune"]["seed"]) == {42}
    assert set(shared[shared["kind"] == "direct"]["seed"]) == {1, 2, 42}


def test_a_curve_for_each_source_with_direct_training_in_black():
    figure = learning_curves([select(study())], Options())
    energy, force = figure.axes
    assert legend_of(figure) == ["Direct", "EDIP", "C-ACE"]
    assert energy.get_ylabel() == "energy RMSE (meV/atom)"
    assert force.get_ylabel() == "force RMSE (eV/Å)"
    for axes in figure.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        lines = [bar.lines[0] for bar in axes.containers]
        assert [line.get_color() for line in lines] == ["#000000", "#E69F00", "#0072B2"]
        assert [line.get_linestyle() for line in lines] == ["-", "--", "-"]
    assert drawn(energy)[0][:, 0].tolist() == list(SIZES)
    assert drawn(energy)[0][:, 1].tolist() == pytest.approx([100 * n**-0.5 * 1.01 for n in SIZES])
    assert [tick.get_text() for tick in energy.get_xticklabels()] == ["8", "16", "48"]


def test_a_curve_for_each_size_of_one_source():
    figure = learning_curves([select(study(), compare="npre")], Options(compare="npre"))
    assert legend_of(figure) == ["none (direct)", "100", "300"]
    assert len(drawn(figure.axes[0])) == 3
    assert "300 pre-training" not in note_of(figure)


def test_transforms_have_panels_of_their_own_with_common_limits():
    runs = study(transforms=("Si", "Si-x1.5"))
    selections = select_each(runs, compare="npre")
    assert [selected.chosen.transform for selected in selections] == ["Si", "Si-x1.5"]
    figure = learning_curves(selections, Options(compare="npre", metrics=("force",)))
    assert [axes.get_title("left") for axes in figure.axes] == ["Si", "Si-x1.5"]
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()
    one = select_each(runs, Selection(transform="Si"), compare="npre")
    assert len(one) == 1


def test_missing_and_diverged_runs_are_stated_and_marked():
    runs = study()
    runs.loc[0, "status"] = "missing"
    runs.loc[0, ["test_energy_rmse", "test_force_rmse"]] = np.nan
    lost = runs.index[(runs["source"] == "ace") & (runs["npre"] == 300)][0]
    runs.loc[lost, ["test_energy_rmse", "test_force_rmse"]] = np.nan
    figure = learning_curves([select(runs)], Options())
    note = " ".join(note_of(figure).split())
    assert "1 of 18 runs missing" in note
    assert "1 run diverged" in note
    assert "* a seed diverged" in note
    assert [text.get_text() for text in figure.axes[0].texts] == ["*"]


def test_what_is_plotted_of_the_seeds_is_stated():
    runs = study(seeds=(1, 2, 42))
    selected = select(runs)
    assert "best of 3 seeds" in describe_runs([selected], selected.runs, "best", ["energy"])
    assert "mean ± s.d. of 3 seeds" in describe_runs([selected], selected.runs, "mean", ["energy"])
    one = runs[(runs["kind"] == "direct") | (runs["seed"] == 42)]
    assert describe_runs([selected], one, "best", ["energy"])[-2:] == [
        "direct: best of 3 seeds",
        "fine-tuned: seed 42",
    ]
    # Only finished runs are seeds that something is the best of.
    runs.loc[(runs["seed"] == 2) & (runs["n"] == SIZES[0]), "status"] = "missing"
    assert "best of up to 3 seeds" in describe_runs([selected], runs, "best", ["energy"])
    runs.loc[runs["seed"] == 2, "status"] = "missing"
    assert "best of 2 seeds" in describe_runs([selected], runs, "best", ["energy"])


def test_a_figure_without_any_result_says_so():
    runs = study()
    runs["status"] = "missing"
    runs[["test_energy_rmse", "test_force_rmse"]] = np.nan
    figure = learning_curves([select(runs)], Options())
    assert figure.axes[0].texts[0].get_text() == "no results yet"
    assert "18 of 18 runs missing" in note_of(figure)


@pytest.mark.parametrize("compare", ["npre", "source"])
@pytest.mark.parametrize("kind", ["direct", "finetune"])
def test_either_kind_of_run_can_be_drawn_alone(compare, kind):
    runs = study()
    runs = runs[runs["kind"] == kind]
    figure = learning_curves(select_each(runs, compare=compare), Options(compare=compare))
    assert len(drawn(figure.axes[0])) == (1 if kind == "direct" else 2)


def test_lines_of_untuned_models_and_of_sources():
    extra = pd.DataFrame(
        [
            ("pretrain", "T", "ace", 300, 0, 42, 77.0, 1.7),
            ("pretrain", "T", "ace", 100, 0, 42, 99.0, 1.9),
            ("source", "T", "ace", 0, 0, 0, 55.0, 1.5),
            ("source", "other", "ace", 0, 0, 0, 11.0, 0.5),
        ],
        columns=list(COLUMNS),
    )
    runs = pd.concat([study(), normalise(extra, "extra")], ignore_index=True)
    figure = learning_curves([select(runs)], Options(untuned=True, sources=True))
    heights = {
        line.get_ydata()[0] for line in figure.axes[0].lines if len(set(line.get_ydata())) == 1
    }
    assert {77.0, 55.0} <= heights
    assert not {99.0, 11.0} & heights
    assert legend_of(figure)[-2:] == ["pre-trained,\nnot tuned", "label source\nitself"]


def test_a_line_far_from_all_curves_does_not_squeeze_them():
    extra = pd.DataFrame([("source", "T", "ace", 0, 0, 0, 1e-6, 1.0)], columns=list(COLUMNS))
    runs = pd.concat([study(), normalise(extra, "extra")], ignore_index=True)
    energy, force = learning_curves([select(runs)], Options(sources=True)).axes
    assert energy.get_ylim()[0] > 0.1
    assert [text.get_text() for text in energy.texts] == ["↓ 1e-06"]
    assert not force.texts and force.get_ylim()[0] < 1.0 < force.get_ylim()[1]


def published(root, *selections, name="C-GAP-17", **how):
    files = (root / f"resources/published/{name}.csv" for name in ("table1", "points"))
    return published_points(*files, name, selections, **how)


def test_published_values_alone(root):
    figure = learning_curves([], Options(), None, published(root))
    assert len(figure.axes) == 2 and len(legend_of(figure)) == 5
    assert drawn(figure.axes[0])[0][0].tolist() == [25, 166.5]
    assert note_of(figure) == "published values only · direct: best · fine-tuned: best"
    # Table 1 has no force errors.
    means = published(root, aggregate="mean")
    figure = learning_curves([], Options(aggregate="mean"), None, means)
    assert [axes.get_ylabel() for axes in figure.axes] == ["energy RMSE (meV/atom)"]
    assert "fine-tuned: mean" in note_of(figure)
    sizes = published(root, compare="npre")
    assert set(sizes.loc[sizes["npre"] > 0, "aggregate"]) == {"seed 42"}
    assert set(sizes.loc[sizes["npre"] == 0, "aggregate"]) == {"best"}
    assert len(legend_of(learning_curves([], Options(compare="npre"), None, sizes))) == 8
    assert published(root, name="graphene") is None
    with pytest.raises(UserError, match="nothing to draw"):
        learning_curves([], Options())


@pytest.mark.parametrize(
    ("seeds", "missing", "aggregate", "energy", "force"),
    [
        ((1, 2, 42), (), "best", 131.9, 1.1964),
        ((42,), (), "best", 131.9, 1.2196),
        ((42,), (), "mean", 131.9, 1.2196),
        # Table 1 has the mean energy error alone.
        ((1, 2, 42), (), "mean", 136.4, None),
        # So far, the curve shows seed 42; without any run, what it will show.
        ((1, 2, 42), (1, 2), "best", 131.9, 1.2196),
        ((1, 2, 42), (1, 2, 42), "best", 131.9, 1.1964),
    ],
)
def test_published_points_have_the_statistic_of_the_curve(
    root, seeds, missing, aggregate, energy, force
):
    rows = [
        ("finetune", "T", "edip", 10_000, n, seed, 1.0, 1.0) for n in (25, 30) for seed in seeds
    ]
    runs = normalise(pd.DataFrame(rows, columns=list(COLUMNS)), "runs")
    runs.loc[runs["seed"].isin(missing), "status"] = "missing"
    found = published(root, select(runs), aggregate=aggregate)
    # Nothing is published for 30 structures, and nothing but the figure's cells is shown.
    assert set(found["n"]) == {25} and set(found["source"]) == {"edip"}
    values = found.set_index("metric")["value"].to_dict()
    assert values == {"energy": energy} | ({"force": force} if force else {})


def test_single_published_runs_are_no_best_of_seeds(root):
    rows = [("finetune", "T", "ace", 100, 25, seed, 1.0, 1.0) for seed in (1, 42)]
    runs = normalise(pd.DataFrame(rows, columns=list(COLUMNS)), "runs")
    assert published(root, select(runs, compare="npre")) is None
    found = published(root, select(runs[runs["seed"] == 42], compare="npre"))
    assert found["value"].tolist() == [125.4, 1.0674]


def test_published_values_beside(root, tmp_path, caplog):
    columns = [*COLUMNS, "transform"]
    rows = [("finetune", "T", "ace", npre, 25, 42, 99.0, 1.0, "none") for npre in (100, 300)]
    runs = normalise(pd.DataFrame(rows, columns=columns), "runs")
    selected, options = select(runs, compare="npre"), Options(compare="npre")
    beside = published(root, selected, compare="npre")
    figure = learning_curves([selected], options, None, beside)
    assert legend_of(figure) == ["100", "300", "published,\nsame statistic"]
    table = panel_table([selected], options, published=beside)
    shown = table[table["kind"] == "published"]
    assert shown[["test_set", "npre", "aggregate"]].drop_duplicates().values.tolist() == [
        ["T", 100, "seed 42"]
    ]
    save(figure, tmp_path / "a.png")
    # Matplotlib warns of signs that its fonts lack.
    assert not caplog.records


def test_figures_are_reproducible_sharp_and_with_text_as_text(tmp_path):
    suffixes = ("pdf", "png", "svg")
    for k in "ab":
        figure = learning_curves([select(study())], Options(aggregate="mean"))
        save(figure, *(tmp_path / f"{k}.{suffix}" for suffix in suffixes))
    for suffix in suffixes:
        first, second = ((tmp_path / f"{k}.{suffix}").read_bytes() for k in "ab")
        assert first == second
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.width == 2025
    # Type 42 fonts can be searched and edited; Type 3 ones are refused by some journals.
    assert b"/Type0" in (tmp_path / "a.pdf").read_bytes()


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(UserError, match="figure.docx"):
        save(Figure(), tmp_path / "figure.docx")


def test_the_script_draws_from_eight_columns(tmp_path, root, script):
    study()[list(COLUMNS)].to_csv(tmp_path / "runs.csv", index=False)
    out = tmp_path / "fig3.png"
    options = ["--runs", tmp_path / "runs.csv", "--figure", "fig3", "--out", out]
    published = ["--published", root / "resources/published/table1.csv"]
    # The published values are of another test set than T.
    done = script("learning_curves", *options, *published)
    assert done == (0, "note: nothing is published for T\n")
    assert out.stat().st_size > 10_000
    status, message = script("learning_curves", *options, "--target", "X")
    assert status == 1 and message.count("\n") == 1
    assert message.endswith("no runs with target 'X'; there are: T\n")


def styles_file(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_sources_are_named_and_ordered_by_the_configuration(tmp_path):
    styles = read_styles(
        styles_file(tmp_path, "sources: {b: {title: Bee, kind: ml}, a: {kind: empirical}, c: {}}")
    )
    assert order_sources(["c", "b", "none", "a", "z"], styles) == ["none", "a", "b", "c", "z"]
    looks = source_looks(["none", "a", "b", "c"], styles)
    assert looks["a"]["linestyle"] != "-"
    assert looks["b"]["linestyle"] == "-"
    assert len({look["color"] for look in looks.values()}) == 4
    for text in ("[a]", "sources: {a: 1}", "sources: {a: {kind: magic}}", "a: ["):
        with pytest.raises(UserError, match="config.yaml"):
            read_styles(styles_file(tmp_path, text))


def test_larger_sizes_are_darker():
    def light(colour: str) -> float:
        return sum(int(colour[i : i + 2], 16) * w for i, w in ((1, 0.2), (3, 0.7), (5, 0.1)))

    colours = shades([100_000, 100, 330, 1000, 3300, 10_000, 33_000])
    brightness = [light(colours[size]) for size in sorted(colours)]
    assert brightness == sorted(brightness, reverse=True)


@given(st.floats(1e-3, 1e4), st.floats(1.02, 1e4))
@settings(max_examples=100, deadline=None)
def test_ticks_are_round_and_inside(low, factor):
    ticks = round_values(low, low * factor)
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= low * factor for tick in ticks)
    assert 2 <= len(ticks) <= 9
    assert all(len(f"{tick:.2e}".split("e")[0]) <= 4 for tick in ticks)


def test_tick_labels_have_no_powers():
    assert [plain(v) for v in (25, 3200, 10_000, 0.5)] == ["25", "3200", "10,000", "0.5"]
