# From tables to figures: no rule here reads a model.
include: "helpers/figures.smk"


rule learning_curves:
    input:
        script="workflow/scripts/learning_curves.py",
        styles="<results>/settings/styles.yaml",
        runs=figure_runs,
        published=figure_published,
    output:
        pdf=report(
            "<results>/figures/{experiment}.pdf",
            caption="../report/learning_curves.rst",
            category="Figures",
            labels={"figure": "{experiment}", "format": "PDF"},
        ),
        png=report(
            "<results>/figures/{experiment}.png",
            caption="../report/learning_curves.rst",
            category="Figures",
            labels={"figure": "{experiment}", "format": "PNG"},
        ),
        table="<results>/tables/{experiment}-panels.csv",
    log:
        "<logs>/learning_curves/{experiment}.log",
    wildcard_constraints:
        experiment=experiments_of("curves"),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=figure_options,
        files=figure_files,
    shell:
        "python {input.script} {params.options} {params.files} --styles {input.styles} "
        "--out {output.pdf} {output.png} --table {output.table} 2>&1 | tee {log}"


# The same models on their target and on further test sets, as Figure 4.
rule specialised_figure:
    input:
        script="workflow/scripts/composed_figure.py",
        styles="<results>/settings/styles.yaml",
        runs=figure_runs,
        embedding=figure_embedding,
    output:
        pdf=report(
            "<results>/figures/{experiment}.pdf",
            caption="../report/specialised.rst",
            category="Figures",
            labels={"figure": "{experiment}", "format": "PDF"},
        ),
        png=report(
            "<results>/figures/{experiment}.png",
            caption="../report/specialised.rst",
            category="Figures",
            labels={"figure": "{experiment}", "format": "PNG"},
        ),
        table="<results>/tables/{experiment}-panels.csv",
    log:
        "<logs>/specialised_figure/{experiment}.log",
    wildcard_constraints:
        experiment=experiments_of("specialised"),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=composed_options,
        files=composed_files,
    shell:
        "python {input.script} --figure specialised --runs {input.runs} {params.options} "
        "{params.files} --styles {input.styles} --out {output.pdf} {output.png} --table {output.table} "
        "2>&1 | tee {log}"


# Learning curves by transform and bars at one size, as Figure 5.
rule alchemical_figure:
    input:
        script="workflow/scripts/composed_figure.py",
        styles="<results>/settings/styles.yaml",
        runs=figure_runs,
        embedding=figure_embedding,
    output:
        pdf=report(
            "<results>/figures/{experiment}.pdf",
            caption="../report/alchemical.rst",
            category="Figures",
            labels={"figure": "{experiment}", "format": "PDF"},
        ),
        png=report(
            "<results>/figures/{experiment}.png",
            caption="../report/alchemical.rst",
            category="Figures",
            labels={"figure": "{experiment}", "format": "PNG"},
        ),
        table="<results>/tables/{experiment}-panels.csv",
    log:
        "<logs>/alchemical_figure/{experiment}.log",
    wildcard_constraints:
        experiment=experiments_of("alchemical"),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=composed_options,
        files=composed_files,
    shell:
        "python {input.script} --figure alchemical --runs {input.runs} {params.options} "
        "{params.files} --styles {input.styles} --out {output.pdf} {output.png} --table {output.table} "
        "2>&1 | tee {log}"


# Any model on any test set: a target by its path, figures/parity/target~T/RUN.png.
rule parity:
    input:
        script="workflow/scripts/parity.py",
        styles="<results>/settings/styles.yaml",
        predictions="<results>/predictions/target~{target}/{model}.npz",
    output:
        report(
            multiext("<results>/figures/parity/target~{target}/{model}", ".pdf", ".png"),
            caption="../report/parity.rst",
            category="Parity",
            labels={"model": "{model}", "test set": "{target}"},
        ),
    log:
        "<logs>/parity/target~{target}/{model}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=parity_options,
    shell:
        "python {input.script} --predictions {input.predictions} {params.options} "
        "--styles {input.styles} --out {output} 2>&1 | tee {log}"


# Label sources beside the models that learned from them.
rule students:
    input:
        script="workflow/scripts/students.py",
        styles="<results>/settings/styles.yaml",
        runs="<results>/tables/runs.csv",
    output:
        table="<results>/tables/students.csv",
        pdf=report(
            "<results>/figures/students.pdf",
            caption="../report/students.rst",
            category="Label sources",
            labels={"what": "students", "format": "PDF"},
        ),
        png=report(
            "<results>/figures/students.png",
            caption="../report/students.rst",
            category="Label sources",
            labels={"what": "students", "format": "PNG"},
        ),
    log:
        "<logs>/students.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        aggregate=config["figures"]["aggregate"],
        at=config["figures"]["bars_at"],
    shell:
        "python {input.script} --runs {input.runs} --aggregate {params.aggregate} --at {params.at} "
        "--styles {input.styles} --table {output.table} --out {output.pdf} {output.png} "
        "2>&1 | tee {log}"


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


rule structures_figure:
    input:
        script="workflow/scripts/structures_figure.py",
        table="<results>/data/{generated}/trajectories.csv",
    output:
        pdf=report(
            "<results>/figures/structures-{generated}.pdf",
            caption="../report/structures.rst",
            category="Structures",
            labels={"dataset": "{generated}", "format": "PDF"},
        ),
        png=report(
            "<results>/figures/structures-{generated}.png",
            caption="../report/structures.rst",
            category="Structures",
            labels={"dataset": "{generated}", "format": "PNG"},
        ),
    log:
        "<logs>/structures_figure/{generated}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --table {input.table} --out {output.pdf} {output.png} "
        "2>&1 | tee {log}"


rule md_figure:
    input:
        script="workflow/scripts/md_figure.py",
        table="<results>/tables/md-{moved}.csv",
        coordination=beside_outcomes("coordination.csv"),
        trajectories=beside_outcomes("trajectory.extxyz"),
    output:
        pdf=report(
            "<results>/figures/md-{moved}.pdf",
            caption="../report/md.rst",
            category="Molecular dynamics",
            labels={"test": "{moved}", "format": "PDF"},
        ),
        png=report(
            "<results>/figures/md-{moved}.png",
            caption="../report/md.rst",
            category="Molecular dynamics",
            labels={"test": "{moved}", "format": "PNG"},
        ),
    log:
        "<logs>/md_figure/{moved}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=md_options,
    shell:
        "python {input.script} --table {input.table} {params.options} "
        "--out {output.pdf} {output.png} 2>&1 | tee {log}"
