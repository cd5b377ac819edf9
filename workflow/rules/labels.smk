# Structures get synthetic labels: one interpreter a source, one job a chunk. Label sources are
# checked and compared.
include: "helpers/labels.smk"


rule isolated_atoms:
    input:
        script="workflow/scripts/label.py",
        settings="<results>/settings/source~{source}.yaml",
        retrieved=source_stamp,
    output:
        energies="<results>/labels/references/{source}.json",
        provenance="<results>/labels/references/{source}.provenance.json",
    log:
        "<logs>/isolated_atoms/{source}.log",
    wildcard_constraints:
        source=one_of(CALCULATED),
    conda:
        source_environment
    resources:
        mem_mb=megabytes(4000),
        runtime=minutes(60),
        # Not parameters: another interpreter or time limit labels nothing again.
        python=source_python,
        options=source_options,
    params:
        elements=lambda wildcards: config["sources"][wildcards.source]["elements"],
        # Not in the command: labels are made again when a file of the arguments changes.
        contents=source_contents,
    shell:
        "{resources.python:q} {input.script} --config {input.settings} --source {wildcards.source} "
        "--runtime {resources.options:q} --elements {params.elements} "
        "--write-reference {output.energies} --provenance {output.provenance} 2>&1 | tee {log}"


rule chunk:
    input:
        script="workflow/scripts/cut_chunk.py",
        data="<results>/data/{dataset}/prepared.h5",
    output:
        structures="<results>/data/{dataset}/chunks/{chunk}.extxyz",
        provenance="<results>/data/{dataset}/chunks/{chunk}.provenance.json",
    log:
        "<logs>/chunk/{dataset}/{chunk}.log",
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        size=config["labelling"]["chunk_size"],
    shell:
        "python {input.script} --data {input.data} --chunk {wildcards.chunk} "
        "--size {params.size} --out {output.structures} 2>&1 | tee {log}"


# A job labels as many structures at once as it has threads, and resumes where it was stopped.
rule label:
    input:
        script="workflow/scripts/label.py",
        settings="<results>/settings/source~{source}.yaml",
        retrieved=source_stamp,
        reference="<results>/labels/references/{source}.json",
        structures="<results>/data/{dataset}/chunks/{chunk}.extxyz",
    output:
        # Empty if earlier chunks have all its structures.
        labels="<results>/labels/{dataset}/{source}/chunks/{chunk}.extxyz",
        provenance="<results>/labels/{dataset}/{source}/chunks/{chunk}.provenance.json",
    log:
        "<logs>/label/{dataset}/{source}/{chunk}.log",
    wildcard_constraints:
        source=one_of(CALCULATED),
    conda:
        source_environment
    threads: 1
    resources:
        mem_mb=label_memory,
        runtime=minutes(240),
        # Not parameters: another interpreter or time limit labels nothing again.
        python=source_python,
        options=source_options,
    params:
        contents=source_contents,
    shell:
        "{resources.python:q} {input.script} --config {input.settings} --source {wildcards.source} "
        "--runtime {resources.options:q} --processes {threads} --reference {input.reference} "
        "--structures {input.structures} --allow-empty --out {output.labels} "
        "--provenance {output.provenance} 2>&1 | tee {log}"


rule join_labels:
    input:
        script="workflow/scripts/join_labels.py",
        data="<results>/data/{structures}/prepared.h5",
        chunks=labelled_chunks,
        provenance=chunk_provenance,
    output:
        "<results>/labels/{structures}/{source}/npre~{npre}.h5",
    log:
        "<logs>/join_labels/{structures}/{source}/{npre}.log",
    wildcard_constraints:
        source=one_of(CALCULATED),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    params:
        zero=zero_option,
        n="{npre}",
    shell:
        "python {input.script} --data {input.data} --source {wildcards.source} {params.zero} "
        "--n {params.n} --chunks {input.chunks} --provenance {input.provenance} "
        "--out {output} 2>&1 | tee {log}"


