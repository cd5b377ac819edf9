# What the rules of figures look up.
from pretraining.study.titles import run_title


def figure_kind(name):
    """Return the kind of figure that an experiment ends in, which is the name of its caption."""
    experiment = config["experiments"][name]
    if set(experiment["transforms"]) != {"none"}:
        return "alchemical"
    return "specialised" if experiment["also_test"] else "learning_curves"


def experiment_figure(caption, prefix=""):
    """Return the files of an experiment's figure."""
    name = f"{prefix}{{experiment}}"
    return figure(f"<results>/figures/{name}", caption, "Figures", {"figure": name})


def experiments_of(kind):
    """Return a regular expression of the experiments with one kind of figure."""
    return one_of(name for name in config["experiments"] if figure_kind(name) == kind)


def by_size():
    """Return the experiments that compare pre-training sizes."""
    return [name for name, e in config["experiments"].items() if e["compare"] == "pretrain_size"]


def angle_models(name):
    """Return the models before and after fine-tuning: most pre-training, last seeds."""
    experiment = config["experiments"][name]
    given = config["figures"].get("angles_at", [min(experiment["sizes"]), max(experiment["sizes"])])
    sizes = [min(experiment["sizes"], key=lambda n: abs(math.log(n / wanted))) for wanted in given]
    rows = grids.select(
        GRID,
        name,
        npre=max(experiment["pretrain_sizes"]),
        preseed=experiment["pretrain_seeds"][-1],
        transform=experiment["transforms"][-1],
    )
    tuned = rows["n"].isin(sizes) & (rows["seed"] == experiment["finetune_seeds"][-1])
    return rows[(rows["kind"] == "pretrain") | tuned]["path"].str.removeprefix("runs/").tolist()


def angle_predictions(wildcards):
    """Return these models' predictions on the target's test set."""
    target = config["experiments"][wildcards.experiment]["target"]
    models = angle_models(wildcards.experiment)
    return [f"<results>/predictions/target~{target}/{model}.npz" for model in models]


def angle_note(wildcards):
    """Return the test set, the pre-training and the seed of these models."""
    experiment = config["experiments"][wildcards.experiment]
    npre, seed = max(experiment["pretrain_sizes"]), experiment["finetune_seeds"][-1]
    text = f"{experiment['target']} test set · {npre:,} pre-training structures · seed {seed}"
    return shlex.quote(text)


def figure_runs(wildcards):
    """Return the runs that a figure shows; none if it shows the published values."""
    curves = figure_kind(wildcards.experiment) == "learning_curves"
    published = figure_published("points")(wildcards) if curves else []
    return runs_or_published(wildcards.experiment, published)


def figure_published(name):
    """Return an input function with the published values that figures show."""

    def files(wildcards):
        experiment = config["experiments"][wildcards.experiment]
        tested = [experiment["target"], *experiment["also_test"]]
        return published_file(name) if any(map(published_as, tested)) else []

    return files


def curve_options(wildcards):
    """Return the options that say what the learning curves of an experiment show."""
    experiment = config["experiments"][wildcards.experiment]
    lines = "--untuned --source-errors" if config["figures"]["lines"] else ""
    name = published_as(experiment["target"])
    published = f"--published-as {name}" if name else ""
    aggregate = config["figures"]["aggregate"]
    return f"--compare {experiment['compare']} --aggregate {aggregate} {lines} {published}"


def embedding_panel(file):
    """Return an input function with a file of the map that is a panel of an experiment's figure."""

    def files(wildcards):
        name = config["experiments"][wildcards.experiment].get("embedding")
        return [] if name is None or SHIPPED else file.format(name)

    return files


def composed_options(wildcards):
    """Return the options that say what the panels of an experiment show."""
    experiment = config["experiments"][wildcards.experiment]
    figures = config["figures"]
    options = [f"--target {experiment['target']} --compare {experiment['compare']}"]
    options.append(f"--aggregate {figures['aggregate']} --bars-at {figures['bars_at']}")
    options.append(f"--bars-of {figures['bars_of']}")
    # A specialised target compares direct, pre-trained and fine-tuned models.
    if figures["lines"] or experiment["also_test"]:
        options.append("--untuned")
    if figures["lines"]:
        options.append("--source-errors")
    return " ".join(options)


def parity_options(wildcards):
    """Return the options that describe the model of a parity plot."""
    run = run_at(f"runs/{wildcards.model}")
    title = shlex.quote(run_title(config, run, wildcards.target))
    # The model does not know another dataset's zero of energy.
    shifted = "" if run["target"] == wildcards.target else "--shifted"
    return f"--title {title} --source {run['source']} {shifted}"


def md_options(wildcards):
    """Return the title of an MD stability test and the times of its snapshots, as options."""
    test = config["dynamics"][wildcards.test]
    times = " ".join(str(time) for time in test["snapshots"])
    title = shlex.quote(test.get("title", wildcards.test))
    return f"--title {title} {radius_option(test.get('radius'))} --snapshots {times}"
