"""The grid as Snakemake sees it: job counts, targets, and what a wrong configuration says."""

from __future__ import annotations

import resource

import pytest
import yaml

import copper

TRAINING = ("pretrain", "direct", "finetune")


@pytest.fixture(scope="module")
def everything(checkout):
    """The job counts of the paper's study, from a dry run that must be quick."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    counts = checkout.job_counts("all")
    # Seconds of the processor: about 4.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 15
    return counts


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("fig2", (7, 40, 56)),
        ("fig3", (4, 40, 160)),
        ("fig4", (1, 25, 25)),
        ("fig5", (10, 35, 350)),
    ],
)
def test_training_jobs_by_target(checkout, target, expected):
    counts = checkout.job_counts(target)
    assert tuple(counts.get(rule, 0) for rule in TRAINING) == expected


def test_the_published_unscaled_curve_is_an_experiment_on_top(checkout):
    files = ("--configfile", "config/config.yaml", "config/fig5-published.yaml")
    counts = checkout.job_counts("fig5_published", *files)
    assert tuple(counts[rule] for rule in TRAINING) == (10, 35, 350)
    # Both use the pre-trainings on stretched structures at the target's cut-off.
    counts = checkout.job_counts("fig5", "fig5_published", *files)
    assert tuple(counts[rule] for rule in TRAINING) == (15, 35, 525)


def test_figures_2_and_3_need_no_potential_with_published_labels(checkout):
    files = ("--configfile", "config/config.yaml", "config/published-labels.yaml")
    counts = checkout.job_counts("fig2", "fig3", *files)
    assert tuple(counts[rule] for rule in TRAINING) == (10, 40, 208)
    # Two sets and four sources.
    assert (counts["retrieve_files"], counts["published_labels"]) == (6, 10)
    assert not {"label", "isolated_atoms", "source_error", "own_labels"} & counts.keys()


def test_silicon_as_carbon_is_an_experiment_on_top(checkout):
    files = ("--configfile", "config/config.yaml", "config/fig5-sp2-sp3.yaml")
    counts = checkout.job_counts("fig5_sp2", "fig5_sp3", *files)
    assert tuple(counts[rule] for rule in TRAINING) == (10, 35, 350)


def test_the_default_target_is_everything(checkout, everything):
    assert tuple(everything[rule] for rule in TRAINING) == (20, 100, 583)
    assert checkout.job_counts() == everything


def test_the_catalog_finds_the_same_workflow(checkout, everything):
    """Snakemake's workflow catalog reads workflow/Snakefile."""
    assert checkout.job_counts("--snakefile", "workflow/Snakefile") == everything


def test_every_model_of_the_specialised_experiment_is_tested_twice(checkout, everything):
    counts = checkout.job_counts("fig4")
    # 25 direct, 25 fine-tuned models on the general test set, and the pre-trained one on both.
    assert counts["evaluate"] == 52
    assert counts["source_error"] == 2
    # The pre-trained one on the general test set is that of Figures 2 and 3.
    assert everything["evaluate"] == 71


def test_figures_of_several_panels(everything):
    assert (everything["learning_curves"], everything["specialised_figure"]) == (2, 1)
    assert (everything["time_figure"], everything["surface_figure"]) == (4, 2)
    # Four sources, before fine-tuning and after it on 25 and on 3,200 structures.
    assert (everything["angles_figure"], everything["predictions"]) == (1, 12)
    assert [everything[rule] for rule in ("alchemical_figure", "forgetting", "students")] == [1] * 3


