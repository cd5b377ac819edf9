# The grid and the helpers that rules look things up with. This file runs again in every job, so
# it imports nothing heavier than pandas.
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from snakemake.settings.types import DeploymentMethod

sys.path.insert(0, str(Path(workflow.basedir) / "workflow"))

from pretraining import estimate
from pretraining import grid as grids
from pretraining import protocol
from pretraining import remote, retrieval, robustness, samples
from pretraining.config import (
    ADDRESS_KEYS,
    CONDUCT_KEYS,
    dataset_part,
    datasets_of,
    fitted_zero,
    label_source,
    read_config,
    settings_part,
    trajectory_files,
    validate_study,
)
from pretraining.errors import UserError
from pretraining.settings import MACHINE_KEYS
from pretraining.sources import relative_to

try:
    # Snakemake keeps the last of two equal keys without a word.
    for file in workflow.configfiles:
        read_config(file)
    files = " + ".join(os.path.relpath(file) for file in workflow.configfiles)
    folder = os.path.relpath(Path(workflow.configfiles[-1]).parent) if files else "."
    config = validate_study(relative_to(config, folder), files or "--config", root=".")
except UserError as error:
    # One line says it; Snakemake's own report would bury it in a traceback.
    sys.exit(f"error: {error}")

GRID = grids.grid_table(config)
COSTS = estimate.published_costs("resources/published/training-cost.csv")
GRID["seconds"] = estimate.estimated_seconds(GRID, COSTS)
try:
    grids.check_pools(GRID, config)
    MOVED = {name: robustness.models(config, GRID, name) for name in config["dynamics"]}
except UserError as error:
    sys.exit(f"error: {error}")
if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    # The environment brings the interpreter.
    for source in config["sources"].values():
        if "env" in source:
            source.pop("python", None)
CALCULATED = {name for name, source in config["sources"].items() if "calculator" in source}
GENERATED = {
    name: {run.name: run for run in protocol.trajectories(dataset["generate"])}
    for name, dataset in config["datasets"].items()
    if "generate" in dataset
}
STAND_INS = grids.imported_runs(config)

# The folders of runs, as pretraining.grid.Run.path spells them.
PARENT = "structures~{structures}/transform~{transform}/source~{source}/npre~{npre}"
PRETRAINING = f"pretrain/{PARENT}/seed~{{seed}}"
IMPORTED = f"imported/{PARENT}/seed~{{seed}}"
DIRECT = "direct/target~{target}/source~none/n~{n}/seed~{seed}"
FINETUNING = f"finetune/target~{{target}}/{PARENT}/preseed~{{preseed}}/n~{{n}}/seed~{{seed}}"

# The test set of the published Table 1 and learning curves.
PUBLISHED_TARGET = "C-GAP-17"
TABLE_FORMATS = ["csv", "md", "tex"]
FIGURE_FORMATS = ["pdf", "png"]


def one_of(names):
    """Return a regular expression that matches exactly the given names."""
    return "|".join(sorted(re.escape(str(name)) for name in names)) or "(?!)"


wildcard_constraints:
    dataset=one_of(config["datasets"]),
    target=one_of(config["datasets"]),
    structures=one_of(config["datasets"]),
    source=one_of(config["sources"]),
    transform=one_of(config["transforms"]),
    experiment=one_of(config["experiments"]),
    npre=one_of(set(GRID["npre"])),
    n=one_of(set(GRID["n"])),
    preseed=one_of(set(GRID["preseed"])),
    seed=one_of(set(GRID["seed"])),
    chunk=r"eval|\d{5}",
    generated=one_of(GENERATED),
    run=one_of({run for runs in GENERATED.values() for run in runs}),
    model=one_of(path.removeprefix("runs/") for path in GRID["path"]),
    embedding=one_of(config["embeddings"]),
    moved=one_of(config["dynamics"]),
    replica=r"[1-9]\d*",
    sample=one_of({name for e in config["embeddings"].values() for name in samples.samples_of(e)}),
    table=one_of(["runs", *(f"{name}-runs" for name in config["experiments"])]),


# -------------------------------------------------------------------------------- settings files


def settings_digest(wildcards):
    """Return a digest of what a settings file holds, so that it is written anew when that changes."""
    text = json.dumps(settings_part(config, wildcards.part))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
    return min(math.ceil(10 + generate["atoms"] * steps / pace / 60), 1440) * attempt


def generated_trajectories(wildcards):
    """Return the trajectories of a generated dataset."""
    return trajectory_files(config, wildcards.generated)


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


# --------------------------------------------------------------------------------------- labels


def source_elements(wildcards):
    """Return the elements that a label source knows."""
    return config["sources"][wildcards.source]["elements"]


