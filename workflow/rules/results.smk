# From trained models to tables.
include: "helpers/results.smk"


# A run's model on a test set that is not (or not only) its own: a pre-trained model untuned on the
# target's, any model on that of another dataset.
rule evaluate:
    input:
        script="workflow/scripts/evaluate.py",
        model="<results>/runs/{model}/model.ckpt",
        data=target_data,
    output:
        "<results>/evaluations/target~{target}/{model}/metrics.json",
    log:
        "<logs>/evaluate/target~{target}/{model}.log",
    conda:
        "../../envs/train.yaml"
    resources:
        gpu=gpus,
        mem_mb=megabytes(8000),
        runtime=minutes(30),
        # Not a parameter: another device is no reason to evaluate again.
        machine=device_options,
    shell:
        "python {input.script} --model {input.model} --data {input.data} --part test "
        "--machine {resources.machine:q} --out {output} 2>&1 | tee {log}"


# What a run's model says of a test set, structure by structure.
rule predictions:
    input:
        script="workflow/scripts/evaluate.py",
        model="<results>/runs/{model}/model.ckpt",
        data=target_data,
    output:
        "<results>/predictions/target~{target}/{model}.npz",
    log:
        "<logs>/predictions/target~{target}/{model}.log",
    conda:
        "../../envs/train.yaml"
    resources:
        gpu=gpus,
        mem_mb=megabytes(8000),
        runtime=minutes(30),
        # Not a parameter: another device is no reason to evaluate again.
        machine=device_options,
    shell:
        "python {input.script} --model {input.model} --data {input.data} --part test "
        "--machine {resources.machine:q} --predictions {output} 2>&1 | tee {log}"


# The label source itself, on the target's test set.
rule source_error:
    input:
        script="workflow/scripts/source_error.py",
        data="<results>/data/{target}/prepared.h5",
        own=target_data,
        chunk="<results>/labels/{target}/{source}/chunks/eval.extxyz",
    output:
        "<results>/evaluations/target~{target}/source~{source}/metrics.json",
    log:
        "<logs>/source_error/{target}/{source}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --data {input.data} --labels {input.own} --chunk {input.chunk} "
        "--source {wildcards.source} --out {output} 2>&1 | tee {log}"


rule results_grid:
    input:
        script="workflow/scripts/results_grid.py",
        settings="<results>/settings/study.yaml",
    output:
        "<results>/tables/{table}.grid.tsv",
    log:
        "<logs>/results_grid/{table}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        experiments=table_experiments,
    shell:
        "python {input.script} --config {input.settings} --experiments {params.experiments} "
        "--out {output} 2>&1 | tee {log}"


rule collect_runs:
    input:
        script="workflow/scripts/collect_runs.py",
        grid="<results>/tables/{table}.grid.tsv",
        metrics=table_metrics,
    output:
        "<results>/tables/{table}.csv",
    log:
        "<logs>/collect_runs/{table}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options="--allow-missing" if config["allow_missing"] else "",
    shell:
        "python {input.script} --grid {input.grid} {params.options} --out {output} "
        "2>&1 | tee {log}"


rule table1:
    input:
        script="workflow/scripts/table1.py",
        styles="<results>/settings/styles.yaml",
        runs=table1_runs,
        published=table1_published,
    output:
        csv="<results>/tables/table1.csv",
        md=report(
            "<results>/tables/table1.md",
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "Table 1", "format": "Markdown"},
        ),
        tex="<results>/tables/table1.tex",
    log:
        "<logs>/table1.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=table1_options,
    shell:
        "python {input.script} {params.options} --styles {input.styles} --out {output.csv} "
        "--markdown {output.md} --latex {output.tex} 2>&1 | tee {log}"


# Every difference between the computed and the published Table 1.
rule differences:
    input:
        script="workflow/scripts/differences.py",
        styles="<results>/settings/styles.yaml",
        table="<results>/tables/table1.csv",
        published="resources/published/table1.csv",
    output:
        csv="<results>/tables/table1-differences.csv",
        md="<results>/tables/table1-differences.md",
    log:
        "<logs>/differences.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --table {input.table} --published {input.published} "
        "--styles {input.styles} --out {output.csv} --markdown {output.md} 2>&1 | tee {log}"


rule efficiency:
    input:
        script="workflow/scripts/efficiency.py",
        styles="<results>/settings/styles.yaml",
        runs="<results>/tables/runs.csv",
        published=published_headlines,
    output:
        csv="<results>/tables/efficiency.csv",
        gains="<results>/tables/gains.csv",
        md=report(
            "<results>/tables/efficiency.md",
            caption="../report/efficiency.rst",
            category="Tables",
            labels={"table": "Efficiency", "format": "Markdown"},
        ),
    log:
        "<logs>/efficiency.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        published=published_option,
    shell:
        "python {input.script} --runs {input.runs} --styles {input.styles} {params.published} "
        "--out {output.csv} --gains {output.gains} --markdown {output.md} 2>&1 | tee {log}"


rule forgetting:
    input:
        script="workflow/scripts/forgetting.py",
        styles="<results>/settings/styles.yaml",
        runs="<results>/tables/runs.csv",
        published=published_headlines,
    output:
        csv="<results>/tables/forgetting.csv",
        md=report(
            "<results>/tables/forgetting.md",
            caption="../report/forgetting.rst",
            category="Tables",
            labels={"table": "Forgetting", "format": "Markdown"},
        ),
    log:
        "<logs>/forgetting.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        published=published_option,
    shell:
        "python {input.script} --runs {input.runs} --styles {input.styles} {params.published} "
        "--out {output.csv} --markdown {output.md} 2>&1 | tee {log}"


rule cost:
    input:
        script="workflow/scripts/cost.py",
        grid="<results>/grid.tsv",
        # For the order alone: when this table is there, all runs are.
        runs="<results>/tables/runs.csv",
        costs="resources/published/training-cost.csv",
        published=published_headlines,
    output:
        csv="<results>/tables/cost.csv",
        md=report(
            "<results>/tables/cost.md",
            caption="../report/cost.rst",
            category="Tables",
            labels={"table": "Cost", "format": "Markdown"},
        ),
    log:
        "<logs>/cost.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        results=subpath(input.grid, parent=True),
        power_w=config["cost"]["power_w"],
        carbon=config["cost"]["carbon_kg_per_kwh"],
        published=published_option,
        missing="--allow-missing" if config["allow_missing"] else "",
    shell:
        "python {input.script} --grid {input.grid} --results {params.results} {params.missing} "
        "--power-w {params.power_w} --carbon-kg-per-kwh {params.carbon} {params.published} "
        "--costs {input.costs} --out {output.csv} --markdown {output.md} 2>&1 | tee {log}"
