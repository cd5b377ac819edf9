"""Maps of environments as rules: what is computed, and what another look computes anew."""

from __future__ import annotations

import copy

import ase.io
import pytest
import yaml

from copper import CONFIG, structures

pytestmark = pytest.mark.slow

FOLDER = "results/copper/embeddings"
MAP = {
    "base": [{"dataset": "Cu-synthetic", "part": "train", "structures": 12, "title": "base"}],
    "project": [
        {"dataset": "Cu", "environments": 20},
        {"dataset": "Cu", "name": "stretched", "transform": "x1.2", "environments": 20},
    ],
    "n_neighbors": 5,
}


@pytest.fixture(scope="module")
def study(copy_repository, tmp_path_factory):
    """A checkout in which environments have been described; their map is taken for made."""
    checkout = copy_repository(tmp_path_factory.mktemp("maps"))
    ase.io.write(checkout.folder / "resources/cu-synthetic.extxyz", structures(30, 1, False))
    ase.io.write(checkout.folder / "resources/cu.extxyz", structures(30, 2, True))
    write(checkout, lambda config: None)
    settings = [f"results/copper/settings/{part}~copper.yaml" for part in ("umap", "embedding")]
    run(checkout, f"{FOLDER}/copper.md", *settings)
    for name in ("embeddings/copper/map.csv", "figures/umap-copper.pdf", "figures/umap-copper.png"):
        path = checkout.folder / "results/copper" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("made")
    run(checkout, "--touch", "umap")
    return checkout


def write(checkout, change):
    config = copy.deepcopy(CONFIG) | {"embeddings": {"copper": copy.deepcopy(MAP)}}
    config["transforms"] = {"x1.2": {"scale": 1.2}}
    change(config)
    (checkout.folder / "config/maps.yaml").write_text(yaml.safe_dump(config))


def run(checkout, *arguments):
    checkout.snakemake("--configfile", "config/maps.yaml", "--cores", "1", *arguments)


def jobs(checkout, change):
    write(checkout, change)
    return set(checkout.job_counts("umap", "--configfile", "config/maps.yaml"))


def test_each_sample_is_described_once_and_compared(study):
    folder = study.folder / FOLDER
    assert {p.name for p in (folder / "copper").glob("*.h5")} == {
        "Cu-synthetic.h5",
        "Cu.h5",
        "stretched.h5",
    }
    text = " ".join((folder / "copper.md").read_text().split())
    assert "| Cu-synthetic | stretched | 20 |" in text and "d₉₅" in text


def test_nothing_is_left_to_do(study):
    assert jobs(study, lambda config: None) == set()


def test_another_look_draws_the_figure_and_computes_nothing(study):
    def restyle(config):
        config["embeddings"]["copper"]["colour_by"] = ["set", "density"]
        config["embeddings"]["copper"]["base"][0].update(title="other", colour="#123456")
        config["embeddings"]["copper"]["project"][1]["shown"] = 5

    assert jobs(study, restyle) == {"settings", "umap_figure", "umap"}


def test_another_parameter_of_the_map_describes_nothing(study):
    found = jobs(study, lambda c: c["embeddings"]["copper"].update(min_dist=0.3))
    assert found == {"settings", "embedding", "umap_figure", "umap"}


def test_another_projection_describes_only_itself(study):
    more = {"dataset": "Cu", "name": "test-part", "part": "test"}
    write(study, lambda c: c["embeddings"]["copper"]["project"].append(more))
    counts = study.job_counts("umap", "--configfile", "config/maps.yaml")
    assert counts["descriptors"] == counts["embedding"] == counts["coverage"] == 1