def test_a_parity_plot_needs_one_model(checkout):
    run = "direct/target~nanotubes/source~none/n~15/seed~1"
    counts = checkout.job_counts(f"results/figures/parity/target~C-GAP-17/{run}.png")
    assert tuple(counts.get(rule, 0) for rule in TRAINING) == (0, 1, 0)
    assert (counts["predictions"], counts["parity"], counts["prepare"]) == (1, 1, 2)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_models_are_tested_where_they_are_trained(checkout, device):
    def edit(config):
        config["training"] |= {"device": device, "allow_cpu": True}

    path = edited(checkout, "device.yaml", edit)
    run = "direct/target~nanotubes/source~none/n~15/seed~1"
    files = [f"results/evaluations/target~C-GAP-17/{run}/metrics.json"]
    files.append(f"results/predictions/target~C-GAP-17/{run}.npz")
    output = checkout.snakemake("-n", "-p", *files, "--configfile", path).stdout
    commands = [line for line in output.splitlines() if "evaluate.py --model" in line]
    machine = f"""--machine '{{"device": "{device}", "allow_cpu": true}}'"""
    assert len(commands) == 2 and all(machine in command for command in commands)


@pytest.mark.parametrize(
    ("choice", "epochs", "expected"),
    [("auto", 300, "always"), ("auto", 1, "auto"), ("never", 300, "never")],
)
def test_programs_are_compiled_where_all_trainings_take_long(checkout, choice, epochs, expected):
    """Those of Figure 4 take days; with an epoch each, minutes."""

    def edit(config):
        config["training"] |= {"compile": choice, "max_epochs": epochs, "pretrain": {}}
        config["experiments"] = {"fig4": config["experiments"]["fig4"]}

    path = edited(checkout, "compile.yaml", edit)
    run = "direct/target~nanotubes/source~none/n~15/seed~1"
    file = f"results/runs/{run}/metrics.json"
    output = checkout.snakemake("-n", "-p", file, "--configfile", path).stdout
    (command,) = [line for line in output.splitlines() if "train.py --kind direct" in line]
    assert f'"compile": "{expected}"' in command


def test_pretraining_seeds_multiply(checkout):
    path = edited(
        checkout, "preseed.yaml", lambda c: c["experiments"]["fig3"]["pretrain_seeds"].append(7)
    )
    counts = checkout.job_counts("table1", "--configfile", path)
    assert tuple(counts[rule] for rule in TRAINING) == (8, 40, 320)


def test_the_grid_is_written_and_summarised(checkout):
    output = checkout.snakemake("grid", "--cores", "1").stdout
    assert "703 training runs, 0 finished" in output
    assert "finetune:  583 runs" in output
    lines = (checkout.folder / "results/grid.tsv").read_text().splitlines()
    assert len(lines) == 704
    assert lines[0].startswith(
        "kind\ttarget\tstructures\ttransform\tsource\tnpre\tpreseed\tn\tseed"
    )


def test_published_numbers_need_no_training(checkout):
    counts = checkout.job_counts("--config", "metrics_from=published")
    assert set(counts) == {"settings", "table1", "learning_curves", "summary", "all"}


def test_the_replication_is_redrawn_without_its_files(checkout):
    """Neither the target nor the weights are there."""
    options = ["--configfile", "config/replication.yaml"]
    counts = checkout.job_counts(*options, "--config", "metrics_from=shipped")
    others = {"table1", "differences", "efficiency", "cost", "grid_table", "settings", "all"}
    figures = {"learning_curves", "time_figure", "surface_figure", "summary"}
    assert set(counts) == others | figures | {"results_grid", "collect_runs"}
    process = checkout.snakemake("-n", *options, check=False)
    last = process.stdout.strip().splitlines()[-1]
    assert process.returncode == 1
    assert "datasets.C-GAP-17-PBE.path: no such file" in last
    config = ["--config", "metrics_from=shipped", "shipped=absent.csv"]
    process = checkout.snakemake("-n", *options, *config, check=False)
    last = process.stdout.strip().splitlines()[-1]
    assert process.returncode == 1 and "shipped: no such file: 'absent.csv'" in last


def edited(checkout, name, change):
    config = yaml.safe_load((checkout.folder / "config/config.yaml").read_text())
    change(config)
    path = checkout.folder / "config" / name
    path.write_text(yaml.safe_dump(config))
    return f"config/{name}"


