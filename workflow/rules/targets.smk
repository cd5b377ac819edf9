# Targets by name: what a study ends in, and what can be asked for by itself.
include: "helpers/targets.smk"


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


rule check_sources:
    input:
        "<results>/checks/sources.md",


rule compare_sources:
    input:
        compared_datasets,