# A target that is labelled here: with DFT for a new material, for example.
use rule join_labels as join_target with:
    input:
        script="workflow/scripts/join_labels.py",
        data="<results>/data/{target}/prepared.h5",
        chunks=labelled_chunks,
        provenance=chunk_provenance,
    output:
        "<results>/labels/{target}/{source}/n~{n}.h5",
    log:
        "<logs>/join_labels/{target}/{source}/n~{n}.log",
    params:
        n="{n}",


# Labels that came with the structures.
rule own_labels:
    input:
        script="workflow/scripts/own_labels.py",
        data="<results>/data/{structures}/prepared.h5",
    output:
        "<results>/labels/{structures}/{source}/npre~{npre}.h5",
    log:
        "<logs>/own_labels/{structures}/{source}/{npre}.log",
    wildcard_constraints:
        source=one_of(name for name, s in config["sources"].items() if "own_labels" in s),
    localrule: True
    conda:
        "../../envs/analysis.yaml"
    shell:
        "python {input.script} --data {input.data} --n {wildcards.npre} --out {output} "
        "2>&1 | tee {log}"


# Labels that others have published; each file is compared with other labels first.
rule published_labels:
    input:
        script="workflow/scripts/own_labels.py",
        data="<results>/data/{structures}/prepared.h5",
        retrieved=source_stamp,
        known=verification_chunk,
    output:
        "<results>/labels/{structures}/{source}/npre~{npre}.h5",
    log:
        "<logs>/published_labels/{structures}/{source}/{npre}.log",
    wildcard_constraints:
        source=one_of(name for name, s in config["sources"].items() if "published_labels" in s),
    conda:
        "../../envs/analysis.yaml"
    resources:
        mem_mb=megabytes(6000),
        runtime=minutes(60),
    params:
        options=verification_options,
    shell:
        "python {input.script} --data {input.data} --n {wildcards.npre} "
        "--published {input.retrieved} {params.options} --out {output} 2>&1 | tee {log}"


rule check_source:
    input:
        script="workflow/scripts/check_source.py",
        settings="<results>/settings/check~{source}.yaml",
    output:
        "<results>/checks/sources/{source}.json",
    log:
        "<logs>/check_source/{source}.log",
    wildcard_constraints:
        source=one_of(CALCULATED),
    conda:
        source_environment
    resources:
        mem_mb=megabytes(4000),
        # The time limit of the check, and ten minutes.
        runtime=minutes(math.ceil(10 + 2 * config["check_sources"]["time_limit"] / 60)),
    params:
        attempt=check_attempt,
        contents=source_contents,
    shell:
        "python {input.script} --config {input.settings} --source {wildcards.source} "
        "--attempt {params.attempt:q} --out {output} 2>&1 | tee {log}"


rule report_sources:
    input:
        script="workflow/scripts/report_sources.py",
        styles="<results>/settings/styles.yaml",
        checks=expand("<results>/checks/sources/{source}.json", source=sorted(CALCULATED)),
    output:
        md=reported(
            "<results>/checks/sources.md", "check_sources", "Label sources", {"what": "check"}
        ),
        csv="<results>/checks/sources.csv",
        figure=figure(
            "<results>/figures/sources", "check_sources", "Label sources", {"what": "check"}
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
        "--figure {output.figure} 2>&1 | tee {log}"


# The sources against each other and the dataset's labels, on its validation and test structures.
rule compare_on:
    input:
        script="workflow/scripts/compare_sources.py",
        styles="<results>/settings/styles.yaml",
        data="<results>/data/{dataset}/prepared.h5",
        chunks=compared_chunks,
    output:
        md=reported(
            "<results>/comparisons/{dataset}.md",
            "compare_sources",
            "Label sources",
            {"what": "comparison on {dataset}"},
        ),
        csv="<results>/comparisons/{dataset}.csv",
        parity=figure(
            "<results>/figures/parity~{dataset}",
            "compare_sources",
            "Label sources",
            {"what": "parity on {dataset}"},
        ),
        matrix=figure(
            "<results>/figures/sources~{dataset}",
            "compare_sources",
            "Label sources",
            {"what": "each against each on {dataset}"},
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
