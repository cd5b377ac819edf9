# Settings files, and the resources of jobs. Numbers of your own cluster belong in a profile.


def settings_json(wildcards):
    """Return what a settings file holds, so that it is written anew when that changes."""
    return json.dumps(settings_part(config, wildcards.part))


def longest_runtime():
    """Return the wall-time limit of the cluster, min, as the profile says it; None without one."""
    resource = (workflow.resource_settings.default_resources or {}).get("max_runtime")
    if resource is None:
        return None
    if not isinstance(resource.raw, int) or resource.raw < 1:
        sys.exit("error: max_runtime of the profile: give a whole number of minutes, such as 1440")
    return resource.raw


LONGEST_RUNTIME = longest_runtime()


def limited(minutes):
    """Return a wall-time limit that the cluster allows: what takes longer goes on in another job."""
    return minutes if LONGEST_RUNTIME is None else min(minutes, LONGEST_RUNTIME)


def minutes(first):
    """Return a function with the wall-time limit of a job that takes about as long in any study."""

    def runtime(wildcards, attempt):
        return limited(first * attempt)

    return runtime


def megabytes(first):
    """Return a function with the memory of a job that needs about as much in any study."""

    def memory(wildcards, attempt):
        return first * attempt

    return memory


def share_job(group):
    """Let Snakemake submit the jobs of a group as one, though none depends on another."""
    # As --group-components does, which the executor does not hand on to the Snakemake in the job.
    # It is called when the jobs are known: what is said earlier, the command line overwrites.
    components = workflow.group_settings.group_components
    workflow.group_settings.group_components = {**components, group: sys.maxsize}
    # If one fails, the others have not. No program leaves a part of an output in its place.
    workflow.execution_settings.keep_incomplete = True


def share_gpus(size):
    """Let the jobs that run here share each GPU: what Snakemake counts is places on them."""
    limit = workflow.global_resources.get("gpu")
    if limit is not None and isinstance(limit.value, int):
        workflow.register_resource("gpu", limit.value * size)
