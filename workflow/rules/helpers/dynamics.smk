# What the rules of generated structures and of MD stability look up.
from pretraining.study.queries import TORCH_SIM, replica_batches

# ------------------------------------------------------------------------- generated structures


def trajectory_options(wildcards):
    """Return the options that select a trajectory."""
    run = GENERATED[wildcards.generated][wildcards.run]
    anneal = "" if run.anneal is None else f"--anneal {run.anneal!r}"
    return f"--density {run.density!r} {anneal} --replica {run.replica}"


def trajectory_minutes(wildcards, attempt):
    """Return a trajectory's wall-time limit, by attempt; a slow one resumes in the next job."""
    generate = config["datasets"][wildcards.generated]["generate"]
    steps = 1000 * sum(stage["ps"] for stage in generate["stages"]) / generate["timestep_fs"]
    in_lammps = config["sources"][generate["source"]]["calculator"] == protocol.LAMMPSLIB
    # Atom steps a second: half of those of LCBOP in LAMMPS, and of C-ACE from Python.
    pace = 30_000 if in_lammps and generate["engine"] != "ase" else 2_500
    return limited(math.ceil(10 + generate["atoms"] * steps / pace / 60) * attempt)


def generated_files(suffix):
    """Return an input function with the trajectories (or logs) of a generated dataset."""
    return lambda wildcards: [
        str(Path(file).with_suffix(suffix))
        for file in protocol.trajectory_files(config, wildcards.generated)
    ]


# -------------------------------------------------------------------------------- MD stability

ONE_BY_ONE = [name for name, test in config["dynamics"].items() if test["engine"] != TORCH_SIM]
# Rules by name, conda environment, test and replicas of a job.
DYNAMICS_RULES = [("dynamics", "train", "{test}", ["{replica}"])] + [
    (f"dynamics_{name}_{replicas[0]}", "dynamics", name, replicas)
    for name, test in config["dynamics"].items()
    if test["engine"] == TORCH_SIM
    for replicas in replica_batches(test)
]


def start_data(wildcards):
    """Return the prepared set that holds the start of a test, if a set does."""
    start = config["dynamics"][wildcards.test]["start"]
    return f"<results>/data/{start['dataset']}/prepared.h5" if "dataset" in start else []


def start_file(wildcards):
    """Return the file that holds the start of a test, if a file does."""
    return config["dynamics"][wildcards.test]["start"].get("file", [])


def replica_files(test, replicas, file):
    """Return a file of each replica of a job, for any model."""
    return [f"<results>/dynamics/{test}/{{model}}/replica~{r}/{file}" for r in replicas]


def replica_numbers(replicas):
    """Return a function that gives the replicas of a job."""
    return lambda wildcards: " ".join(str(r).format(**wildcards) for r in replicas)


def dynamics_minutes(test, replicas):
    """Return a function that gives the wall-time limit of a job by attempt."""

    def runtime(wildcards, attempt):
        settings = config["dynamics"][test.format(**wildcards)]
        steps = 1000 * protocol.duration_ps(settings) / settings["timestep_fs"] * replicas
        # Steps a second of the paper's network and 200 atoms on a GPU; less than one on a CPU.
        pace = 30 if GPUS else 0.5
        return limited(math.ceil(10 + steps / pace / 60) * attempt)

    return runtime


def outcomes_of(test):
    """Return the outcomes of a test; with `allow_missing` those that exist."""
    files = [
        f"{config['results']}/dynamics/{test}/{model}/replica~{replica}/outcome.json"
        for model in PLAN.tested[test]
        for replica in range(1, config["dynamics"][test]["replicas"] + 1)
    ]
    return [file for file in files if Path(file).exists()] if config["allow_missing"] else files


def beside_outcomes(name):
    """Return an input function with a file of each trajectory that has an outcome."""
    return lambda wildcards: [
        str(Path(file).with_name(name)) for file in outcomes_of(wildcards.test)
    ]
