# Robustness in molecular dynamics: the same start and temperatures for every model, a job a
# trajectory, and how long each lasts.


rule dynamics_start:
    input:
        script="workflow/scripts/dynamics_start.py",
        settings="<results>/settings/start~{moved}.yaml",
        data=start_data,
        file=start_file,
    output:
        "<results>/dynamics/{moved}/start.extxyz",
    log:
        "<logs>/dynamics/{moved}/start.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        data=start_option,
    shell:
        "python {input.script} --settings {input.settings} {params.data} --out {output} "
        "2>&1 | tee {log}"


# A job that is killed or reaches its limit goes on from its last checkpoint. A model that fails is
# a result, not an error.
rule dynamics:
    input:
        script="workflow/scripts/dynamics.py",
        settings="<results>/settings/dynamics~{moved}.yaml",
        start="<results>/dynamics/{moved}/start.extxyz",
        model="<results>/runs/{model}/model.ckpt",
    output:
        trajectory="<results>/dynamics/{moved}/{model}/replica~{replica}/trajectory.extxyz",
        thermodynamics="<results>/dynamics/{moved}/{model}/replica~{replica}/thermodynamics.csv",
        coordination="<results>/dynamics/{moved}/{model}/replica~{replica}/coordination.csv",
        outcome="<results>/dynamics/{moved}/{model}/replica~{replica}/outcome.json",
    log:
        "<logs>/dynamics/{moved}/{model}/replica~{replica}.log",
    wildcard_constraints:
        moved=one_of(MOVED_SINGLY),
    conda:
        "../../envs/train.yaml"
    resources:
        gpu=gpus,
        mem_mb=megabytes(8000),
        runtime=dynamics_minutes,
        # Not a parameter: another device is no reason to run again.
        machine=dynamics_machine,
    shell:
        "python {input.script} --model {input.model} --start {input.start} "
        "--settings {input.settings} --replicas {wildcards.replica} "
        "--machine {resources.machine:q} --out $(dirname $(dirname {output.outcome})) "
        "2>&1 | tee {log}"


# Replicas that torch-sim moves together. The number of files differs from batch to batch, so each
# has a rule of its own.
for moved, replicas in MOVED_TOGETHER:

    rule:
        name:
            f"dynamics_{moved}_{replicas[0]}"
        input:
            script="workflow/scripts/dynamics.py",
            settings=f"<results>/settings/dynamics~{moved}.yaml",
            start=f"<results>/dynamics/{moved}/start.extxyz",
            model="<results>/runs/{model}/model.ckpt",
        output:
            trajectory=replica_files(moved, replicas, "trajectory.extxyz"),
            thermodynamics=replica_files(moved, replicas, "thermodynamics.csv"),
            coordination=replica_files(moved, replicas, "coordination.csv"),
            outcome=replica_files(moved, replicas, "outcome.json"),
        log:
            f"<logs>/dynamics/{moved}/{{model}}/replica~{replicas[0]}-{replicas[-1]}.log",
        conda:
            "../../envs/dynamics.yaml"
        resources:
            gpu=gpus,
            mem_mb=megabytes(8000),
            runtime=batch_minutes(moved, len(replicas)),
            machine=dynamics_machine,
            # Not a parameter: another division into batches is no reason to run again.
            replicas=" ".join(map(str, replicas)),
        shell:
            "python {input.script} --model {input.model} --start {input.start} "
            "--settings {input.settings} --replicas {resources.replicas} "
            "--machine {resources.machine:q} --out $(dirname $(dirname {output.outcome[0]})) "
            "2>&1 | tee {log}"


rule md_table:
    input:
        script="workflow/scripts/md_table.py",
        outcomes=test_outcomes,
        coordination=beside_outcomes("coordination.csv"),
    output:
        csv="<results>/tables/md-{moved}.csv",
        survival="<results>/tables/md-{moved}-survival.csv",
        md=report(
            "<results>/tables/md-{moved}.md",
            caption="../report/md_table.rst",
            category="Molecular dynamics",
            labels={"test": "{moved}", "format": "Markdown"},
        ),
    log:
        "<logs>/md_table/{moved}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --outcomes {input.outcomes} --out {output.csv} "
        "--survival {output.survival} --markdown {output.md} 2>&1 | tee {log}"


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
