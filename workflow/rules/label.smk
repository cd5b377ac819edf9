# From structures to synthetic labels: one interpreter a source, one job a chunk.


rule isolated_atoms:
    input:
        script="workflow/scripts/label.py",
        settings="<results>/settings/source~{source}.yaml",
        retrieved=source_stamp,
    output:
        ensure("<results>/labels/references/{source}.json", non_empty=True),
    log:
        "<logs>/isolated_atoms/{source}.log",
    wildcard_constraints:
        source=one_of(CALCULATED),
    conda:
        source_environment
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(60),
        # Not a parameter: another time limit, say, is no reason to label again.
        conduct=label_conduct,
    params:
        elements=source_elements,
    shell:
        "python {input.script} --config {input.settings} --source {wildcards.source} "
        "--conduct {resources.conduct:q} --elements {params.elements} "
        "--write-reference {output} 2>&1 | tee {log}"


rule chunk:
    input:
        script="workflow/scripts/cut_chunk.py",
        data="<results>/data/{dataset}/prepared.h5",
    output:
        "<results>/data/{dataset}/chunks/{chunk}.extxyz",
    log:
        "<logs>/chunk/{dataset}/{chunk}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        size=config["labelling"]["chunk_size"],
    shell:
        "python {input.script} --data {input.data} --chunk {wildcards.chunk} "
        "--size {params.size} --out {output} 2>&1 | tee {log}"


# So many structures at once as it has threads; a job that is ended goes on where it was.
rule label:
    input:
        script="workflow/scripts/label.py",
        settings="<results>/settings/source~{source}.yaml",
        retrieved=source_stamp,
        reference="<results>/labels/references/{source}.json",
        structures="<results>/data/{dataset}/chunks/{chunk}.extxyz",
    output:
        # Empty if all its structures are in earlier chunks, too.
        labels="<results>/labels/{dataset}/{source}/chunks/{chunk}.extxyz",
        provenance=ensure(
            "<results>/labels/{dataset}/{source}/chunks/{chunk}.provenance.json", non_empty=True
        ),
    log:
        "<logs>/label/{dataset}/{source}/{chunk}.log",
    wildcard_constraints:
        source=one_of(CALCULATED),
    conda:
        source_environment
    threads: 1
    resources:
        mem_mb=label_memory,
        runtime=label_minutes,
        # Not a parameter: another time limit, say, is no reason to label again.
        conduct=label_conduct,
    shell:
        "python {input.script} --config {input.settings} --source {wildcards.source} "
        "--conduct {resources.conduct:q} --processes {threads} --reference {input.reference} "
        "--structures {input.structures} --allow-empty --out {output.labels} "
        "--provenance {output.provenance} 2>&1 | tee {log}"


rule join_labels:
    input:
        script="workflow/scripts/join_labels.py",
        data="<results>/data/{structures}/prepared.h5",
        chunks=labelled_chunks,
        provenance=provenance_of(labelled_chunks),
    output:
        ensure("<results>/labels/{structures}/{source}/npre~{npre}.h5", non_empty=True),
    log:
        "<logs>/join_labels/{structures}/{source}/{npre}.log",
    wildcard_constraints:
        source=one_of(CALCULATED),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        zero=zero_option,
    shell:
        "python {input.script} --data {input.data} --source {wildcards.source} {params.zero} "
        "--n {wildcards.npre} --chunks {input.chunks} --provenance {input.provenance} "
        "--out {output} 2>&1 | tee {log}"


# A target that is labelled here: DFT for a new material, say.
rule join_target:
    input:
        script="workflow/scripts/join_labels.py",
        data="<results>/data/{target}/prepared.h5",
        chunks=target_chunks,
        provenance=provenance_of(target_chunks),
    output:
        ensure("<results>/labels/{target}/{source}/n~{n}.h5", non_empty=True),
    log:
        "<logs>/join_labels/{target}/{source}/n~{n}.log",
    wildcard_constraints:
        source=one_of(CALCULATED),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        zero=zero_option,
    shell:
        "python {input.script} --data {input.data} --source {wildcards.source} {params.zero} "
        "--n {wildcards.n} --chunks {input.chunks} --provenance {input.provenance} "
        "--out {output} 2>&1 | tee {log}"


# Labels that came with the structures.
rule own_labels:
    input:
        script="workflow/scripts/own_labels.py",
        data="<results>/data/{structures}/prepared.h5",
    output:
        ensure("<results>/labels/{structures}/{source}/npre~{npre}.h5", non_empty=True),
    log:
        "<logs>/own_labels/{structures}/{source}/{npre}.log",
    wildcard_constraints:
        source=one_of(set(config["sources"]) - CALCULATED),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --data {input.data} --n {wildcards.npre} --out {output} "
        "2>&1 | tee {log}"
