"""Maps of environments: their numbers, their table, their figure, their configuration."""

from __future__ import annotations

import copy

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml

from pretraining.embedding.maps import as_markdown, coverage_table, embed, nearest_distances
from pretraining.embedding.soap import Environments
from pretraining.figures.maps import (
    COLUMNS,
    GREY,
    colours_of,
    draw_embedding,
    embedding_figure,
    legend_handles,
)
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import read_csv, write_csv
from pretraining.study.config import validate_study
from pretraining.study.queries import sample_names, samples_of
from pretraining.study.views import config_view

UMAP = {"n_neighbors": 8, "min_dist": 0.1, "seed": 42}


def environments(n, seed, centre=0.0, spread=1.0, per_structure=4):
    rng = np.random.default_rng(seed)
    return Environments(
        vectors=(centre + spread * rng.normal(size=(n, 12))).astype(np.float32),
        structure=np.arange(n) // per_structure,
        atom=np.arange(n) % per_structure,
        density=rng.uniform(1, 3.5, n),
        coordination=rng.integers(1, 7, n),
        energy=np.full(n, np.nan),
    )


@pytest.fixture(scope="module")
def bases():
    return {"near": environments(150, 1), "far": environments(150, 2, centre=8)}


@pytest.fixture(scope="module")
def others():
    return {"between": environments(20, 3, centre=4), "within": environments(20, 4)}


@pytest.fixture(scope="module")
def table(bases, others):
    return embed(bases, others, **UMAP)


def test_a_map_is_the_same_each_time(tmp_path, bases, others, table):
    for name, again in (("a", table), ("b", embed(bases, others, **UMAP))):
        write_csv(tmp_path / f"{name}.csv", again)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_another_projection_moves_nothing(bases, others, table):
    alone = embed(bases, {"within": others["within"]}, **UMAP)
    for name in ("near", "far", "within"):
        xy = [t.loc[t["sample"] == name, ["x", "y"]].to_numpy() for t in (table, alone)]
        np.testing.assert_array_equal(*xy)


def test_what_is_near_in_descriptors_is_near_on_the_map(table, others):
    assert list(table["sample"].unique()) == ["near", "far", "between", "within"]
    middle = table.groupby("sample")[["x", "y"]].median()
    gap = np.linalg.norm(middle.loc["near"] - middle.loc["far"])
    assert np.linalg.norm(middle.loc["within"] - middle.loc["near"]) < 0.3 * gap
    rows = table[table["sample"] == "within"]
    np.testing.assert_array_equal(rows["coordination"], others["within"].coordination)


def test_too_small_a_base_is_named(bases):
    with pytest.raises(UserError, match="150 environments, UMAP's n_neighbors is 150"):
        embed({"near": bases["near"]}, {}, **UMAP | {"n_neighbors": 150})


def test_nearest_distances_are_those_of_all_pairs(bases, others):
    base, other = bases["near"].vectors.astype(float), others["within"].vectors.astype(float)
    all_pairs = np.linalg.norm(other[:, None] - base, axis=2)
    found = nearest_distances(others["within"].vectors, bases["near"].vectors)
    np.testing.assert_allclose(found, all_pairs.min(axis=1), rtol=1e-9)


def test_coverage_counts_what_the_base_has_seen(bases):
    base = bases["near"]
    projected = {"same": environments(400, 5), "far": environments(50, 6, centre=3)}
    found = coverage_table({"base": base}, projected).set_index("projected")
    # By its own measure 95 % of the base; a new draw of it a little more or less.
    assert 0.85 < found.loc["same", "covered"] < 1
    assert found.loc["far", "covered"] == 0
    page = " ".join(as_markdown(found.reset_index()).split())
    assert "| base | far | 50 |" in page


def test_a_base_is_not_covered_by_its_own_structures():
    # Atoms of a structure are alike, structures are not.
    apart = environments(40, 7, spread=0)
    rng = np.random.default_rng(8)
    apart.vectors[:] = np.repeat(rng.normal(size=(10, 12)), 4, axis=0)
    nearest = nearest_distances(apart.vectors, apart.vectors, apart.structure, apart.structure)
    assert nearest.min() > 1
    with pytest.raises(UserError, match="single structure"):
        coverage_table({"one": environments(4, 9)}, {"other": apart})


