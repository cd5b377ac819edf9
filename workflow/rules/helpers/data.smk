# What the rules of files, prepared and generated structures look up.


# ------------------------------------------------------------------------------------ retrieval


def stamp(item):
    """Return what says that the files of a dataset or source are in place, if it has any."""
    return [f"<results>/retrieved/{item}.json"] if retrieval.is_retrieved(config, item) else []


def dataset_stamp(wildcards):
    """Return the stamp of a dataset that is retrieved."""
    return stamp(f"dataset~{wildcards.dataset}")


def source_stamp(wildcards):
    """Return the stamp of a label source whose files are retrieved."""
    return stamp(f"source~{wildcards.source}")


def retrieved_stamps(wildcards):
    """Return the stamps of all that the experiments read."""
    return [path for item in retrieval.study_items(config) for path in stamp(item)]


def remote_files(item):
    """Return the files of a dataset or source."""
    try:
        return retrieval.remote_files(config, item)
    except UserError as error:
        sys.exit(f"error: {error}")


def retrieval_settings(wildcards):
    """Return the settings that name the files of a dataset, a source or published weights."""
    part = {"source": "files"}.get(wildcards.kind, wildcards.kind)
    return f"<results>/settings/{part}~{wildcards.name}.yaml"


def source_addresses(wildcards):
    """Return from where a source's files are retrieved, by path, as JSON."""
    files = config["sources"][wildcards.name]["files"] if wildcards.kind == "source" else []
    return json.dumps({f["path"]: {k: f[k] for k in ADDRESS_KEYS if k in f} for f in files})


def retrieval_listing(wildcards):
    """Return the files of a dataset or source, their sizes and where they come from."""
    return remote.listing(remote_files(f"{wildcards.kind}~{wildcards.name}"))


def retrieval_total(wildcards):
    """Return how much the study reads, and how much of it is in place."""
    files = [file for item in retrieval.study_items(config) for file in remote_files(item)]
    return remote.total(files, Path("."))


# ----------------------------------------------------------------------------------- structures


def dataset_files(wildcards):
    """Return a dataset's own files; those that are retrieved are known by their stamp."""
    dataset = dataset_part(config, wildcards.dataset)
    return [] if "url" in dataset else dataset.get("path", [])


def energy_reference(wildcards):
    """Return the isolated-atom energies that a dataset's reference asks a label source for."""
    source = config["datasets"][wildcards.dataset]["energy_reference"].get("source")
    return [f"<results>/labels/references/{source}.json"] if source else []


def reference_option(wildcards, input):
    """Return the option that hands those energies to the preparation."""
    return f"--reference-from {input.reference}" if input.reference else ""


def largest_size(wildcards):
    """Return the number of structures that the grid's largest run needs of a dataset."""
    return grids.largest_size(GRID, wildcards.dataset)


# ------------------------------------------------------------------------- generated structures


def driver(wildcards):
    """Return the label source that drives the dynamics of a generated dataset."""
    return config["datasets"][wildcards.generated]["generate"]["source"]


def driver_reference(wildcards):
    """Return the isolated-atom energies of that source."""
    return f"<results>/labels/references/{driver(wildcards)}.json"


def driver_stamp(wildcards):
    """Return the stamp of that source, if its files are retrieved."""
    return stamp(f"source~{driver(wildcards)}")


def driver_environment(wildcards):
    """Return the conda environment of that source, relative to the rules."""
    return f"../../{config['sources'][driver(wildcards)].get('env', 'envs/analysis.yaml')}"


def driver_conduct(wildcards):
    """Return how that source is run, as JSON; its interpreter must be there."""
    return conduct_of(driver(wildcards))


def trajectory_options(wildcards):
    """Return which trajectory a job makes, as options."""
    run = GENERATED[wildcards.generated][wildcards.run]
    anneal = "" if run.anneal is None else f"--anneal {run.anneal!r}"
    return f"--density {run.density!r} {anneal} --replica {run.replica}"


def trajectory_minutes(wildcards, attempt):
    """Return a trajectory's wall-time limit, by attempt: slow sources go on in the next one."""
    generate = config["datasets"][wildcards.generated]["generate"]
    steps = 1000 * sum(stage["ps"] for stage in generate["stages"]) / generate["timestep_fs"]
    in_lammps = config["sources"][generate["source"]]["calculator"] == protocol.LAMMPSLIB
    # Atoms times steps a second: half of what LCBOP in LAMMPS, and C-ACE from Python, do.
    pace = 30_000 if in_lammps and generate["engine"] != "ase" else 2_500
    return limited(math.ceil(10 + generate["atoms"] * steps / pace / 60) * attempt)


def generated_trajectories(wildcards):
    """Return the trajectories of a generated dataset."""
    return trajectory_files(config, wildcards.generated)


def generated_logs(wildcards):
    """Return the logs of the trajectories of a generated dataset."""
    return [str(Path(file).with_suffix(".csv")) for file in generated_trajectories(wildcards)]


def generated_figures(names):
    """Return the tables and figures of generated datasets."""
    figures = expand(
        "<results>/figures/structures-{name}.{format}", name=names, format=FIGURE_FORMATS
    )
    return figures + expand("<results>/data/{name}/trajectories.md", name=names)


def all_generated(wildcards):
    """Return the tables and figures of all generated datasets."""
    if not GENERATED:
        sys.exit("error: target 'structures': no dataset of the configuration has 'generate'")
    return generated_figures(list(GENERATED))
