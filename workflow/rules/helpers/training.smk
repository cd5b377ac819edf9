# What the rules of training look up.
from pretraining.study.queries import code_in
from pretraining.study.settings import RUNTIME_OPTIONS

GPUS = int(config["training"]["device"] == "cuda")
# The threads of a training on the CPU, and the processes that load data.
TRAINING_THREADS = (1 if GPUS else config["training"]["threads"]) + config["training"]["workers"]


def runtime_options(*keys, **others):
    """Return the runtime options of a job, entries of `training`, as JSON."""
    return json.dumps({key: config["training"][key] for key in keys} | others)


COMPILING = estimate.compile_choice(config["training"], GRID, EXPECTED_SECONDS)
TRAINING_MACHINE = runtime_options(*RUNTIME_OPTIONS, compile=COMPILING)
DEVICE = runtime_options("device", "allow_cpu")
DYNAMICS_MACHINE = runtime_options("device", "allow_cpu", compile=COMPILING)
# Models of this study may name the code that its configuration names, and no other.
TRUST = (
    " ".join(["--trust", *map(shlex.quote, NAMED)])
    if (NAMED := [*code_in(config["network"])])
    else ""
)


def run_at(path):
    """Return the row of the grid with this path."""
    if path not in RUNS:
        refuse(f"{path}: no experiment has this run; add its sizes and seeds to one")
    return RUNS[path]


def run_of(wildcards):
    """Return the row of the grid that a training rule's wildcards stand for."""
    kinds = {"preseed": FINETUNING, "npre": PRETRAINING, "n": DIRECT}
    folder = next(folder for name, folder in kinds.items() if name in wildcards.keys())
    return run_at(f"runs/{folder.format(**wildcards)}")


def pretrained_model(wildcards):
    """Return the model that a fine-tuning starts from, trained here or imported."""
    return f"<results>/{run_of(wildcards)['parent']}/model.ckpt"


def imported_weights(wildcards):
    """Return the entry of `pretrained_weights` that replaces a pre-training."""
    names = ["structures", "transform", "source", "npre", "seed"]
    wanted = [wildcards[name] for name in names]
    entries = config["pretrained_weights"]
    return next(entry for entry in entries if [str(entry[name]) for name in names] == wanted)


def imported_file(wildcards):
    """Return the published weights, or their stamp."""
    weights = imported_weights(wildcards)
    return stamp(f"weights~{Path(weights['file']).name}") or weights["file"]


def import_options(wildcards):
    """Return what the import of published weights needs beside settings."""
    weights = imported_weights(wildcards)
    options = ["--weights", weights["file"], "--avg-num-neighbors", weights["avg_num_neighbors"]]
    options += ["--sha256", weights["sha256"]] if "sha256" in weights else []
    options += ["--elements", *weights["elements"]] if "elements" in weights else []
    return shlex.join(map(str, options))


def training_minutes(wildcards, attempt):
    """Return a training's wall-time limit: twice the expected time and ten minutes, by attempt."""
    return limited(math.ceil(10 + 2 * run_of(wildcards)["seconds"] / 60) * attempt)


def training_memory(wildcards, attempt):
    """Return a training's memory in MB: libraries, and neighbour lists that grow with the set."""
    run = run_of(wildcards)
    return min(4000 + 2 * (run["n"] or run["npre"]), 48000) * attempt
