# Molecular dynamics: a label source generates structures, and trained models are tested for
# stability.
include: "helpers/dynamics.smk"


# A job that is killed or reaches its limit resumes from its last checkpoint.
rule generate:
    input:
        script="workflow/scripts/generate.py",
        settings="<results>/settings/generate~{generated}.yaml",
        reference=source_reference,
        retrieved=source_stamp,
    output:
        frames="<results>/data/{generated}/trajectories/{run}.extxyz",
        log="<results>/data/{generated}/trajectories/{run}.csv",
        provenance="<results>/data/{generated}/trajectories/{run}.provenance.json",
    log:
        "<logs>/generate/{generated}/{run}.log",
    conda:
        source_environment
    resources:
        mem_mb=megabytes(4000),
        runtime=trajectory_minutes,
        # Not parameters: another interpreter or time limit makes no trajectory again.
        python=source_python,
        options=source_options,
    params:
        options=trajectory_options,
        contents=source_contents,
    shell:
        "{resources.python:q} {input.script} --config {input.settings} {params.options} "
        "--runtime {resources.options:q} --reference {input.reference} --out {output.frames} "
        "--log {output.log} 2>&1 | tee {log}"


rule trajectories_table:
    input:
        script="workflow/scripts/trajectories_table.py",
        settings="<results>/settings/dataset~{generated}.yaml",
        trajectories=generated_files(".extxyz"),
        logs=generated_files(".csv"),
    output:
        csv="<results>/data/{generated}/trajectories.csv",
        md=reported(
            "<results>/data/{generated}/trajectories.md",
            "structures",
            "Structures",
            {"dataset": "{generated}"},
        ),
    log:
        "<logs>/trajectories_table/{generated}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        source=source_of,
        radius=radius_option(config["figures"].get("neighbour_radius")),
    shell:
        "python {input.script} --settings {input.settings} --dataset {wildcards.generated} "
        "--source {params.source} {params.radius} --out {output.csv} "
        "--markdown {output.md} 2>&1 | tee {log}"


rule dynamics_start:
    input:
        script="workflow/scripts/dynamics_start.py",
        settings="<results>/settings/start~{test}.yaml",
        data=start_data,
        file=start_file,
    output:
        structure="<results>/dynamics/{test}/start.extxyz",
        provenance="<results>/dynamics/{test}/start.provenance.json",
    log:
        "<logs>/dynamics/{test}/start.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        given=given("data"),
    shell:
        "python {input.script} --settings {input.settings} {params.given} "
        "--out {output.structure} 2>&1 | tee {log}"


# A job moves one replica, or with torch-sim a batch of replicas; batches have rules of their own since
# their numbers of files differ. A job that is killed or reaches its limit resumes from its last
# checkpoint. A model that fails is a result, not an error.
for name, environment, test, replicas in DYNAMICS_RULES:

    rule:
        name:
            name
        input:
            script="workflow/scripts/dynamics.py",
            settings=f"<results>/settings/dynamics~{test}.yaml",
            start=f"<results>/dynamics/{test}/start.extxyz",
            model="<results>/runs/{model}/model.ckpt",
        output:
            trajectory=replica_files(test, replicas, "trajectory.extxyz"),
            thermodynamics=replica_files(test, replicas, "thermodynamics.csv"),
            coordination=replica_files(test, replicas, "coordination.csv"),
            outcome=replica_files(test, replicas, "outcome.json"),
        log:
            f"<logs>/dynamics/{test}/{{model}}/replica~{replicas[0]}.log",
        wildcard_constraints:
            test=one_of(ONE_BY_ONE),
        conda:
            f"../../envs/{environment}.yaml"
        resources:
            gpu=GPUS,
            mem_mb=megabytes(8000),
            runtime=dynamics_minutes(test, len(replicas)),
            # Not parameters: another device or division into batches runs nothing again.
            machine=DYNAMICS_MACHINE,
            replicas=replica_numbers(replicas),
            trust=TRUST,
        shell:
            "python {input.script} --model {input.model} --start {input.start} "
            "--settings {input.settings} --replicas {resources.replicas} "
            "--machine {resources.machine:q} {resources.trust} --out $(dirname $(dirname {output.outcome[0]})) "
            "2>&1 | tee {log}"


rule md_table:
    input:
        script="workflow/scripts/md_table.py",
        outcomes=beside_outcomes("outcome.json"),
        coordination=beside_outcomes("coordination.csv"),
    output:
        csv="<results>/tables/md-{test}.csv",
        survival="<results>/tables/md-{test}-survival.csv",
        md=reported(
            "<results>/tables/md-{test}.md", "md_table", "Molecular dynamics", {"test": "{test}"}
        ),
    log:
        "<logs>/md_table/{test}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --outcomes {input.outcomes} --out {output.csv} "
        "--survival {output.survival} --markdown {output.md} 2>&1 | tee {log}"
