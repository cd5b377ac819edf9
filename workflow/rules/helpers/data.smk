# What the rules of files and prepared structures look up.
from pretraining.data import remote
from pretraining.data import retrieve as retrieval
from pretraining.study.elements import handlers
from pretraining.study.views import ADDRESS_KEYS, dataset_view


def stamp(item):
    """Return the stamp of the retrieved files of a dataset, source or weights, if there are any."""
    return [f"<results>/retrieved/{item}.json"] if retrieval.is_retrieved(config, item) else []


def retrieved_stamps(wildcards):
    """Return the stamps of all that the study reads."""
    return [path for item in retrieval.study_items(config) for path in stamp(item)]


def retrieval_settings(wildcards):
    """Return the settings that name the files of a dataset, a source or published weights."""
    part = {"source": "files"}.get(wildcards.kind, wildcards.kind)
    return f"<results>/settings/{part}~{wildcards.name}.yaml"


def source_addresses(wildcards):
    """Return the addresses of a source's files, by path, as JSON."""
    files = config["sources"][wildcards.name]["files"] if wildcards.kind == "source" else []
    return json.dumps({f["path"]: {k: f[k] for k in ADDRESS_KEYS if k in f} for f in files})


def retrieval_overview(wildcards):
    """Return the files of the study: places, sizes and addresses."""
    items = retrieval.study_items(config)
    try:
        files = {item: retrieval.remote_files(config, item) for item in items}
    except UserError as error:
        refuse(error)
    return remote.overview(files, Path("."))


def dataset_files(wildcards):
    """Return a dataset's own files; the stamp stands for retrieved ones."""
    if not config["datasets"][wildcards.dataset].keys() & set(STRUCTURE_KEYS):
        choice = " | ".join(STRUCTURE_KEYS)
        refuse(f"datasets.{wildcards.dataset}: no structures: give one of: {choice}")
    dataset = dataset_view(config, wildcards.dataset)
    return [] if "url" in dataset else dataset.get("path", [])


def energy_reference(wildcards):
    """Return the isolated-atom energies of the label source of a dataset's energy reference."""
    source = config["datasets"][wildcards.dataset]["energy_reference"].get("source")
    return [f"<results>/labels/references/{source}.json"] if source else []
