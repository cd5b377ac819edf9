# Datasets that are made here: melt-quench-anneal dynamics, one job a trajectory.


# A job that is killed or reaches its limit goes on from its last checkpoint.
rule generate:
    input:
        script="workflow/scripts/generate.py",
        settings="<results>/settings/generate~{generated}.yaml",
        reference=driver_reference,
        retrieved=driver_stamp,
    output:
        frames=ensure("<results>/data/{generated}/trajectories/{run}.extxyz", non_empty=True),
        log="<results>/data/{generated}/trajectories/{run}.csv",
    log:
        "<logs>/generate/{generated}/{run}.log",
    conda:
        driver_environment
    resources:
        mem_mb=megabytes(4000),
        runtime=trajectory_minutes,
        # Not a parameter: another interpreter, say, is no reason to make a trajectory again.
        conduct=driver_conduct,
    params:
        options=trajectory_options,
    shell:
        "python {input.script} --config {input.settings} {params.options} "
        "--conduct {resources.conduct:q} --reference {input.reference} --out {output.frames} "
        "--log {output.log} "
        "2>&1 | tee {log}"


rule trajectories_table:
    input:
        script="workflow/scripts/trajectories_table.py",
        settings="<results>/settings/dataset~{generated}.yaml",
        trajectories=generated_trajectories,
        logs=generated_logs,
    output:
        csv="<results>/data/{generated}/trajectories.csv",
        md=report(
            "<results>/data/{generated}/trajectories.md",
            caption="../report/structures.rst",
            category="Structures",
            labels={"dataset": "{generated}", "format": "Markdown"},
        ),
    log:
        "<logs>/trajectories_table/{generated}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        source=driver,
        radius=config["figures"]["neighbour_radius"],
    shell:
        "python {input.script} --settings {input.settings} --dataset {wildcards.generated} "
        "--source {params.source} --radius {params.radius} --out {output.csv} "
        "--markdown {output.md} 2>&1 | tee {log}"


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
