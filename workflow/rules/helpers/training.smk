# What the rules of training look up.


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


def not_in_grid(path):
    """End in one line that names a run which no experiment has."""
    sys.exit(f"error: {path}: no experiment has this run; add its sizes and seeds to one")


def gpus(wildcards):
    """Return the number of GPUs of a job: places on GPUs where runs share them."""
    return int(config["training"]["device"] == "cuda")


def compiling():
    """Return whether jobs compile: one alone could not know that others need the same programs."""
    training = config["training"]
    if training["compile"] != "auto":
        return training["compile"]

    def epochs(kind):
        return training[kind].get("max_epochs", training["max_epochs"])

    # The published trainings were allowed 300 epochs.
    shares = [min(1, epochs(kind) / 300) for kind in GRID["kind"]]
    trained = ~GRID["imported"]
    costs = GRID["path"].map(SECONDS) * shares
    seconds = costs[trained].sum()
    return "always" if seconds > COMPILE_ABOVE_S else "never"


COMPILING = compiling()


def machine_json(keys, **others):
    """Return entries of `training` that say how a job is carried out, as JSON."""
    return json.dumps({key: config["training"][key] for key in keys} | others)


def machine_options(wildcards):
    """Return how a training is carried out."""
    return machine_json(RUNTIME_OPTIONS, compile=COMPILING)


def device_options(wildcards):
    """Return where a trained model is used."""
    return machine_json(["device", "allow_cpu"])


def dynamics_machine(wildcards):
    """Return where and how the dynamics of a trained model run; a long test may compile alone."""
    chosen = COMPILING if COMPILING == "always" else config["training"]["compile"]
    return machine_json(["device", "allow_cpu"], compile=chosen)


def training_minutes(wildcards, attempt):
    """Return a training's wall-time limit: twice what is expected and ten minutes, by attempt."""
    path = grids.run_path(run_of(wildcards), STAND_INS)
    if path not in SECONDS:
        not_in_grid(path)
    seconds = SECONDS[path]
    return limited(math.ceil(10 + 2 * seconds / 60) * attempt)


def training_threads(wildcards):
    """Return the cores of a training: its threads on the CPU, and the processes that load data."""
    training = config["training"]
    return (training["threads"] if training["device"] != "cuda" else 1) + training["workers"]


def training_memory(wildcards, attempt):
    """Return a training's memory in MB: libraries, and neighbour lists that grow with the set."""
    run = run_of(wildcards)
    size = run.npre if run.kind == "pretrain" else run.n
    return min(4000 + 2 * size, 48000) * attempt
