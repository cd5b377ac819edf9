"""The shipped grid is the published study: every setting of the paper, and its place there.

Paper: Gardner, Baker, Deringer, "Synthetic pre-training for neural-network interatomic potentials"
(2023), by section or figure. Records: the code, data and run records that the authors published.
"""

from __future__ import annotations

import pytest

from pretraining.study.config import load_config

C_SIZES = [25, 50, 100, 200, 400, 800, 1600, 3200]
SEEDS = [1, 2, 3, 4, 42]
# Key, value, place.
PROTOCOL = [
    # Data sets
    ("datasets/C-SYNTH-23M/load_atoms", "C-SYNTH-23M", "3.3"),
    ("datasets/C-SYNTH-23M/structures", 115206, "3.3: 23 million atoms in cells of 200; records"),
    ("datasets/C-SYNTH-23M/filters", [{"key": "time", "min": 10}], "records: reasonable frames"),
    ("datasets/C-GAP-17/structures", 4530, "records"),
    ("datasets/C-GAP-17/filters", [{"key": "config_type", "exclude": ["dimer"]}], "records"),
    ("datasets/C-GAP-17/energy_reference", {"given": {"C": -148.314002}}, "records"),
    ("datasets/C-GAP-17/split/key", "split", "Fig. 2: a hold-out test set"),
    ("datasets/C-GAP-17/split/seed", 42, "records"),
    ("datasets/nanotubes/load_atoms", "C-GAP-20U", "5.2"),
    ("datasets/nanotubes/energy_reference", {"none": True}, "records"),
    (
        "datasets/nanotubes/filters",
        [{"key": "config_type", "include": ["Nanotubes", "Fullerenes"]}],
        "5.2 names nanotubes; records: fullerenes, too",
    ),
    ("datasets/Si-GAP-18/structures", 2475, "5.3, records"),
    ("datasets/Si-GAP-18/filters", [{"neighbours_within": 6.0}], "records"),
    ("datasets/Si-GAP-18/energy_reference", {"given": {"Si": -158.54496821}}, "records"),
    # Label sources
    ("sources/ace/calculator", "pyace.PyACECalculator", "3.4: pacemaker"),
    ("sources/gap20u/calculator", "quippy.potential.Potential", "3.4: quippy"),
    (
        "sources/lcbop/args",
        ["Sim_LAMMPS_LCBOP_LosFasolino_2003_C__SM_469631949122_000"],
        "3.4: openkim",
    ),
    (
        "sources/edip/args",
        ["Sim_LAMMPS_EDIP_JiangMorganSzlufarska_2012_SiC__SM_435704953434_000"],
        "inferred from the published weights",
    ),
    # Network
    ("network/num_layers", 4, "3.4"),
    ("network/num_features", 32, "3.4"),
    ("network/cutoff", 4.0, "3.4"),
    ("network/l_max", 1, "records"),
    ("network/parity", True, "records"),
    ("network/num_bessels", 8, "default of NequIP 0.5"),
    ("network/bessel_trainable", True, "default of NequIP 0.5"),
    ("network/polynomial_cutoff_p", 6, "default of NequIP 0.5"),
    ("network/radial_mlp_depth", 1, "records"),
    ("network/radial_mlp_width", 8, "records"),
    # Training
    ("training/loss", {"energy": 4.0, "forces": 1.0}, "3.4"),
    ("training/ema_decay", 0.99, "3.4"),
    ("training/batch_size", 10, "records"),
    ("training/val_batch_size", 20, "records"),
    ("training/learning_rate", 0.01, "records"),
    ("training/patience", 40, "records"),
    ("training/min_delta", 0.005, "records"),
    ("training/max_epochs", 300, "records: 94 % of the runs"),
    ("training/pretrain/max_epochs", 500, "records: EDIP's took 446"),
    # Experiments
    ("experiments/fig2/pretrain_sizes", [100, 330, 1000, 3300, 10000, 33000, 100000], "Fig. 2"),
    ("experiments/fig2/sizes", C_SIZES, "Fig. 2"),
    ("experiments/fig2/finetune_seeds", [42], "Fig. 2: a single seed"),
    ("experiments/fig2/direct_seeds", SEEDS, "Fig. 2: best of 5"),
    ("experiments/fig2/sources", ["ace"], "4"),
    ("experiments/fig3/sources", ["edip", "lcbop", "gap20u", "ace"], "Table 1"),
    ("experiments/fig3/pretrain_sizes", [10000], "Fig. 3"),
    ("experiments/fig3/sizes", C_SIZES, "Table 1"),
    ("experiments/fig3/finetune_seeds", SEEDS, "Table 1"),
    ("experiments/fig4/sources", ["ace"], "5.2"),
    ("experiments/fig4/pretrain_sizes", [10000], "5.2"),
    ("experiments/fig4/sizes", [15, 30, 60, 120, 240], "Fig. 4a"),
    ("experiments/fig4/also_test", ["C-GAP-17"], "Fig. 4c"),
    ("experiments/fig5/pretrain_sizes", [100, 330, 1000, 3300, 10000], "Fig. 5"),
    ("experiments/fig5/sizes", [25, 50, 100, 200, 400, 800, 1600], "Fig. 5"),
    ("transforms/Si-x1.5/scale", 1.5, "5.3: 2.1 / 1.4"),
    ("transforms/Si-x1.5/elements", {"C": "Si"}, "5.3"),
    # Maps
    ("embeddings/fig4b/base/0/structures", 100, "records"),
    ("embeddings/fig4b/base/0/shown", 10000, "records"),
    ("embeddings/fig4b/project/0/environments", 1000, "records"),
    ("embeddings/fig5c/base/0/environments", 5000, "records"),
    ("embeddings/fig5c/n_neighbors", 4, "records"),
    # Molecular dynamics
    ("dynamics/fig4d/models/0/n", [60], "records"),
    (
        "dynamics/fig4d/start/where",
        {"density": 1.5, "run_id": 6, "anneal_T": 2000, "time": 21},
        "5.2: 1.5 g/cm³; records",
    ),
    (
        "dynamics/fig4d/stages",
        [{"from": 300, "to": 3000, "ps": 100}, {"temperature": 3000, "ps": 900}],
        "5.2",
    ),
    ("dynamics/fig4d/timestep_fs", 1, "records"),
    ("dynamics/fig4d/damping_fs", 100, "records"),
    # Figures and cost
    ("figures/aggregate", "best", "Figs. 2 and 3"),
    ("figures/bars_at", 400, "Fig. 5d"),
    ("cost/power_w", 300, "3.4"),
]


@pytest.fixture(scope="module")
def paper(root):
    return load_config(root / "config/config.yaml")


@pytest.mark.parametrize(("key", "value", "place"), PROTOCOL, ids=[row[0] for row in PROTOCOL])
def test_the_grid_has_the_published_setting(paper, key, value, place):
    found = paper
    for part in key.split("/"):
        found = found[int(part)] if isinstance(found, list) else found[part]
    assert found == value, place
