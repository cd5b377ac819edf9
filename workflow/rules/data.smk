# Files are retrieved, checked, split and prepared.
include: "helpers/data.smk"


rule retrieve:
    input:
        retrieved_stamps,
    localrule: True
    params:
        total=retrieval_total,
    message:
        "Everything that this study reads: {params.total}"


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
        # Not parameters: the same file from elsewhere is no reason to label again.
        files=retrieval_listing,
        addresses=source_addresses,
    message:
        "Retrieving {wildcards.kind} {wildcards.name}:\n{resources.files}"
    shell:
        "python {input.script} --config {input.settings} --addresses {resources.addresses:q} "
        "--out {output} 2>&1 | tee {log}"


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
