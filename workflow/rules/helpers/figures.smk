# What the rules of figures look up.


def figure_kind(name):
    """Return the kind of figure that an experiment ends in."""
    experiment = config["experiments"][name]
    if set(experiment["transforms"]) != {"none"}:
        return "alchemical"
    return "specialised" if experiment["also_test"] else "curves"


def experiments_of(kind):
    """Return a regular expression of the experiments with one kind of figure."""
    return one_of(name for name in config["experiments"] if figure_kind(name) == kind)


def figure_runs(wildcards):
    """Return the runs that a figure shows; none if it shows the published values."""
    if config["metrics_from"] == "published":
        refuse_unpublished(f"experiment '{wildcards.experiment}'", figure_published(wildcards))
        return []
    return f"<results>/tables/{wildcards.experiment}-runs.csv"


def figure_published(wildcards):
    """Return the files of published values that an experiment is drawn beside."""
    experiment = config["experiments"][wildcards.experiment]
    kind = figure_kind(wildcards.experiment)
    if experiment["target"] != PUBLISHED_TARGET or kind != "curves":
        return []
    # The single published values belong to other pre-training sizes than Table 1 does.
    points = experiment["compare"] == "pretrain_size"
    return [*published_file("table1"), *(published_file("points") if points else [])]


# What an option says of the configuration must not be mixed with what it says of inputs: Snakemake
# notices no change of a parameter that is made of them.
def figure_options(wildcards):
    """Return what the learning curves of an experiment show, as options."""
    experiment = config["experiments"][wildcards.experiment]
    figure = {"pretrain_size": "fig2", "source": "fig3"}[experiment["compare"]]
    options = [f"--figure {figure}", f"--aggregate {config['figures']['aggregate']}"]
    if config["figures"]["lines"]:
        options.append("--untuned --source-errors")
    return " ".join(options)


def figure_files(wildcards, input):
    """Return the options that hand the tables of learning curves over."""
    options = [f"--runs {input.runs}"] if input.runs else []
    names = ["--published", "--published-points"]
    options += [f"{name} {file}" for name, file in zip(names, flatten(input.published))]
    return " ".join(options)


def figure_embedding(wildcards):
    """Return the map of environments that is a panel of an experiment's figure, and its style."""
    name = config["experiments"][wildcards.experiment].get("embedding")
    if name is None:
        return []
    return [f"<results>/embeddings/{name}/map.csv", f"<results>/settings/umap~{name}.yaml"]


def composed_options(wildcards):
    """Return what the panels of an experiment show, as options."""
    experiment = config["experiments"][wildcards.experiment]
    figures = config["figures"]
    options = [f"--target {experiment['target']} --compare {experiment['compare']}"]
    options.append(f"--aggregate {figures['aggregate']} --bars-at {figures['bars_at']}")
    # The pre-trained model is one of the three that are compared on a specialised target.
    if figures["lines"] or experiment["also_test"]:
        options.append("--untuned")
    if figures["lines"]:
        options.append("--source-errors")
    return " ".join(options)


def composed_files(wildcards, input):
    """Return the options that hand the map of environments over, if it is a panel."""
    names = ["--embedding", "--embedding-style"]
    return " ".join(f"{name} {file}" for name, file in zip(names, input.embedding))


def parity_options(wildcards):
    """Return what a parity plot says of its model, as options."""
    path = f"runs/{wildcards.model}"
    if path not in SECONDS:
        not_in_grid(path)
    run = grids.select(GRID, path=path).iloc[0]
    titles = {name: dataset.get("title", name) for name, dataset in config["datasets"].items()}
    seed = f"seed {run['seed']}"
    if run["kind"] == "direct":
        made = f"direct, {run['n']:,} structures of {titles[run['target']]}, {seed}"
    else:
        source = config["sources"][run["source"]]["title"]
        made = f"pre-trained on {run['npre']:,} structures with labels of {source}"
        if run["transform"] != "none":
            made += f" ({run['transform']})"
        if run["kind"] == "finetune":
            made += f", fine-tuned on {run['n']:,} of {titles[run['target']]}, {seed}"
    title = f"{made}; tested on {titles[wildcards.target]}"
    # What a model has not seen of this dataset is its zero of energy.
    shifted = "" if run["target"] == wildcards.target else "--shifted"
    return f"--title {shlex.quote(title)} --source {run['source']} {shifted}"
