# The three kinds of training run the same program; they differ in data and initial weights.
include: "helpers/training.smk"


rule pretrain:
    input:
        script="workflow/scripts/train.py",
        settings="<results>/settings/pretrain~{transform}.yaml",
        data="<results>/labels/{structures}/{source}/npre~{npre}.h5",
    output:
        model=f"<results>/runs/{PRETRAINING}/model.ckpt",
        metrics=f"<results>/runs/{PRETRAINING}/metrics.json",
        curve=f"<results>/runs/{PRETRAINING}/curve.csv",
    log:
        f"<logs>/{PRETRAINING}.log",
    conda:
        "../../envs/train.yaml"
    threads: TRAINING_THREADS
    resources:
        gpu=GPUS,
        mem_mb=training_memory,
        runtime=training_minutes,
        # Not a parameter: another device trains nothing again.
        machine=TRAINING_MACHINE,
    params:
        kind="pretrain",
        n="{npre}",
        transform="{transform}",
        initial=given("initial"),
    shell:
        "python {input.script} --kind {params.kind} --data {input.data} --n {params.n} "
        "--transform {params.transform} --seed {wildcards.seed} {params.initial} "
        "--settings {input.settings} --machine {resources.machine:q} "
        "--out $(dirname {output.model}) 2>&1 | tee {log}"


use rule pretrain as direct with:
    input:
        script="workflow/scripts/train.py",
        settings="<results>/settings/direct.yaml",
        data=target_data,
    output:
        model=f"<results>/runs/{DIRECT}/model.ckpt",
        metrics=f"<results>/runs/{DIRECT}/metrics.json",
        curve=f"<results>/runs/{DIRECT}/curve.csv",
    log:
        f"<logs>/{DIRECT}.log",
    params:
        kind="direct",
        n="{n}",
        transform="none",


use rule direct as finetune with:
    input:
        script="workflow/scripts/train.py",
        settings="<results>/settings/finetune.yaml",
        data=target_data,
        initial=pretrained_model,
    output:
        model=f"<results>/runs/{FINETUNING}/model.ckpt",
        metrics=f"<results>/runs/{FINETUNING}/metrics.json",
        curve=f"<results>/runs/{FINETUNING}/curve.csv",
    log:
        f"<logs>/{FINETUNING}.log",
    params:
        kind="finetune",


# Published weights in place of a pre-training.
rule import_weights:
    input:
        script="workflow/scripts/import_weights.py",
        settings="<results>/settings/pretrain~{transform}.yaml",
        weights=imported_file,
    output:
        model=f"<results>/runs/{IMPORTED}/model.ckpt",
        metrics=f"<results>/runs/{IMPORTED}/metrics.json",
    log:
        f"<logs>/{IMPORTED}.log",
    conda:
        "../../envs/train.yaml"
    params:
        options=import_options,
    shell:
        "python {input.script} {params.options} --transform {wildcards.transform} "
        "--settings {input.settings} --out $(dirname {output.model}) 2>&1 | tee {log}"