def source_environment(wildcards):
    """Return the conda environment of a label source, relative to the rules."""
    return f"../../{config['sources'][wildcards.source].get('env', 'envs/analysis.yaml')}"


def label_conduct(wildcards):
    """Return how a source's labels are made, as JSON; its interpreter must be there."""
    return conduct_of(wildcards.source)


def conduct_of(name):
    """Return how a source's energies are made, as JSON; its interpreter must be there."""
    source = config["sources"][name]
    if shutil.which(source.get("python", "python")) is None:
        sys.exit(
            f"error: sources.{name}.python: no interpreter '{source['python']}' on this "
            "machine; correct it, or use --sdm conda, where the source's env brings one"
        )
    return json.dumps({key: source[key] for key in CONDUCT_KEYS if key in source})


def label_memory(wildcards, threads, attempt):
    """Return the memory of a labelling job in MB: every process loads its own potential."""
    return 2000 * (1 + threads) * attempt


def label_minutes(wildcards, attempt):
    """Return the wall-time limit of a labelling job, by attempt."""
    return 240 * attempt


def labelled_chunks(wildcards):
    """Return the labelled chunks that hold the evaluation parts and the first `npre` structures."""
    size = config["labelling"]["chunk_size"]
    return chunk_files(
        wildcards.structures, wildcards.source, math.ceil(int(wildcards.npre) / size)
    )


def chunk_files(dataset, source, count):
    """Return a dataset's evaluation chunk and its first `count` training chunks, labelled."""
    chunks = ["eval", *(f"{number:05d}" for number in range(count))]
    return [f"<results>/labels/{dataset}/{source}/chunks/{chunk}.extxyz" for chunk in chunks]


def target_chunks(wildcards):
    """Return the labelled chunks that hold a target's evaluation parts and first `n` structures."""
    size = config["labelling"]["chunk_size"]
    return chunk_files(wildcards.target, wildcards.source, math.ceil(int(wildcards.n) / size))


def provenance_of(chunks):
    """Return an input function with how each of the labelled chunks was made."""

    def files(wildcards):
        return [f"{chunk.removesuffix('.extxyz')}.provenance.json" for chunk in chunks(wildcards)]

    return files


def target_data(wildcards):
    """Return a target with its labels: as it was prepared, or as a source has labelled it."""
    source = label_source(config["datasets"][wildcards.target])
    if source is None:
        return f"<results>/data/{wildcards.target}/prepared.h5"
    # All of them have the same test set; the smallest is there first. A dataset that is only
    # tested on is labelled as far as the smallest training of the grid.
    own = grids.select(GRID, target=wildcards.target)
    n = wildcards.get("n") or min((GRID[GRID["n"] > 0] if own.empty else own)["n"])
    return f"<results>/labels/{wildcards.target}/{source}/n~{n}.h5"


def zero_option(wildcards):
    """Return the option that fits the zero of computed energies as the configuration says."""
    dataset = wildcards.get("structures") or wildcards.target
    fit = fitted_zero(config["datasets"][dataset])
    return f"--fit {fit}" if fit else ""


# --------------------------------------------------------------------------------- label sources


def check_minutes(wildcards):
    """Return the wall-time limit of a source's check: that of the program, and ten minutes."""
    return math.ceil(10 + 2 * config["check_sources"]["time_limit"] / 60)


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
        sys.exit(f"error: compare_sources: no label source to compare on '{wildcards.dataset}'")
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


# ------------------------------------------------------------------------------------- training


def run_of(wildcards):
    """Return the run that a training rule's wildcards stand for."""
    names = wildcards.keys()
    if "npre" not in names:
        return grids.Run.direct(wildcards.target, int(wildcards.n), int(wildcards.seed))
    seed = wildcards.preseed if "preseed" in names else wildcards.seed
    pretraining = grids.Run.pretrain(
        wildcards.structures, wildcards.transform, wildcards.source, int(wildcards.npre), int(seed)
    )
    if "preseed" not in names:
        return pretraining
    return pretraining.finetune(wildcards.target, int(wildcards.n), int(wildcards.seed))


def pretrained_model(wildcards):
    """Return the model that a fine-tuning starts from, trained here or published."""
    run = run_of(wildcards)
    return f"<results>/{grids.run_path(run.parent or run, STAND_INS)}/model.ckpt"


def stand_in(wildcards):
    """Return the published weights that stand in for a pre-training."""
    return STAND_INS[run_of(wildcards)]


def stand_in_file(wildcards):
    """Return the published weights that stand in for a pre-training, or their stamp."""
    weights = stand_in(wildcards)
    return stamp(f"weights~{Path(weights['file']).name}") or weights["file"]


