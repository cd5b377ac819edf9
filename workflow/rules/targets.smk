# Targets by name: everything that can be asked for by itself.
include: "helpers/targets.smk"


# All tables and figures in one file for a browser.
rule summary:
    input:
        script="workflow/scripts/summary.py",
        styles="<results>/settings/styles.yaml",
        table1="<results>/tables/table1.csv",
        parts=page_parts,
    output:
        reported("<results>/summary.html", "workflow", "Summary", {"page": "Results"}),
    log:
        "<logs>/summary.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        targets=list(dict.fromkeys(entry["target"] for entry in config["experiments"].values())),
        captions=page_captions,
    shell:
        "python {input.script} --styles {input.styles} --table1 {input.table1} "
        "--targets {params.targets} --parts {input.parts} --captions {params.captions} "
        "--out {output} 2>&1 | tee {log}"


for target, files in TARGETS.items():

    rule:
        name:
            target
        input:
            files,
