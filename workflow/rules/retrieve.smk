# Files that do not come with the repository. Where jobs run there may be no network: all of this
# is done by the machine that runs Snakemake.


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