def stand_in_options(wildcards):
    """Return what the import of published weights must be told beside their file."""
    weights = stand_in(wildcards)
    checksum = f"--sha256 {weights['sha256']}" if "sha256" in weights else ""
    neighbours = f"--avg-num-neighbors {weights['avg_num_neighbors']}"
    return f"--weights {weights['file']} {neighbours} {checksum}"


def gpus(wildcards):
    """Return the number of GPUs that a training asks for."""
    return int(config["training"]["device"] == "cuda")


def machine_options(wildcards):
    """Return how a training is carried out, as JSON."""
    return json.dumps({key: config["training"][key] for key in MACHINE_KEYS})


def training_minutes(wildcards, attempt):
    """Return a training's wall-time limit: twice what is expected and ten minutes, by attempt."""
    path = grids.run_path(run_of(wildcards), STAND_INS)
    seconds = GRID.loc[GRID["path"] == path, "seconds"].max()
    return math.ceil(10 + 2 * seconds / 60) * attempt


def training_memory(wildcards, attempt):
    """Return a training's memory in MB: libraries, and neighbour lists that grow with the set."""
    run = run_of(wildcards)
    size = run.npre if run.kind == "pretrain" else run.n
    return min(4000 + 2 * size, 48000) * attempt


# -------------------------------------------------------------------------------------- results


def table_experiments(wildcards):
    """Return the experiments whose results a table holds: one's own, or those of all."""
    if wildcards.table == "runs":
        return list(config["experiments"])
    return [wildcards.table.removesuffix("-runs")]


def table_metrics(wildcards):
    """Return the metrics that a table collects; with `allow_missing` those that exist."""
    refuse_unpublished("efficiency, cost and tables of runs", [])
    rows = grids.results_table(config, GRID, table_experiments(wildcards))
    if config["allow_missing"]:
        return [path for path in rows["metrics"] if Path(path).exists()]
    return list(rows["metrics"])


def published_file(name):
    """Return the file of published values, if they are to be drawn."""
    shown = config["metrics_from"] == "published" or config["published_beside"]
    return [f"resources/published/{name}.csv"] if shown else []


def refuse_unpublished(what, published):
    """End in one line where published values are asked for and there are none."""
    if config["metrics_from"] == "published" and not published:
        sys.exit(
            f"error: metrics_from: nothing is published for {what}; the published values are "
            f"Table 1 and the learning curves on {PUBLISHED_TARGET}"
        )


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


def figure_options(wildcards, input):
    """Return what the learning curves of an experiment show, as options."""
    experiment = config["experiments"][wildcards.experiment]
    figure = {"pretrain_size": "fig2", "source": "fig3"}[experiment["compare"]]
    options = [f"--figure {figure}", f"--aggregate {config['figures']['aggregate']}"]
    if input.runs:
        options.append(f"--runs {input.runs}")
    if config["figures"]["lines"]:
        options.append("--untuned --source-errors")
    names = ["--published", "--published-points"]
    options += [f"{name} {file}" for name, file in zip(names, flatten(input.published))]
    return " ".join(options)


def figure_embedding(wildcards):
    """Return the map of environments that is a panel of an experiment's figure, and its style."""
    name = config["experiments"][wildcards.experiment].get("embedding")
    if name is None:
        return []
    return [f"<results>/embeddings/{name}/map.csv", f"<results>/settings/umap~{name}.yaml"]


def composed_options(wildcards, input):
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
    names = ["--embedding", "--embedding-style"]
    options += [f"{name} {file}" for name, file in zip(names, input.embedding)]
    return " ".join(options)


def parity_options(wildcards):
    """Return what a parity plot says of its model, as options."""
    run = grids.select(GRID, path=f"runs/{wildcards.model}").iloc[0]
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


def table1_experiment():
    """Return the experiment that Table 1 shows: the first that compares label sources."""
    compared = [n for n, e in config["experiments"].items() if e["compare"] == "source"]
    return [*compared, *config["experiments"]][0]


def table1_runs(wildcards):
    """Return the runs of Table 1; none if it shows the published values."""
    if config["metrics_from"] == "published":
        refuse_unpublished(f"experiment '{table1_experiment()}'", table1_published(wildcards))
        return []
    return f"<results>/tables/{table1_experiment()}-runs.csv"


def table1_published(wildcards):
    """Return the published Table 1 if the computed one is set beside it or replaced by it."""
    target = config["experiments"][table1_experiment()]["target"]
    return published_file("table1") if target == PUBLISHED_TARGET else []


def table1_options(wildcards, input):
    """Return what Table 1 shows, as an option."""
    return f"--runs {input.runs}" if input.runs else f"--published {input.published}"


