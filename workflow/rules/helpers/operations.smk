# What the rules of status and archive look up.


def status_config(wildcards):
    """Return the configuration as JSON, unless looking at it does harm.

    When a second Snakemake ends it removes the lock of the first, which a third would then not see.
    """
    if workflow.execution_settings.lock and not workflow.dryrun:
        refuse(
            "target 'status': add --nolock, or use python workflow/scripts/status.py "
            f"--config {PLAN.files or 'FILE'}"
        )
    return configuration_json(wildcards)


def archived(wildcards):
    """Return everything that the study ends in, if that is there to be made: no run is started."""
    missing = [
        path
        for path in GRID["path"]
        if not Path(f"{config['results']}/{path}/metrics.json").is_file()
    ]
    if missing and not config["allow_missing"] and config["metrics_from"] == "computed":
        refuse(
            f"target 'archive': {len(missing):,} of {len(GRID):,} training runs have not "
            "finished: run snakemake first, or archive what there is with "
            "--config allow_missing=true"
        )
    return artefacts(wildcards)


def exported_models(wildcards):
    """Return the models that were trained on a target, of which the best are exported."""
    rows = grids.select(GRID, target=wildcards.target)
    models = [f"{config['results']}/{path}/model.ckpt" for path in rows["path"]]
    if config["allow_missing"]:
        models = [path for path in models if Path(path).is_file()]
    return models


def exports(wildcards):
    """Return the exports of all targets."""
    if config["metrics_from"] != "computed":
        refuse(f"target 'export': metrics_from: {config['metrics_from']} has no models")
    return expand("<results>/export/{target}", target=sorted(set(GRID["target"]) - {""}))


def existing_report(wildcards):
    """Return the report, if one has been made."""
    page = f"{config['results']}/report.html"
    return [page] if Path(page).is_file() else []


def interrupted(log):
    """Return whether the user has stopped Snakemake, by the log of it."""
    text = "".join(Path(file).read_text(errors="replace") for file in log)
    return "Terminating processes on user request" in text