def test_another_seed_adds_only_its_jobs(checkout, everything):
    path = edited(
        checkout, "seed.yaml", lambda c: c["experiments"]["fig3"]["finetune_seeds"].append(7)
    )
    after = checkout.job_counts("--configfile", path)
    assert after == everything | {"finetune": everything["finetune"] + 32}


def test_published_weights_replace_pretrainings(checkout):
    (checkout.folder / "weights.pth").write_text("")
    entry = {"structures": "C-SYNTH-23M", "npre": 10000, "seed": 42, "file": "weights.pth"}
    entry["avg_num_neighbors"] = 31.0

    def change(config):
        config["pretrained_weights"] = [
            entry | {"source": source} for source in ("edip", "lcbop", "gap20u", "ace")
        ]

    path = edited(checkout, "weights.yaml", change)
    counts = checkout.job_counts("table1", "--configfile", path)
    assert counts["import_weights"] == 4 and counts["finetune"] == 160
    # Nothing is labelled: the sources need not even be installed.
    assert not {"pretrain", "label", "join_labels", "source_error"} & set(counts)
    # With an address they need not be there.
    entry |= {"file": "absent.pth", "url": "https://host.invalid/absent.pth"}
    path = edited(checkout, "weights.yaml", change)
    more = checkout.job_counts("table1", "--configfile", path)
    assert more["retrieve_files"] == counts["retrieve_files"] + 1


@pytest.mark.parametrize(
    ("target", "config", "message"),
    [
        ("md", "generate", "the configuration has no 'dynamics'"),
        ("umap", "generate", "the configuration has no 'embeddings'"),
        ("structures", "demo", "no dataset of the configuration has 'generate'"),
    ],
)
def test_a_study_without_what_is_asked_for_says_so(checkout, target, config, message):
    process = checkout.snakemake("-n", target, "--configfile", f"config/{config}.yaml", check=False)
    assert process.returncode != 0
    assert process.stdout.strip().splitlines()[-1] == f"error: target '{target}': {message}"


def test_an_unknown_figure_names_the_experiments(checkout):
    def edit(config):
        del config["experiments"]["fig4"], config["dynamics"]

    path = edited(checkout, "few.yaml", edit)
    process = checkout.snakemake("-n", "fig4", "--configfile", path, check=False)
    assert process.returncode != 0
    message = "error: target 'fig4': the configuration has no experiment of that name; it has: "
    assert process.stdout.strip().splitlines()[-1].startswith(message)


@pytest.mark.parametrize(
    ("config", "target"),
    [("config", "fig4"), ("config", "cost"), ("demo", "table1"), ("demo", "fig3")],
)
def test_what_is_not_published_is_refused(checkout, config, target):
    options = ["--configfile", f"config/{config}.yaml", "--config", "metrics_from=published"]
    process = checkout.snakemake("-n", target, *options, check=False)
    assert process.returncode != 0
    last = process.stdout.strip().splitlines()[-1]
    assert last.startswith("error: metrics_from: nothing is published for")


def test_an_archive_of_one_run_wants_no_figure_that_needs_more(checkout):
    """Nothing compares models with their sources before a source has been tested."""
    copper.add_files(checkout)
    copper.write(checkout, copper.CONFIG)
    run = checkout.folder / "results/copper/runs/direct/target~Cu/source~none/n~3/seed~1"
    run.mkdir(parents=True)
    (run / "metrics.json").write_text("{}")
    missing = ["--config", "allow_missing=true"]
    jobs = copper.counts(checkout, "--nolock", "archive", *missing)
    assert jobs["archive"] == 1 and "students" not in jobs
    tested = checkout.folder / "results/copper/evaluations/target~Cu/source~emt/metrics.json"
    tested.parent.mkdir(parents=True)
    tested.write_text("{}")
    jobs = copper.counts(checkout, "--nolock", "archive", *missing)
    assert jobs["students"] == 1
