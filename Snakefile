# Synthetic pre-training of neural-network interatomic potentials: table of contents.
from snakemake.utils import min_version

min_version("9.25")


# A --configfile replaces the paper's grid: merged, the two grids would both be run.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"


pathvars:
    results=config["results"],
    logs=f"{config['results']}/logs",


include: "workflow/rules/retrieve.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/label.smk"
include: "workflow/rules/sources.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/embedding.smk"
include: "workflow/rules/dynamics.smk"


rule all:
    default_target: True
    input:
        artefacts,


rule fig2:
    input:
        figure_of("fig2"),


rule fig3:
    input:
        figure_of("fig3"),


rule fig4:
    input:
        figure_of("fig4"),


rule fig5:
    input:
        figure_of("fig5"),


rule umap:
    input:
        all_maps,


rule md:
    input:
        all_dynamics,


rule structures:
    input:
        all_generated,


rule grid:
    input:
        "<results>/grid.tsv",
