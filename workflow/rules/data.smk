# From a dataset's file to a prepared, split and checked set.


rule settings:
    output:
        "<results>/settings/{part}.yaml",
    log:
        "<logs>/settings/{part}.log",
    wildcard_constraints:
        part="study|training|styles|(dataset|source)~[^/]+",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        text=settings_text,
    script:
        "../scripts/settings.py"


rule prepare:
    input:
        script="workflow/scripts/prepare.py",
        settings="<results>/settings/dataset~{dataset}.yaml",
        files=dataset_files,
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
        mem_mb=4000,
        runtime=240,
    params:
        reference=reference_option,
    shell:
        "python {input.script} --config {input.settings} --dataset {wildcards.dataset} "
        "{params.reference} --out {output.data} --summary {output.summary} "
        "2>&1 | tee {log}"


# The grid's sizes are compared with what the filters and the split have left, before anything is
# labelled or trained; a later, larger grid asks again without preparing again.
rule check_pool:
    input:
        script="workflow/scripts/check_pool.py",
        summary="<results>/data/{dataset}/summary.json",
    output:
        touch("<results>/data/{dataset}/pool.checked"),
    log:
        "<logs>/check_pool/{dataset}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        needed=pool_needed,
    shell:
        "python {input.script} --summary {input.summary} --needed {params.needed} 2>&1 | tee {log}"