STYLE = {
    "colour_by": ["set", "density", "coordination", "energy"],
    "samples": {
        "near": {"role": "base", "title": "near", "shown": 40},
        "far": {"role": "base", "title": "far", "colour": "#123456"},
        "between": {"role": "project", "title": "between"},
        "within": {"role": "project", "title": "within"},
    },
}


def points(axes):
    return [len(collection.get_offsets()) for collection in axes.collections]


def test_a_panel_draws_what_it_is_told(table):
    axes = plt.figure().subplots()
    draw_embedding(axes, table, STYLE["samples"])
    assert points(axes) == [190, 20, 20]
    assert [h.get_label() for h in legend_handles(STYLE["samples"])] == [*STYLE["samples"]]
    assert all(c.get_rasterized() for c in axes.collections)
    plt.close("all")


def test_each_quantity_has_its_panel(tmp_path, table):
    write_csv(tmp_path / "map.csv", table)
    figure = embedding_figure(read_csv(tmp_path / "map.csv", COLUMNS), STYLE)
    labels = [child.get_xlabel() for axes in figure.axes for child in axes.child_axes]
    assert labels == ["density (g/cm³)", "neighbours", "energy of the structure (eV/atom)"]
    # Without an energy a point is grey, in the place of its coloured one.
    assert points(figure.axes[3]) == [190, 0, 20, 20]


def test_a_single_base_is_grey_and_colours_can_be_given():
    samples_ = STYLE["samples"]
    assert colours_of(samples_)["far"] == "#123456"
    assert len(set(colours_of(samples_).values())) == 4
    del (single := dict(samples_))["far"]
    assert colours_of(single)["near"] == GREY


@pytest.fixture
def config(root):
    return yaml.safe_load((root / "config/config.yaml").read_text())


def test_the_papers_maps(config):
    maps = validate_study(config, "config.yaml")["embeddings"]
    assert sample_names(maps["fig4b"], "base") == ["C-SYNTH-23M"]
    assert sample_names(maps["fig5c"], "base") == ["C-SYNTH-23M-Si", "C-SYNTH-23M-Si-x1.5"]
    assert maps["fig4b"]["base"][0]["structures"] == 100
    assert (maps["fig4b"]["n_neighbors"], maps["fig5c"]["n_neighbors"]) == (15, 4)


@pytest.mark.parametrize("key", ["title", "colour", "shown"])
def test_how_a_map_looks_is_told_to_its_figure_alone(config, key):
    before = validate_study(config, "a")
    after = copy.deepcopy(before)
    after["embeddings"]["fig5c"]["base"][0][key] = "other"
    after["embeddings"]["fig5c"]["colour_by"] = "density"
    parts = [
        (
            config_view(c, "embedding~fig5c"),
            [config_view(c, f"descriptors~fig5c~{n}") for n in samples_of(e)],
        )
        for c in (before, after)
        for e in [c["embeddings"]["fig5c"]]
    ]
    assert parts[0] == parts[1]
    assert config_view(before, "umap~fig5c") != config_view(after, "umap~fig5c")


def test_bonds_are_stretched_with_the_structure(config):
    config = validate_study(config, "a")
    radius = [
        config_view(config, f"descriptors~fig5c~{name}")["sample"]["neighbour_radius"]
        for name in ("C-SYNTH-23M-Si", "C-SYNTH-23M-Si-x1.5", "Si-GAP-18")
    ]
    assert radius == pytest.approx([1.85, 1.5 * 1.85, 2.85])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["base"][0].update(dataset="C-SYN"), "'C-SYN' is not one of the configured"),
        (lambda m: m["base"][0].update(transform="Ge"), "'Ge' is not one of the configured"),
        (lambda m: m["base"].append(m["base"][0]), "two samples 'C-SYNTH-23M'"),
        (lambda m: m["project"][0].update(where={"phase": ["a"]}), "'phase' is not kept"),
        (lambda m: m.update(colour_by=["set", "energy"]), "'C-SYNTH-23M' has no energies"),
        (lambda m: m.update(colour_by="colour"), "embeddings.fig4b.colour_by"),
        (lambda m: m["base"][0].update(environment=3), "did you mean 'environments'"),
    ],
)
def test_a_wrong_map_ends_in_one_line(config, change, words):
    change(config["embeddings"]["fig4b"])
    with pytest.raises(UserError) as error:
        validate_study(config, "mine.yaml")
    assert words in str(error.value) and "\n" not in str(error.value)