def published_headlines(wildcards):
    """Return the published single numbers, if efficiency and cost are set beside them."""
    targets = {name for e in config["experiments"].values() for name in datasets_of(e)}
    return published_file("headline") if PUBLISHED_TARGET in targets else []


def published_option(wildcards, input):
    """Return the option that sets results beside the published ones."""
    return f"--published {input.published}" if input.published else ""


def figure_of(name):
    """Return an input function with the files of an experiment's figure."""

    def files(wildcards):
        if name not in config["experiments"]:
            known = ", ".join(config["experiments"])
            sys.exit(
                f"error: target '{name}': the configuration has no experiment of that name; "
                f"it has: {known}"
            )
        return expand("<results>/figures/{name}.{format}", name=name, format=FIGURE_FORMATS)

    return files


# ------------------------------------------------------------------------ maps of environments


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


# ------------------------------------------------------------------------- molecular dynamics


def start_data(wildcards):
    """Return the prepared set that the start of a robustness test is taken from, if it is one."""
    start = config["dynamics"][wildcards.moved]["start"]
    return f"<results>/data/{start['dataset']}/prepared.h5" if "dataset" in start else []


def start_file(wildcards):
    """Return the file that the start of a robustness test is taken from, if it is one."""
    return config["dynamics"][wildcards.moved]["start"].get("file", [])


def start_option(wildcards, input):
    """Return the option that hands the prepared set over."""
    return f"--data {input.data}" if input.data else ""


def dynamics_device(wildcards):
    """Return where the dynamics of a model run, as JSON."""
    return json.dumps({key: config["training"][key] for key in ("device", "allow_cpu")})


def dynamics_minutes(wildcards, attempt):
    """Return a trajectory's wall-time limit, by attempt: the next one goes on."""
    test = config["dynamics"][wildcards.moved]
    steps = 1000 * robustness.duration_ps(test) / test["timestep_fs"]
    # Steps a second of the paper's network and 200 atoms on a GPU; less than one on a CPU.
    pace = 30 if config["training"]["device"] == "cuda" else 0.5
    return min(math.ceil(10 + steps / pace / 60), 1440) * attempt


def outcomes_of(name):
    """Return the outcomes of a robustness test; with `allow_missing` those that exist."""
    replicas = range(1, config["dynamics"][name]["replicas"] + 1)
    files = expand(
        "{results}/dynamics/{name}/{model}/replica~{replica}/outcome.json",
        results=config["results"],
        name=name,
        model=MOVED[name],
        replica=replicas,
    )
    return [file for file in files if Path(file).exists()] if config["allow_missing"] else files


def test_outcomes(wildcards):
    """Return the outcomes that the table of a robustness test is made of."""
    return outcomes_of(wildcards.moved)


def md_options(wildcards):
    """Return the title of a robustness test and the times of its snapshots, as options."""
    test = config["dynamics"][wildcards.moved]
    times = " ".join(f"{time:g}" for time in test["snapshots"])
    title = shlex.quote(test.get("title", wildcards.moved))
    return f"--title {title} --radius {test['radius']:g} --snapshots {times}"


def md_files(names):
    """Return figures and tables of robustness tests."""
    figures = expand("<results>/figures/md-{name}.{format}", name=names, format=FIGURE_FORMATS)
    return figures + expand("<results>/tables/md-{name}.md", name=names)


def all_dynamics(wildcards):
    """Return the figures and tables of all robustness tests."""
    if not config["dynamics"]:
        sys.exit("error: target 'md': the configuration has no 'dynamics'")
    return md_files(list(config["dynamics"]))


def artefacts(wildcards):
    """Return everything that the configured study ends in."""
    tables = expand("<results>/tables/table1.{format}", format=TABLE_FORMATS)
    read = {name for e in config["experiments"].values() for name in datasets_of(e)}
    tables += generated_figures([name for name in GENERATED if name in read])
    if config["metrics_from"] == "published":
        names = [
            name
            for name, experiment in config["experiments"].items()
            if experiment["target"] == PUBLISHED_TARGET and figure_kind(name) == "curves"
        ]
    else:
        names = config["experiments"]
        tables += ["<results>/tables/efficiency.csv", "<results>/tables/cost.csv"]
        tables += map_files(list(config["embeddings"]))
        tables += md_files([name for name in config["dynamics"] if outcomes_of(name)])
        if "source" in set(grids.results_table(config, GRID, config["experiments"])["kind"]):
            tables += expand("<results>/figures/students.{format}", format=FIGURE_FORMATS)
        if any(experiment["also_test"] for experiment in config["experiments"].values()):
            tables.append("<results>/tables/forgetting.csv")
        if table1_published(wildcards):
            tables.append("<results>/tables/table1-differences.csv")
    return tables + expand("<results>/figures/{name}.{format}", name=names, format=FIGURE_FORMATS)
