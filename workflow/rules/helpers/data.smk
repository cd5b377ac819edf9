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
    dataset = dataset_view(config, wildcards.dataset)
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
