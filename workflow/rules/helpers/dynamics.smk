# What the rules of molecular dynamics look up.
MOVED_SINGLY = [
    name for name, test in config["dynamics"].items() if test["engine"] != robustness.TORCH_SIM
]
# Batches of replicas by test, which torch-sim moves together.
MOVED_TOGETHER = [
    (name, replicas)
    for name, test in config["dynamics"].items()
    if test["engine"] == robustness.TORCH_SIM
    for replicas in robustness.batches(test)
]


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


def driver_python(wildcards):
    """Return the interpreter of that source."""
    return python_of(driver(wildcards))


def driver_options(wildcards):
    """Return the runtime options of that source, as JSON."""
    return options_of(driver(wildcards))


def driver_contents(wildcards):
    """Return digests of the files that the arguments of that source name."""
    return contents_of(driver(wildcards))


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
    return protocol.trajectory_files(config, wildcards.generated)


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


# -------------------------------------------------------------------------------- MD stability


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


def replica_files(name, replicas, file):
    """Return a file of each replica of a batch, for any model."""
    folder = f"<results>/dynamics/{name}/{{{{model}}}}"
    return expand(f"{folder}/replica~{{replica}}/{file}", replica=replicas)


def dynamics_minutes(wildcards, attempt):
    """Return a trajectory's wall-time limit, by attempt: the next one goes on."""
    return minutes_of(wildcards.moved, 1, attempt)


def batch_minutes(name, replicas):
    """Return the function that gives the wall-time limit of a batch, by attempt."""

    def minutes(wildcards, attempt):
        return minutes_of(name, replicas, attempt)

    return minutes


def minutes_of(name, replicas, attempt):
    """Return the wall-time limit of trajectories that one job moves: no longer than in turn."""
    test = config["dynamics"][name]
    steps = 1000 * protocol.duration_ps(test) / test["timestep_fs"] * replicas
    # Steps a second of the paper's network and 200 atoms on a GPU; less than one on a CPU.
    pace = 30 if config["training"]["device"] == "cuda" else 0.5
    return limited(math.ceil(10 + steps / pace / 60) * attempt)


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


def beside_outcomes(name):
    """Return an input function with a file of each trajectory that has such an outcome."""

    def files(wildcards):
        return [str(Path(file).with_name(name)) for file in test_outcomes(wildcards)]

    return files


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
