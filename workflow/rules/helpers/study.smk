# Settings files, and the resources of jobs. Numbers of your own cluster belong in a profile.


def settings_json(wildcards):
    """Return what a settings file holds, so that it is written anew when that changes."""
    return json.dumps(config_view(config, wildcards.part))


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
