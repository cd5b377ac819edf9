"""Fine-tuning from published weights, with neither structures nor sources of their pre-training."""

from __future__ import annotations

import copy

import pandas as pd
import pytest
import torch

import copper
from copper import CONFIG, add_files, counts, run, write
from pretraining.training.network.builders import build_network, network_config

pytestmark = pytest.mark.slow

WEIGHTS = {"structures": "melt", "source": "secret", "npre": 12, "seed": 1, "elements": ["Cu"]}
WEIGHTS |= {"file": "resources/secret.pth", "avg_num_neighbors": 12.0}


def old_state(network):
    """Return the parameters of a network under the names of NequIP 0.5.6."""
    state = {}
    for name, value in network.named_parameters():
        prefix, radial, layer = name.partition(".edge_mlp.mlp.")
        if radial:
            name = f"{prefix}.fc.layer{int(layer.removesuffix('.weight')) // 2}.weight"
        elif name.endswith("bessel_weights"):
            name = name.replace(".bessel_weights", ".basis.bessel_weights")
            value = value.float().flatten()
        state[name] = value.detach().clone()
    return state


@pytest.fixture(scope="module")
def study(copy_repository, tmp_path_factory):
    """A finished study of copper that starts from a file of weights alone."""
    checkout = copy_repository(tmp_path_factory.mktemp("weights"))
    add_files(checkout)
    network = {**CONFIG["network"], "model": "paper"}
    config = network_config(network, type_names=["Cu"], avg_num_neighbors=12.0, seed=3)
    torch.save(old_state(build_network(config)), checkout.folder / WEIGHTS["file"])
    config = copy.deepcopy(CONFIG) | {"pretrained_weights": [WEIGHTS]}
    del config["sources"], config["datasets"]["Cu-synthetic"]
    config["datasets"]["Cu"]["energy_reference"] = {"least_squares": True}
    config["experiments"]["fig3"] |= {"structures": "melt", "sources": ["secret"], "sizes": [3]}
    checkout.config = config
    write(checkout, config)
    run(checkout)
    return checkout


def test_the_untuned_model_is_tested_and_nothing_is_pretrained(study):
    runs = pd.read_csv(study.folder / "results/copper/tables/runs.csv")
    kinds = runs["kind"].value_counts().to_dict()
    assert kinds == {"finetune": 1, "direct": 1, "pretrain": 1}
    assert runs[["test_energy_rmse", "test_force_rmse"]].notna().all(axis=None)
    assert not (study.folder / "results/copper/data/melt").exists()
    assert (study.folder / "results/copper/figures/fig3.pdf").is_file()


def refused(study, *arguments):
    process = run(study, "-n", *arguments, check=False)
    assert process.returncode == 1
    return process.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "results/copper/data/melt/prepared.h5",
            "error: datasets.melt: no structures: give one of: load_atoms | path | generate | "
            "prototypes",
        ),
        (
            "results/copper/evaluations/target~Cu/source~secret/metrics.json",
            "error: sources.secret: no calculator, so no error of its own",
        ),
        (
            "check_sources",
            "error: target 'check_sources': no source of the configuration has a calculator",
        ),
        (
            "compare_sources",
            "error: compare_sources: no source with a calculator to compare on 'Cu'",
        ),
    ],
)
def test_what_is_asked_for_by_name_names_what_is_missing(study, target, message):
    assert refused(study, target) == message


def test_another_pretraining_needs_structures_and_labels(study):
    config = copy.deepcopy(study.config)
    config["experiments"]["fig3"]["pretrain_seeds"] = [1, 2]
    write(study, config)
    assert refused(study).startswith(
        "error: config/copper.yaml: datasets.melt: give one of: load_atoms | path | generate | "
        "prototypes; its structures are read by a pre-training of experiments.fig3 that "
        "pretrained_weights lacks: structures melt, transform none, source secret, npre 12, seed 2"
    )
    fitted = {"energy_reference": {"least_squares": True}}
    config["datasets"]["melt"] = copper.CONFIG["datasets"]["Cu-synthetic"] | fitted
    config["sources"] = {"secret": copper.CONFIG["sources"]["lj"]}
    write(study, config)
    jobs = counts(study)
    assert (jobs["pretrain"], jobs["finetune"], jobs["source_error"]) == (1, 1, 1)
    assert "import_weights" not in jobs
