# What the label sources say, each by itself and against the others.


rule check_sources:
    input:
        "<results>/checks/sources.md",


rule check_source:
    input:
        script="workflow/scripts/check_source.py",
        settings="<results>/settings/check~{source}.yaml",
    output:
        ensure("<results>/checks/sources/{source}.json", non_empty=True),
    log:
        "<logs>/check_source/{source}.log",
    wildcard_constraints:
        source=one_of(CALCULATED),
    conda:
        source_environment
    resources:
        mem_mb=4000,
        runtime=check_minutes,
    params:
        attempt=check_attempt,
    shell:
        "python {input.script} --config {input.settings} --source {wildcards.source} "
        "--attempt '{params.attempt}' --out {output} 2>&1 | tee {log}"


rule report_sources:
    input:
        script="workflow/scripts/report_sources.py",
        styles="<results>/settings/styles.yaml",
        checks=expand("<results>/checks/sources/{source}.json", source=sorted(CALCULATED)),
    output:
        md=report(
            "<results>/checks/sources.md",
            caption="../report/check_sources.rst",
            category="Label sources",
            labels={"what": "check", "format": "Markdown"},
        ),
        csv="<results>/checks/sources.csv",
        pdf=report(
            "<results>/figures/sources.pdf",
            caption="../report/check_sources.rst",
            category="Label sources",
            labels={"what": "check", "format": "PDF"},
        ),
        png=report(
            "<results>/figures/sources.png",
            caption="../report/check_sources.rst",
            category="Label sources",
            labels={"what": "check", "format": "PNG"},
        ),
    log:
        "<logs>/report_sources.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        tolerance=config["check_sources"]["force_tolerance"],
    shell:
        "python {input.script} --checks {input.checks} --styles {input.styles} "
        "--tolerance {params.tolerance} --markdown {output.md} --out {output.csv} "
        "--figure {output.pdf} {output.png} 2>&1 | tee {log}"
