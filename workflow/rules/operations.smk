# The state of a study, and one file to attach to a paper.
include: "helpers/operations.smk"


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
        "python {input.script} --config - --written {params.written:q} {params.models} "
        "--out {output} <<< {params.config:q} 2>&1 | tee {log}"


# The best models of a target for ASE and LAMMPS, in a folder that needs NequIP only.
rule export_models:
    input:
        script="workflow/scripts/export.py",
        models=exported_models,
        data="<results>/data/{target}/prepared.h5",
    output:
        directory("<results>/export/{target}"),
    log:
        "<logs>/export/{target}.log",
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=megabytes(8000),
        runtime=minutes(120),
    params:
        config=configuration_json,
    shell:
        "python {input.script} --config - --best {wildcards.target} --out {output} "
        "<<< {params.config:q} 2>&1 | tee {log}"


# Beside a workflow at work only with --nolock: see status_config.
rule status:
    input:
        script="workflow/scripts/status.py",
    log:
        "<logs>/status.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        config=status_config,
    shell:
        "python {input.script} --config - <<< {params.config:q} 2>&1 | tee {log}"
