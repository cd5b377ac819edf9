# Files are retrieved; structures are checked, split and prepared.
include: "helpers/data.smk"


rule retrieve:
    input:
        retrieved_stamps,
    localrule: True
    params:
        files=retrieval_overview,
    message:
        "Everything that this study reads:\n{params.files}"


# Jobs may run without network: the machine that runs Snakemake downloads.
rule retrieve_files:
    input:
        script="workflow/scripts/retrieve.py",
        settings=retrieval_settings,
    output:
        "<results>/retrieved/{kind}~{name}.json",
    log:
        "<logs>/retrieve/{kind}~{name}.log",
    wildcard_constraints:
        kind="dataset|source|weights",
        name="[^/~]+",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    resources:
        # Not a parameter: the same file from another address makes no label anew.
        addresses=source_addresses,
    shell:
        "python {input.script} --config {input.settings} --addresses {resources.addresses:q} "
        "--out {output} 2>&1 | tee {log}"


rule prepare:
    input:
        script="workflow/scripts/prepare.py",
        settings="<results>/settings/dataset~{dataset}.yaml",
        files=dataset_files,
        retrieved=lambda wildcards: stamp(f"dataset~{wildcards.dataset}"),
        reference_from=energy_reference,
    output:
        data="<results>/data/{dataset}/prepared.h5",
        summary="<results>/data/{dataset}/summary.json",
        text="<results>/data/{dataset}/summary.md",
    log:
        "<logs>/prepare/{dataset}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(2000),
        runtime=minutes(240),
        # Not a parameter: a larger grid prepares nothing again.
        largest=lambda wildcards: grids.largest_size(GRID, wildcards.dataset),
        # Nor does another source.
        handlers=lambda wildcards: json.dumps(handlers(config, wildcards.dataset)),
    params:
        given=given("reference_from"),
    shell:
        "python {input.script} --config {input.settings} --dataset {wildcards.dataset} "
        "--sizes {resources.largest} --handlers {resources.handlers:q} {params.given} "
        "--out {output.data} --summary {output.summary} 2>&1 | tee {log}"
