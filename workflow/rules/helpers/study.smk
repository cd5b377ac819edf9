# What rules of all rooms look up: settings, options, and the resources of jobs.
from pretraining.study.views import config_view


def settings_json(wildcards):
    """Return the content of a settings file: Snakemake writes the file anew when it changes."""
    return json.dumps(config_view(config, wildcards.part))


def configuration_json(wildcards):
    """Return the configuration with its defaults, as JSON."""
    return json.dumps(config)


def given(*names):
    """Return a parameter with an option for each of the named inputs that has files.

    Snakemake notices no change of a parameter made of inputs: keep it apart from parameters made of
    the configuration.
    """

    def options(wildcards, input):
        files = {name: input.get(name) for name in names if input.get(name)}
        return " ".join(f"--{name.replace('_', '-')} {file}" for name, file in files.items())

    return options


def radius_option(radius):
    """Return the option with a distance of neighbours; without one, covalent radii decide."""
    return "" if radius is None else f"--radius {radius:g}"


def longest_runtime():
    """Return the cluster's wall-time limit (min) that the profile gives; None without one."""
    resource = (workflow.resource_settings.default_resources or {}).get("max_runtime")
    if resource is None:
        return None
    if not isinstance(resource.raw, int) or resource.raw < 1:
        refuse("max_runtime of the profile: give a whole number of minutes, such as 1440")
    return resource.raw


LONGEST_RUNTIME = longest_runtime()


def limited(minutes):
    """Return a wall-time limit (min) that the cluster allows; longer work resumes in another job."""
    return minutes if LONGEST_RUNTIME is None else min(minutes, LONGEST_RUNTIME)


def minutes(first):
    """Return a function that gives the wall-time limit of a job by attempt."""
    return lambda wildcards, attempt: limited(first * attempt)


def megabytes(first):
    """Return a function that gives the memory of a job by attempt."""
    return lambda wildcards, attempt: first * attempt
