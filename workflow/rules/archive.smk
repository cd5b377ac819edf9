# One file to attach to a paper.


rule archive:
    input:
        script="workflow/scripts/archive.py",
        settings="<results>/settings/configuration.yaml",
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
        models="--models" if config["archive_models"] else "",
    shell:
        "python {input.script} --config {input.settings} --written {params.written} {params.models} "
        "--out {output} 2>&1 | tee {log}"
