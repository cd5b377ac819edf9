# What the rules of tables look up.
from pretraining.study.queries import PUBLISHED_TARGET

# The table of runs that replaces those of this folder; runs that it lacks are missing.
SHIPPED = config["shipped"] if config["metrics_from"] == "shipped" else None
ALLOW_MISSING = "--allow-missing" if config["allow_missing"] or SHIPPED else ""


def table_experiments(wildcards):
    """Return the experiments whose results a table holds: all or one."""
    if wildcards.table == "runs":
        return list(config["experiments"])
    return [wildcards.table.removesuffix("-runs")]


def table_metrics(wildcards):
    """Return the metrics that a table collects; with `allow_missing` those that exist."""
    if SHIPPED:
        return [SHIPPED]
    refuse_unpublished("efficiency, cost and tables of runs", [])
    rows = grids.results_table(config, GRID, table_experiments(wildcards))
    if config["allow_missing"]:
        return [path for path in rows["metrics"] if Path(path).exists()]
    return list(rows["metrics"])


def evaluation_chunk(wildcards):
    """Return the labels of a source on a target's test set; without a calculator it has none."""
    if wildcards.source not in CALCULATED:
        refuse(f"sources.{wildcards.source}: no calculator, so no error of its own")
    return chunk_files(wildcards.target, wildcards.source, 0)


def published_as(dataset):
    """Return the name under which results on a test set are published; None if they are not."""
    return config["datasets"][dataset].get("published_as")


def published_file(name):
    """Return the file of published values, if they are shown."""
    shown = config["metrics_from"] == "published" or config["published_beside"]
    return [f"resources/published/{name}.csv"] if shown else []


def refuse_unpublished(what, published):
    """End with an error if published values are wanted and there are none."""
    if config["metrics_from"] == "published" and not published:
        refuse(
            f"metrics_from: nothing is published for {what}; the published values are "
            f"Table 1 and the learning curves of {PUBLISHED_TARGET} (datasets.NAME.published_as)"
        )


def runs_or_published(experiment, published):
    """Return the table of an experiment's runs; none if published values replace it."""
    if config["metrics_from"] == "published":
        refuse_unpublished(f"experiment '{experiment}'", published)
        return []
    return f"<results>/tables/{experiment}-runs.csv"


def table1_experiment():
    """Return the experiment of Table 1: the first that compares label sources."""
    compared = [n for n, e in config["experiments"].items() if e["compare"] == "source"]
    return [*compared, *config["experiments"]][0]


def table1_runs(wildcards):
    """Return the runs of Table 1; none if it shows the published values."""
    return runs_or_published(table1_experiment(), table1_published(wildcards))


def table1_published(wildcards):
    """Return the published Table 1, shown beside the computed one or in its place."""
    target = config["experiments"][table1_experiment()]["target"]
    return published_file("table1") if published_as(target) == PUBLISHED_TARGET else []


def published_claims(wildcards):
    """Return the published single numbers, if a test set of theirs is read."""
    tested = datasets_tested(config)
    return published_file("headline") if any(map(published_as, tested)) else []
