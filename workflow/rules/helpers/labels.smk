# What the rules of labels and label sources look up.
from pretraining.study.queries import fitted_zero, verifier
from pretraining.study.sources import SOURCE_OPTIONS, changed_files, interpreter_of

# --------------------------------------------------------------------------------------- labels


def source_of(wildcards):
    """Return the label source of a job: that of its path, or the driver of a generated dataset."""
    if "source" in wildcards.keys():
        return wildcards.source
    return config["datasets"][wildcards.generated]["generate"]["source"]


def source_reference(wildcards):
    """Return the isolated-atom energies of a label source."""
    return f"<results>/labels/references/{source_of(wildcards)}.json"


def source_stamp(wildcards):
    """Return the stamp of a label source whose files are retrieved."""
    return stamp(f"source~{source_of(wildcards)}")


def source_environment(wildcards):
    """Return the conda environment of a label source, relative to the rules."""
    return f"../../{config['sources'][source_of(wildcards)].get('env', 'envs/analysis.yaml')}"


def source_python(wildcards):
    """Return the interpreter of a label source; it must exist."""
    name = source_of(wildcards)
    try:
        return interpreter_of(name, config["sources"][name])
    except UserError as error:
        refuse(error)


def source_options(wildcards):
    """Return the runtime options of a label source, as JSON; the rule names its interpreter."""
    source = config["sources"][source_of(wildcards)]
    keys = [key for key in SOURCE_OPTIONS if key in source and key != "python"]
    return json.dumps({key: source[key] for key in keys})


def source_contents(wildcards):
    """Return digests of the files and folders that a label source's arguments name, as JSON."""
    return contents_of(source_of(wildcards))


@functools.cache
def contents_of(name):
    """Return these digests for a source; the stamp of its retrieved files is an input of rules."""
    stamp = Path(config["results"]) / f"retrieved/source~{name}.json"
    try:
        return json.dumps(changed_files(name, config["sources"][name], stamp))
    except UserError as error:
        refuse(error)


def label_memory(wildcards, threads, attempt):
    """Return the memory of a labelling job in MB: every process loads its own potential."""
    return 2000 * (1 + threads) * attempt


def chunk_files(dataset, source, count):
    """Return a dataset's evaluation chunk and its first `count` training chunks, labelled."""
    chunks = ["eval", *(f"{number:05d}" for number in range(count))]
    return [f"<results>/labels/{dataset}/{source}/chunks/{chunk}.extxyz" for chunk in chunks]


def labelled_chunks(wildcards):
    """Return the labelled chunks with the evaluation parts and the first `npre` (`n`) structures."""
    dataset = wildcards.get("structures") or wildcards.target
    count = int(wildcards.get("npre") or wildcards.n) / config["labelling"]["chunk_size"]
    return chunk_files(dataset, wildcards.source, math.ceil(count))


def chunk_provenance(wildcards):
    """Return how each of these chunks was labelled."""
    return [
        f"{chunk.removesuffix('.extxyz')}.provenance.json" for chunk in labelled_chunks(wildcards)
    ]


def target_data(wildcards):
    """Return a target with its labels: as it was prepared, or as a source has labelled it."""
    source = label_source(config["datasets"][wildcards.target])
    if source is None:
        return f"<results>/data/{wildcards.target}/prepared.h5"
    # All of them have the same test set; the smallest is there first. A dataset that is only
    # tested on is labelled as far as the smallest training of the grid.
    n = wildcards.get("n") or smallest_size(wildcards.target)
    return f"<results>/labels/{wildcards.target}/{source}/n~{n}.h5"


@functools.cache
def smallest_size(target):
    """Return the number of structures of the smallest training on a dataset, or on any."""
    own = grids.select(GRID, target=target)
    return min((GRID[GRID["n"] > 0] if own.empty else own)["n"])


def verification_chunk(wildcards):
    """Return the labels that published ones are compared with; none for the set's own."""
    name = verifier(config, wildcards.source)
    return chunk_files(wildcards.structures, name, 0) if name else []


def verification_options(wildcards, input):
    """Return the source of these labels, and how the zero of energies is fitted."""
    name = verifier(config, wildcards.source)
    source = [f"--source {name} --chunk {input.known}"] if name else []
    return " ".join([*source, zero_option(wildcards)])


def zero_option(wildcards):
    """Return the option that sets how the zero of energies is fitted, if it is."""
    dataset = wildcards.get("structures") or wildcards.target
    fit = fitted_zero(config["datasets"][dataset])
    return f"--fit {fit}" if fit else ""


# --------------------------------------------------------------------------------- label sources


def check_attempt(wildcards):
    """Return a word that changes until a source is installed, so that it is looked for again."""
    path = Path(config["results"]) / f"checks/sources/{wildcards.source}.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "first"
    installed = result["status"] == "installed"
    return result["attempt"] if installed else f"after-{path.stat().st_mtime_ns}"


def compared_datasets(wildcards):
    """Return the pages of the datasets on which label sources are compared."""
    datasets = config["compare_sources"].get("datasets") or sorted(
        {e["target"] for e in config["experiments"].values() if "none" in e["transforms"]}
    )
    return expand("<results>/comparisons/{dataset}.md", dataset=datasets)


def compared_sources(wildcards):
    """Return the label sources that are compared on a dataset, that of its labels among them."""
    sources = config["compare_sources"].get("sources")
    if sources is None:
        experiments = config["experiments"].values()
        here = [e for e in experiments if e["target"] == wildcards.dataset] or experiments
        sources = [source for e in here for source in e["sources"]]
    labeller = label_source(config["datasets"][wildcards.dataset])
    sources = CALCULATED.intersection([*sources, *([labeller] if labeller else [])])
    if not sources:
        refuse(f"compare_sources: no source with a calculator to compare on '{wildcards.dataset}'")
    return sorted(sources)


def compared_chunks(wildcards):
    """Return the evaluation chunk of a dataset as each of these sources has labelled it."""
    return [
        file for s in compared_sources(wildcards) for file in chunk_files(wildcards.dataset, s, 0)
    ]


def comparison_options(wildcards):
    """Return the dataset's title, and the source of its labels if it has none of its own."""
    dataset = config["datasets"][wildcards.dataset]
    labeller = label_source(dataset)
    options = ["--title", shlex.quote(dataset.get("title", wildcards.dataset))]
    return " ".join([*options, "--reference", labeller] if labeller else options)
