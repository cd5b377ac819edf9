# From models to one tidy table of runs.


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


rule grid_table:
    input:
        script="workflow/scripts/grid.py",
        settings="<results>/settings/study.yaml",
        costs="resources/published/training-cost.csv",
    output:
        "<results>/grid.tsv",
    log:
        "<logs>/grid.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --config {input.settings} --costs {input.costs} --out {output} "
        "2>&1 | tee {log}"


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
