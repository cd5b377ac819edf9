# What the study ends in.


def figure_files(names):
    """Return the files of figures."""
    formats = config["figures"]["formats"]
    return expand("<results>/figures/{name}.{format}", name=names, format=formats)


def figure_of(experiment):
    """Return an input function with the figure of an experiment."""

    def files(wildcards):
        if experiment not in config["experiments"]:
            refuse(
                f"target '{experiment}': the configuration has no experiment of that name; "
                f"it has: {', '.join(config['experiments'])}"
            )
        return figure_files(experiment)

    return files


def map_files(names):
    """Return the figures and tables of maps."""
    tables = expand("<results>/embeddings/{name}.md", name=names)
    return figure_files([f"umap-{name}" for name in names]) + tables


def md_files(names):
    """Return the figures and tables of MD stability tests."""
    tables = expand("<results>/tables/md-{name}.md", name=names)
    return figure_files([f"md-{name}" for name in names]) + tables


def structure_files(names):
    """Return the figures and tables of generated datasets."""
    tables = expand("<results>/data/{name}/trajectories.md", name=names)
    return figure_files([f"structures-{name}" for name in names]) + tables


def all_of(names, files, error):
    """Return an input function with the files of all names; without any it ends with the error."""
    return lambda wildcards: files(list(names)) if names else refuse(error)


# The paper's figures, and every other experiment whose name begins like theirs.
FIGURES = {"fig2", "fig3", "fig4", "fig5"}
FIGURES |= {name for name in config["experiments"] if name.startswith("fig")}
TARGETS = {
    **{name: figure_of(name) for name in sorted(FIGURES)},
    "umap": all_of(
        config["embeddings"], map_files, "target 'umap': the configuration has no 'embeddings'"
    ),
    "md": all_of(config["dynamics"], md_files, "target 'md': the configuration has no 'dynamics'"),
    "structures": all_of(
        GENERATED,
        structure_files,
        "target 'structures': no dataset of the configuration has 'generate'",
    ),
    "export": exports,
    "grid": "<results>/grid.tsv",
    "check_sources": all_of(
        CALCULATED,
        lambda names: "<results>/checks/sources.md",
        "target 'check_sources': no source of the configuration has a calculator",
    ),
    "compare_sources": compared_datasets,
}


def predicted(models):
    """Return whether models are to make predictions: of an unfinished study, if all are trained."""
    trained = (Path(config["results"], "runs", model, "model.ckpt") for model in models)
    return not SHIPPED and (not config["allow_missing"] or all(map(Path.is_file, trained)))


def artefacts(wildcards):
    """Return everything that the configured study ends in."""
    return [*tables_and_figures(wildcards), "<results>/summary.html"]


def tables_and_figures(wildcards):
    """Return all that the page of results is made from."""
    experiments = config["experiments"]
    files = expand("<results>/tables/table1.{format}", format=["csv", "md", "tex"])
    read = datasets_read(config)
    if not SHIPPED:
        files += structure_files([name for name in GENERATED if name in read])
    if config["metrics_from"] == "published":
        return files + figure_files(
            [
                name
                for name, experiment in experiments.items()
                if published_as(experiment["target"]) and figure_kind(name) == "learning_curves"
            ]
        )
    files += ["<results>/tables/efficiency.csv", "<results>/tables/cost.csv"]
    # Maps and dynamics need structures and models.
    if not SHIPPED:
        files += map_files(list(config["embeddings"]))
        files += md_files([name for name in config["dynamics"] if outcomes_of(name)])
    tested = grids.results_table(config, GRID, experiments).query("kind == 'source'")["metrics"]
    everything = SHIPPED or not config["allow_missing"]
    if any(everything or Path(path).is_file() for path in tested):
        files += figure_files("students")
    if any(experiment["also_test"] for experiment in experiments.values()):
        files.append("<results>/tables/forgetting.csv")
    if table1_published(wildcards):
        files.append("<results>/tables/table1-differences.csv")
    files += figure_files([f"surface-{name}" for name in by_size()])
    several = [name for name, experiment in experiments.items() if len(experiment["sources"]) > 1]
    files += figure_files([f"angles-{name}" for name in several if predicted(angle_models(name))])
    return files + figure_files([f"{kind}{name}" for name in experiments for kind in ("", "time-")])


# Order of the page of results by name; the empty name stands for all others.
PAGE = ("table1", *config["experiments"], "", "forgetting", "efficiency", "cost")


def page_place(path):
    """Return the place of a table or figure in the page of results."""
    name = Path(path).stem
    return PAGE.index(name if name in PAGE else "")


def page_parts(wildcards):
    """Return the tables and pictures of the page of results in its order, each once."""
    shown = {}
    for path in tables_and_figures(wildcards):
        path, _, form = path.rpartition(".")
        form = "md" if form in ("csv", "md") else form
        if form in ("md", "png", "svg"):
            shown.setdefault(path, f"{path}.{form}")
    return sorted(shown.values(), key=page_place)


def page_captions(wildcards, input):
    """Return the name of the caption of each part of the page, - for none."""
    captions = []
    for path in map(Path, input.parts):
        if path.stem in config["experiments"]:
            caption = figure_kind(path.stem)
        elif path.parent.name == "embeddings":
            caption = "coverage"
        else:
            caption = path.stem.partition("-")[0]
            caption += "_table" if caption == "md" and path.suffix == ".md" else ""
        captions.append(caption if (WORKFLOW / f"report/{caption}.rst").is_file() else "-")
    return captions
