# The three kinds of training run the same program; they differ in the initial weights.
include: "helpers/training.smk"


rule pretrain:
    input:
        script="workflow/scripts/train.py",
        settings="<results>/settings/pretrain~{transform}.yaml",
        data="<results>/labels/{structures}/{source}/npre~{npre}.h5",
    output:
        model=ensure(f"<results>/runs/{PRETRAINING}/model.ckpt", non_empty=True),
        metrics=ensure(f"<results>/runs/{PRETRAINING}/metrics.json", non_empty=True),
        curve=f"<results>/runs/{PRETRAINING}/curve.csv",
    log:
        f"<logs>/{PRETRAINING}.log",
    conda:
        "../../envs/train.yaml"
    threads: training_threads
    resources:
        gpu=gpus,
        mem_mb=training_memory,
        runtime=training_minutes,
        # Not a parameter: another device is no reason to train again.
        machine=machine_options,
    shell:
        "python {input.script} --kind pretrain --data {input.data} --n {wildcards.npre} "
        "--transform {wildcards.transform} --seed {wildcards.seed} "
        "--settings {input.settings} --machine {resources.machine:q} "
        "--out $(dirname {output.model}) 2>&1 | tee {log}"


rule direct:
    input:
        script="workflow/scripts/train.py",
        settings="<results>/settings/direct.yaml",
        data=target_data,
    output:
        model=ensure(f"<results>/runs/{DIRECT}/model.ckpt", non_empty=True),
        metrics=ensure(f"<results>/runs/{DIRECT}/metrics.json", non_empty=True),
        curve=f"<results>/runs/{DIRECT}/curve.csv",
    log:
        f"<logs>/{DIRECT}.log",
    conda:
        "../../envs/train.yaml"
    threads: training_threads
    resources:
        gpu=gpus,
        mem_mb=training_memory,
        runtime=training_minutes,
        # Not a parameter: another device is no reason to train again.
        machine=machine_options,
    shell:
        "python {input.script} --kind direct --data {input.data} --n {wildcards.n} "
        "--seed {wildcards.seed} --settings {input.settings} --machine {resources.machine:q} "
        "--out $(dirname {output.model}) 2>&1 | tee {log}"


rule finetune:
    input:
        script="workflow/scripts/train.py",
        settings="<results>/settings/finetune.yaml",
        data=target_data,
        pretrained=pretrained_model,
    output:
        model=ensure(f"<results>/runs/{FINETUNING}/model.ckpt", non_empty=True),
        metrics=ensure(f"<results>/runs/{FINETUNING}/metrics.json", non_empty=True),
        curve=f"<results>/runs/{FINETUNING}/curve.csv",
    log:
        f"<logs>/{FINETUNING}.log",
    conda:
        "../../envs/train.yaml"
    threads: training_threads
    resources:
        gpu=gpus,
        mem_mb=training_memory,
        runtime=training_minutes,
        # Not a parameter: another device is no reason to train again.
        machine=machine_options,
    shell:
        "python {input.script} --kind finetune --data {input.data} --n {wildcards.n} "
        "--seed {wildcards.seed} --initial {input.pretrained} --settings {input.settings} "
        "--machine {resources.machine:q} --out $(dirname {output.model}) 2>&1 | tee {log}"


# Published weights in place of a pre-training.
rule import_weights:
    input:
        script="workflow/scripts/import_weights.py",
        settings="<results>/settings/pretrain~{transform}.yaml",
        weights=stand_in_file,
    output:
        model=ensure(f"<results>/runs/{IMPORTED}/model.ckpt", non_empty=True),
        metrics=ensure(f"<results>/runs/{IMPORTED}/metrics.json", non_empty=True),
    log:
        f"<logs>/{IMPORTED}.log",
    conda:
        "../../envs/train.yaml"
    params:
        options=stand_in_options,
    shell:
        "python {input.script} {params.options} "
        "--transform {wildcards.transform} --settings {input.settings} --out $(dirname {output.model}) 2>&1 | tee {log}"
