# From tables to figures: no rule here reads a model.
include: "helpers/figures.smk"


rule learning_curves:
    input:
        script="workflow/scripts/learning_curves.py",
        styles="<results>/settings/styles.yaml",
        runs=figure_runs,
        published=figure_published("table1"),
        published_points=figure_published("points"),
        published_errors=figure_published("headline"),
    output:
        figure=experiment_figure("learning_curves"),
        table="<results>/tables/{experiment}-panels.csv",
    log:
        "<logs>/learning_curves/{experiment}.log",
    wildcard_constraints:
        experiment=experiments_of("learning_curves"),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=curve_options,
        given=given("runs", "styles", "published", "published_points", "published_errors"),
    shell:
        "python {input.script} {params.options} {params.given} --out {output.figure} "
        "--table {output.table} 2>&1 | tee {log}"


# What the same runs took, and how accurate they are for it.
use rule learning_curves as time_figure with:
    input:
        script="workflow/scripts/learning_curves.py",
        styles="<results>/settings/styles.yaml",
        runs="<results>/tables/{experiment}-runs.csv",
        published_times=figure_published("timing"),
    output:
        figure=experiment_figure("time", "time-"),
        table="<results>/tables/time-{experiment}.csv",
    log:
        "<logs>/time_figure/{experiment}.log",
    wildcard_constraints:
        experiment=one_of(config["experiments"]),
    params:
        options=lambda wildcards: f"--draw time {curve_options(wildcards)}",
        given=given("runs", "styles", "published_times"),


# The errors of the same runs over the numbers of pre-training and of DFT-labelled structures.
use rule learning_curves as surface_figure with:
    output:
        figure=experiment_figure("surface", "surface-"),
        table="<results>/tables/surface-{experiment}.csv",
    log:
        "<logs>/surface_figure/{experiment}.log",
    wildcard_constraints:
        experiment=one_of(by_size()),
    params:
        options=lambda wildcards: f"--draw surface {curve_options(wildcards)}",
        given=given("runs", "styles", "published", "published_points", "published_errors"),


# The angles of forces to those of DFT, by label source, before and after fine-tuning.
rule angles_figure:
    input:
        script="workflow/scripts/angles.py",
        styles="<results>/settings/styles.yaml",
        predictions=angle_predictions,
        published=figure_published("headline"),
    output:
        figure=experiment_figure("angles", "angles-"),
        table="<results>/tables/angles-{experiment}.csv",
    log:
        "<logs>/angles_figure/{experiment}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        note=angle_note,
        given=given("styles", "published"),
    shell:
        "python {input.script} --predictions {input.predictions} {params.given} "
        "--note {params.note} --out {output.figure} --table {output.table} 2>&1 | tee {log}"


# The same models on their target and on further test sets, as in Figure 4.
rule specialised_figure:
    input:
        script="workflow/scripts/composed_figure.py",
        styles="<results>/settings/styles.yaml",
        runs=figure_runs,
        published_points=figure_published("points"),
        published_errors=figure_published("headline"),
        embedding=embedding_panel("<results>/embeddings/{}/map.csv"),
        embedding_style=embedding_panel("<results>/settings/umap~{}.yaml"),
    output:
        figure=experiment_figure("specialised"),
        table="<results>/tables/{experiment}-panels.csv",
    log:
        "<logs>/specialised_figure/{experiment}.log",
    wildcard_constraints:
        experiment=experiments_of("specialised"),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        kind="specialised",
        options=composed_options,
        given=given(
            "runs",
            "styles",
            "published_points",
            "published_errors",
            "embedding",
            "embedding_style",
        ),
    shell:
        "python {input.script} --figure {params.kind} {params.options} {params.given} "
        "--out {output.figure} --table {output.table} 2>&1 | tee {log}"


# Learning curves by transform and bars at one size, as in Figure 5.
use rule specialised_figure as alchemical_figure with:
    output:
        figure=experiment_figure("alchemical"),
        table="<results>/tables/{experiment}-panels.csv",
    log:
        "<logs>/alchemical_figure/{experiment}.log",
    wildcard_constraints:
        experiment=experiments_of("alchemical"),
    params:
        kind="alchemical",


# Any model on any test set: request figures/parity/target~TARGET/RUN.png.
rule parity:
    input:
        script="workflow/scripts/parity.py",
        styles="<results>/settings/styles.yaml",
        predictions="<results>/predictions/target~{target}/{model}.npz",
    output:
        figure(
            "<results>/figures/parity/target~{target}/{model}",
            "parity",
            "Parity",
            {"model": "{model}", "test set": "{target}"},
        ),
    log:
        "<logs>/parity/target~{target}/{model}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=parity_options,
    shell:
        "python {input.script} --predictions {input.predictions} {params.options} "
        "--styles {input.styles} --out {output} 2>&1 | tee {log}"


# Label sources beside the models that learned from them.
rule students:
    input:
        script="workflow/scripts/students.py",
        styles="<results>/settings/styles.yaml",
        runs="<results>/tables/runs.csv",
    output:
        table="<results>/tables/students.csv",
        figure=figure(
            "<results>/figures/students", "students", "Label sources", {"what": "students"}
        ),
    log:
        "<logs>/students.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        aggregate=config["figures"]["aggregate"],
        at=config["figures"]["bars_at"],
    shell:
        "python {input.script} --runs {input.runs} --aggregate {params.aggregate} --at {params.at} "
        "--styles {input.styles} --table {output.table} --out {output.figure} 2>&1 | tee {log}"


rule umap_figure:
    input:
        script="workflow/scripts/umap_figure.py",
        styles="<results>/settings/styles.yaml",
        style="<results>/settings/umap~{embedding}.yaml",
        map="<results>/embeddings/{embedding}/map.csv",
    output:
        figure("<results>/figures/umap-{embedding}", "umap", "Maps", {"map": "{embedding}"}),
    log:
        "<logs>/umap_figure/{embedding}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --map {input.map} --style {input.style} --styles {input.styles} "
        "--out {output} 2>&1 | tee {log}"


rule structures_figure:
    input:
        script="workflow/scripts/structures_figure.py",
        styles="<results>/settings/styles.yaml",
        table="<results>/data/{generated}/trajectories.csv",
    output:
        figure(
            "<results>/figures/structures-{generated}",
            "structures",
            "Structures",
            {"dataset": "{generated}"},
        ),
    log:
        "<logs>/structures_figure/{generated}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --table {input.table} --styles {input.styles} --out {output} "
        "2>&1 | tee {log}"


rule md_figure:
    input:
        script="workflow/scripts/md_figure.py",
        styles="<results>/settings/styles.yaml",
        table="<results>/tables/md-{test}.csv",
        coordination=beside_outcomes("coordination.csv"),
        trajectories=beside_outcomes("trajectory.extxyz"),
    output:
        figure("<results>/figures/md-{test}", "md", "Molecular dynamics", {"test": "{test}"}),
    log:
        "<logs>/md_figure/{test}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=md_options,
    shell:
        "python {input.script} --table {input.table} {params.options} --styles {input.styles} "
        "--out {output} 2>&1 | tee {log}"
