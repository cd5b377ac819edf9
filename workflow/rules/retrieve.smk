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
    params:
        files=retrieval_listing,
    message:
        "Retrieving {wildcards.kind} {wildcards.name}:\n{params.files}"
    shell:
        "python {input.script} --config {input.settings} --out {output} 2>&1 | tee {log}"
