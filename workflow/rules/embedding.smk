# Maps of atomic environments.
include: "helpers/embedding.smk"


rule descriptors:
    input:
        script="workflow/scripts/descriptors.py",
        settings="<results>/settings/descriptors~{embedding}~{sample}.yaml",
        data=sample_data,
    output:
        "<results>/embeddings/{embedding}/{sample}.h5",
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
        base=descriptors_of("base"),
        project=descriptors_of("project"),
    output:
        "<results>/embeddings/{embedding}/map.csv",
    log:
        "<logs>/embedding/{embedding}.log",
    conda:
        "../../envs/analysis.yaml"
    # More threads would change the map from run to run.
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
        base=descriptors_of("base"),
        project=descriptors_of("project"),
    output:
        csv="<results>/embeddings/{embedding}/coverage.csv",
        md=reported(
            "<results>/embeddings/{embedding}.md", "coverage", "Maps", {"map": "{embedding}"}
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
