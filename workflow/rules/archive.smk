# One file to attach to a paper.


rule archive:
    input:
        script="workflow/scripts/archive.py",
        grid="<results>/grid.tsv",
        artefacts=archived,
        page=existing_report,
    output:
        "<results>/archive.zip",
    log:
        "<logs>/archive.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        written=workflow.configfiles,
        config=configuration_json,
        models="--models" if config["archive_models"] else "",
    shell:
        "python {input.script} --config - --written {params.written} {params.models} "
        "--out {output} <<< {params.config:q} 2>&1 | tee {log}"
