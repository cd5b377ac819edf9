# What the rules of maps of environments look up.


def sample_data(wildcards):
    """Return the prepared set that a sample of environments is drawn from."""
    sample = samples.samples_of(config["embeddings"][wildcards.embedding])[wildcards.sample]
    return f"<results>/data/{sample['dataset']}/prepared.h5"


def base_descriptors(wildcards):
    """Return the descriptors of the samples that a map is fitted to."""
    return descriptor_files(wildcards.embedding, "base")


def projected_descriptors(wildcards):
    """Return the descriptors of the samples that are placed on a map."""
    return descriptor_files(wildcards.embedding, "project")


def descriptor_files(embedding, role):
    """Return the descriptors of a map's samples of one role."""
    names = samples.names_of(config["embeddings"][embedding], role)
    return [f"<results>/embeddings/{embedding}/{name}.h5" for name in names]


def map_files(names):
    """Return figures and tables of maps."""
    figures = expand("<results>/figures/umap-{name}.{format}", name=names, format=FIGURE_FORMATS)
    return figures + expand("<results>/embeddings/{name}.md", name=names)


def all_maps(wildcards):
    """Return the figures and tables of all maps."""
    if not config["embeddings"]:
        sys.exit("error: target 'umap': the configuration has no 'embeddings'")
    return map_files(list(config["embeddings"]))
