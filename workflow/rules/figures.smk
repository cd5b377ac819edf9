# From tables to figures: nothing here reaches back to a model.


rule learning_curves:
    input:
        runs="<results>/tables/{experiment}-runs.csv",
    output:
        pdf="<results>/figures/{experiment}.pdf",
        png="<results>/figures/{experiment}.png",
    log:
        "<logs>/learning_curves/{experiment}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "echo {output} > {log}"


rule table1:
    input:
        runs=table1_runs,
    output:
        csv="<results>/tables/table1.csv",
        md="<results>/tables/table1.md",
        tex="<results>/tables/table1.tex",
    log:
        "<logs>/table1.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "echo {output} > {log}"


rule efficiency:
    input:
        runs="<results>/tables/runs.csv",
    output:
        csv="<results>/tables/efficiency.csv",
        md="<results>/tables/efficiency.md",
    log:
        "<logs>/efficiency.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "echo {output} > {log}"


rule cost:
    input:
        runs="<results>/tables/runs.csv",
    output:
        csv="<results>/tables/cost.csv",
        md="<results>/tables/cost.md",
    log:
        "<logs>/cost.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "echo {output} > {log}"
