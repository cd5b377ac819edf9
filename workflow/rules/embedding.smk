# Maps of atomic environments: descriptors, an embedding, a figure; a restyled figure is only drawn.


rule descriptors:
    input:
        script="workflow/scripts/descriptors.py",
        settings="<results>/settings/descriptors~{embedding}~{sample}.yaml",
        data=sample_data,
    output:
        ensure("<results>/embeddings/{embedding}/{sample}.h5", non_empty=True),
    log:
        "<logs>/descriptors/{embedding}/{sample}.log",
    conda:
        "../../envs/gap.yaml"
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(120),
    shell:
        "python {input.script} --settings {input.settings} --data {input.data} --out {output} "
        "2>&1 | tee {log}"


rule embedding:
    input:
        script="workflow/scripts/embed.py",
        settings="<results>/settings/embedding~{embedding}.yaml",
        base=base_descriptors,
        project=projected_descriptors,
    output:
        ensure("<results>/embeddings/{embedding}/map.csv", non_empty=True),
    log:
        "<logs>/embedding/{embedding}.log",
    conda:
        "../../envs/analysis.yaml"
    # With more the map would not be the same each time.
    threads: 1
    resources:
        mem_mb=megabytes(8000),
        runtime=minutes(240),
    shell:
        "python {input.script} --settings {input.settings} --base {input.base} "
        "--project {input.project} --out {output} 2>&1 | tee {log}"


rule coverage:
    input:
        script="workflow/scripts/embedding_coverage.py",
        base=base_descriptors,
        project=projected_descriptors,
    output:
        csv="<results>/embeddings/{embedding}/coverage.csv",
        md=report(
            "<results>/embeddings/{embedding}.md",
            caption="../report/coverage.rst",
            category="Maps",
            labels={"map": "{embedding}", "format": "Markdown"},
        ),
    log:
        "<logs>/coverage/{embedding}.log",
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(60),
    shell:
        "python {input.script} --base {input.base} --project {input.project} "
        "--out {output.csv} --markdown {output.md} 2>&1 | tee {log}"


rule umap_figure:
    input:
        script="workflow/scripts/umap_figure.py",
        style="<results>/settings/umap~{embedding}.yaml",
        map="<results>/embeddings/{embedding}/map.csv",
    output:
        pdf=report(
            "<results>/figures/umap-{embedding}.pdf",
            caption="../report/umap.rst",
            category="Maps",
            labels={"map": "{embedding}", "format": "PDF"},
        ),
        png=report(
            "<results>/figures/umap-{embedding}.png",
            caption="../report/umap.rst",
            category="Maps",
            labels={"map": "{embedding}", "format": "PNG"},
        ),
    log:
        "<logs>/umap_figure/{embedding}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --map {input.map} --style {input.style} "
        "--out {output.pdf} {output.png} 2>&1 | tee {log}"
