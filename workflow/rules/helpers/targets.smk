# What the study ends in.


def figure_of(name):
    """Return an input function with the files of an experiment's figure."""

    def files(wildcards):
        if name not in config["experiments"]:
            known = ", ".join(config["experiments"])
            sys.exit(
                f"error: target '{name}': the configuration has no experiment of that name; "
                f"it has: {known}"
            )
        return expand("<results>/figures/{name}.{format}", name=name, format=FIGURE_FORMATS)

    return files


def artefacts(wildcards):
    """Return everything that the configured study ends in."""
    tables = expand("<results>/tables/table1.{format}", format=TABLE_FORMATS)
    read = {name for e in config["experiments"].values() for name in datasets_of(e)}
    tables += generated_figures([name for name in GENERATED if name in read])
    if config["metrics_from"] == "published":
        names = [
            name
            for name, experiment in config["experiments"].items()
            if experiment["target"] == PUBLISHED_TARGET and figure_kind(name) == "curves"
        ]
    else:
        names = config["experiments"]
        tables += ["<results>/tables/efficiency.csv", "<results>/tables/cost.csv"]
        tables += map_files(list(config["embeddings"]))
        tables += md_files([name for name in config["dynamics"] if outcomes_of(name)])
        if "source" in set(grids.results_table(config, GRID, config["experiments"])["kind"]):
            tables += expand("<results>/figures/students.{format}", format=FIGURE_FORMATS)
        if any(experiment["also_test"] for experiment in config["experiments"].values()):
            tables.append("<results>/tables/forgetting.csv")
        if table1_published(wildcards):
            tables.append("<results>/tables/table1-differences.csv")
    return tables + expand("<results>/figures/{name}.{format}", name=names, format=FIGURE_FORMATS)
