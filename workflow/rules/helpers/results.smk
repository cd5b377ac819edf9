# What the rules of tables and figures look up.


def table_experiments(wildcards):
    """Return the experiments whose results a table holds: one's own, or those of all."""
    if wildcards.table == "runs":
        return list(config["experiments"])
    return [wildcards.table.removesuffix("-runs")]


def table_metrics(wildcards):
    """Return the metrics that a table collects; with `allow_missing` those that exist."""
    refuse_unpublished("efficiency, cost and tables of runs", [])
    rows = grids.results_table(config, GRID, table_experiments(wildcards))
    if config["allow_missing"]:
        return [path for path in rows["metrics"] if Path(path).exists()]
    return list(rows["metrics"])


def published_file(name):
    """Return the file of published values, if they are to be drawn."""
    shown = config["metrics_from"] == "published" or config["published_beside"]
    return [f"resources/published/{name}.csv"] if shown else []


def refuse_unpublished(what, published):
    """End in one line where published values are asked for and there are none."""
    if config["metrics_from"] == "published" and not published:
        sys.exit(
            f"error: metrics_from: nothing is published for {what}; the published values are "
            f"Table 1 and the learning curves on {PUBLISHED_TARGET}"
        )


def table1_experiment():
    """Return the experiment that Table 1 shows: the first that compares label sources."""
    compared = [n for n, e in config["experiments"].items() if e["compare"] == "source"]
    return [*compared, *config["experiments"]][0]


def table1_runs(wildcards):
    """Return the runs of Table 1; none if it shows the published values."""
    if config["metrics_from"] == "published":
        refuse_unpublished(f"experiment '{table1_experiment()}'", table1_published(wildcards))
        return []
    return f"<results>/tables/{table1_experiment()}-runs.csv"


def table1_published(wildcards):
    """Return the published Table 1 if the computed one is set beside it or replaced by it."""
    target = config["experiments"][table1_experiment()]["target"]
    return published_file("table1") if target == PUBLISHED_TARGET else []


def table1_options(wildcards, input):
    """Return what Table 1 shows, as an option."""
    return f"--runs {input.runs}" if input.runs else f"--published {input.published}"


def published_headlines(wildcards):
    """Return the published single numbers, if efficiency and cost are set beside them."""
    targets = {name for e in config["experiments"].values() for name in datasets_of(e)}
    return published_file("headline") if PUBLISHED_TARGET in targets else []


def published_option(wildcards, input):
    """Return the option that sets results beside the published ones."""
    return f"--published {input.published}" if input.published else ""
