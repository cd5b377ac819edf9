# From trained models to tables.
include: "helpers/results.smk"


# A model on a test set that it was not trained for: a pre-trained model on the target's, any model
# on that of another dataset.
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
        gpu=GPUS,
        mem_mb=megabytes(8000),
        runtime=minutes(30),
        # Not a parameter: another device evaluates nothing again.
        machine=DEVICE,
        trust=TRUST,
    params:
        written="--out",
    shell:
        "python {input.script} --model {input.model} --data {input.data} --part test "
        "--machine {resources.machine:q} {resources.trust} {params.written} {output} "
        "2>&1 | tee {log}"


# A model's predictions on a test set, structure by structure.
use rule evaluate as predictions with:
    output:
        "<results>/predictions/target~{target}/{model}.npz",
    log:
        "<logs>/predictions/target~{target}/{model}.log",
    params:
        written="--predictions",


# The error of a label source on the target's test set.
rule source_error:
    input:
        script="workflow/scripts/source_error.py",
        data="<results>/data/{target}/prepared.h5",
        own=target_data,
        chunk=evaluation_chunk,
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
        missing=ALLOW_MISSING,
        shipped=f"--results {shlex.quote(SHIPPED)}" if SHIPPED else "",
    shell:
        "python {input.script} --grid {input.grid} {params.missing} {params.shipped} --out {output} "
        "2>&1 | tee {log}"


rule table1:
    input:
        script="workflow/scripts/table1.py",
        styles="<results>/settings/styles.yaml",
        runs=table1_runs,
        published=table1_published,
    output:
        csv="<results>/tables/table1.csv",
        md=reported("<results>/tables/table1.md", "table1", "Tables", {"table": "Table 1"}),
        tex="<results>/tables/table1.tex",
    log:
        "<logs>/table1.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        given=given("runs", "published"),
    shell:
        "python {input.script} {params.given} --styles {input.styles} --out {output.csv} "
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
        published=published_claims,
    output:
        csv="<results>/tables/efficiency.csv",
        gains="<results>/tables/gains.csv",
        md=reported(
            "<results>/tables/efficiency.md", "efficiency", "Tables", {"table": "Efficiency"}
        ),
    log:
        "<logs>/efficiency.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        given=given("runs", "styles", "published"),
    shell:
        "python {input.script} {params.given} --out {output.csv} --gains {output.gains} "
        "--markdown {output.md} 2>&1 | tee {log}"


rule forgetting:
    input:
        script="workflow/scripts/forgetting.py",
        styles="<results>/settings/styles.yaml",
        runs="<results>/tables/runs.csv",
        published=published_claims,
    output:
        csv="<results>/tables/forgetting.csv",
        md=reported(
            "<results>/tables/forgetting.md", "forgetting", "Tables", {"table": "Forgetting"}
        ),
    log:
        "<logs>/forgetting.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        given=given("runs", "styles", "published"),
    shell:
        "python {input.script} {params.given} --out {output.csv} --markdown {output.md} "
        "2>&1 | tee {log}"


rule cost:
    input:
        script="workflow/scripts/cost.py",
        grid="<results>/grid.tsv",
        # Only for the order: this table follows all runs.
        runs="<results>/tables/runs.csv",
        costs="resources/published/training-cost.csv",
        published=published_claims,
    output:
        csv="<results>/tables/cost.csv",
        md=reported("<results>/tables/cost.md", "cost", "Tables", {"table": "Cost"}),
    log:
        "<logs>/cost.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        results=SHIPPED or subpath(input.grid, parent=True),
        power_w=config["cost"]["power_w"],
        carbon=config["cost"]["carbon_kg_per_kwh"],
        given=given("grid", "costs", "published"),
        missing=ALLOW_MISSING,
    shell:
        "python {input.script} {params.given} --results {params.results:q} {params.missing} "
        "--power-w {params.power_w} --carbon-kg-per-kwh {params.carbon} --out {output.csv} "
        "--markdown {output.md} 2>&1 | tee {log}"
