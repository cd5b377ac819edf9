# What the rules of maps of environments look up.
from pretraining.study.queries import sample_names, samples_of


def sample_data(wildcards):
    """Return the prepared set that a sample of environments is drawn from."""
    sample = samples_of(config["embeddings"][wildcards.embedding])[wildcards.sample]
    return f"<results>/data/{sample['dataset']}/prepared.h5"


def descriptors_of(role):
    """Return an input function with the descriptors of a map's samples of one role."""
    return lambda wildcards: [
        f"<results>/embeddings/{wildcards.embedding}/{name}.h5"
        for name in sample_names(config["embeddings"][wildcards.embedding], role)
    ]
