# Synthetic pre-training of neural-network interatomic potentials: table of contents.
from snakemake.utils import min_version

min_version("9.25")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


pathvars:
    results=config["results"],
    logs=f"{config['results']}/logs",


include: "workflow/rules/study.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/labels.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/dynamics.smk"
include: "workflow/rules/embedding.smk"
include: "workflow/rules/results.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/operations.smk"
# What a user may ask for by name, beside `all`.
include: "workflow/rules/targets.smk"


rule all:
    default_target: True
    input:
        artefacts,


onstart:
    stop_after_leftovers(workflow)


onerror:
    say_last(status.failures(config, GRID, STARTED, interrupted(log)))
