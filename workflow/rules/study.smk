# Parts of the configuration as files of their own, and the table of runs.
include: "helpers/study.smk"


rule settings:
    input:
        script="workflow/scripts/settings.py",
    output:
        "<results>/settings/{part}.yaml",
    log:
        "<logs>/settings/{part}.log",
    wildcard_constraints:
        part="study|direct|finetune|styles|(pretrain|dataset|generate|source|files|check|weights|descriptors|embedding|umap|dynamics|start)~[^/]+",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        part=settings_json,
    shell:
        "python {input.script} --out {output} <<< {params.part:q} 2>&1 | tee {log}"


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
    resources:
        # Not a parameter: hours are expected ones.
        procedure=json.dumps({key: config[key] for key in ("network", "training")}),
    shell:
        "python {input.script} --config {input.settings} --costs {input.costs} "
        "--procedure {resources.procedure:q} --out {output} 2>&1 | tee {log}"
