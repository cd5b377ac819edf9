# From a dataset's file to a prepared, split and checked set.


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


rule prepare:
    input:
        script="workflow/scripts/prepare.py",
        settings="<results>/settings/dataset~{dataset}.yaml",
        files=dataset_files,
        retrieved=dataset_stamp,
        reference=energy_reference,
    output:
        data=ensure("<results>/data/{dataset}/prepared.h5", non_empty=True),
        summary="<results>/data/{dataset}/summary.json",
        text="<results>/data/{dataset}/summary.md",
    log:
        "<logs>/prepare/{dataset}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(240),
        # Not a parameter: a larger grid is no reason to prepare again.
        largest=largest_size,
    params:
        reference=reference_option,
    shell:
        "python {input.script} --config {input.settings} --dataset {wildcards.dataset} "
        "--sizes {resources.largest} {params.reference} --out {output.data} --summary {output.summary} "
        "2>&1 | tee {log}"
