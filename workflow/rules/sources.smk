# What the label sources say, each by itself and against the others.


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
        mem_mb=megabytes(4000),
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


# The sources against each other and the dataset's labels, on its validation and test structures.
rule compare_on:
    input:
        script="workflow/scripts/compare_sources.py",
        styles="<results>/settings/styles.yaml",
        data="<results>/data/{dataset}/prepared.h5",
        chunks=compared_chunks,
    output:
        md=report(
            "<results>/comparisons/{dataset}.md",
            caption="../report/compare_sources.rst",
            category="Label sources",
            labels={"what": "comparison on {dataset}", "format": "Markdown"},
        ),
        csv="<results>/comparisons/{dataset}.csv",
        parity=report(
            multiext("<results>/figures/parity~{dataset}", ".pdf", ".png"),
            caption="../report/compare_sources.rst",
            category="Label sources",
            labels={"what": "parity on {dataset}"},
        ),
        matrix=report(
            multiext("<results>/figures/sources~{dataset}", ".pdf", ".png"),
            caption="../report/compare_sources.rst",
            category="Label sources",
            labels={"what": "each against each on {dataset}"},
        ),
    log:
        "<logs>/compare_on/{dataset}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        sources=compared_sources,
        options=comparison_options,
    shell:
        "python {input.script} --data {input.data} --sources {params.sources} {params.options} "
        "--chunks {input.chunks} --styles {input.styles} --out {output.csv} --markdown {output.md} "
        "--parity {output.parity} --matrix {output.matrix} 2>&1 | tee {log}"
