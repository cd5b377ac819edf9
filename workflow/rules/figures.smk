# From tables to figures: nothing here reaches back to a model.


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


rule table1:
    input:
        script="workflow/scripts/table1.py",
        styles="<results>/settings/styles.yaml",
        runs=table1_runs,
        published=table1_published,
    output:
        csv="<results>/tables/table1.csv",
        md=report(
            "<results>/tables/table1.md",
            caption="../report/table1.rst",
            category="Tables",
            labels={"table": "Table 1", "format": "Markdown"},
        ),
        tex="<results>/tables/table1.tex",
    log:
        "<logs>/table1.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        options=table1_options,
    shell:
        "python {input.script} {params.options} --styles {input.styles} --out {output.csv} "
        "--markdown {output.md} --latex {output.tex} 2>&1 | tee {log}"


# Every difference between the computed and the published Table 1.
rule differences:
    input:
        script="workflow/scripts/differences.py",
        styles="<results>/settings/styles.yaml",
        table="<results>/tables/table1.csv",
        published="resources/published/table1.csv",
    output:
        csv="<results>/tables/table1-differences.csv",
        md="<results>/tables/table1-differences.md",
    log:
        "<logs>/differences.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --table {input.table} --published {input.published} "
        "--styles {input.styles} --out {output.csv} --markdown {output.md} 2>&1 | tee {log}"


rule efficiency:
    input:
        script="workflow/scripts/efficiency.py",
        styles="<results>/settings/styles.yaml",
        runs="<results>/tables/runs.csv",
        published=published_headlines,
    output:
        csv="<results>/tables/efficiency.csv",
        gains="<results>/tables/gains.csv",
        md=report(
            "<results>/tables/efficiency.md",
            caption="../report/efficiency.rst",
            category="Tables",
            labels={"table": "Efficiency", "format": "Markdown"},
        ),
    log:
        "<logs>/efficiency.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        published=published_option,
    shell:
        "python {input.script} --runs {input.runs} --styles {input.styles} {params.published} "
        "--out {output.csv} --gains {output.gains} --markdown {output.md} 2>&1 | tee {log}"


rule forgetting:
    input:
        script="workflow/scripts/forgetting.py",
        styles="<results>/settings/styles.yaml",
        runs="<results>/tables/runs.csv",
        published=published_headlines,
    output:
        csv="<results>/tables/forgetting.csv",
        md=report(
            "<results>/tables/forgetting.md",
            caption="../report/forgetting.rst",
            category="Tables",
            labels={"table": "Forgetting", "format": "Markdown"},
        ),
    log:
        "<logs>/forgetting.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        published=published_option,
    shell:
        "python {input.script} --runs {input.runs} --styles {input.styles} {params.published} "
        "--out {output.csv} --markdown {output.md} 2>&1 | tee {log}"


rule cost:
    input:
        script="workflow/scripts/cost.py",
        grid="<results>/grid.tsv",
        # For the order alone: when this table is there, all runs are.
        runs="<results>/tables/runs.csv",
        costs="resources/published/training-cost.csv",
        published=published_headlines,
    output:
        csv="<results>/tables/cost.csv",
        md=report(
            "<results>/tables/cost.md",
            caption="../report/cost.rst",
            category="Tables",
            labels={"table": "Cost", "format": "Markdown"},
        ),
    log:
        "<logs>/cost.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        results=subpath(input.grid, parent=True),
        power_w=config["cost"]["power_w"],
        carbon=config["cost"]["carbon_kg_per_kwh"],
        published=published_option,
        missing="--allow-missing" if config["allow_missing"] else "",
    shell:
        "python {input.script} --grid {input.grid} --results {params.results} {params.missing} "
        "--power-w {params.power_w} --carbon-kg-per-kwh {params.carbon} {params.published} "
        "--costs {input.costs} --out {output.csv} --markdown {output.md} 2>&1 | tee {log}"
