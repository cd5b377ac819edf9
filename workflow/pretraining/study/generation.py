"""Generated datasets: the trajectories and stages of a dataset's section `generate`.

Everything follows from the configuration, so the grid is known before any trajectory exists.
Imported in interpreters of label sources: only the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor
from typing import Any

from pretraining.study.queries import unknown

ANNEAL = "anneal"  # as a temperature: that of the trajectory
LAMMPSLIB = "ase.calculators.lammpslib.LAMMPSlib"  # the calculator that engine lammps can drive
# Relative tolerance of whole numbers of steps: decimal fractions are not exact.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Trajectory:
    """The identity of one trajectory.

    Attributes
    ----------
    density
        Mass density, g/cm³.
    anneal
        Anneal temperature, K; None if no stage has it.
    replica
        Number, from 1, of trajectories that differ only in their random numbers.
    """

    density: float
    anneal: float | None
    replica: int

    @property
    def name(self) -> str:
        """Its ``run_id`` and the name of its files."""
        anneal = "" if self.anneal is None else f"_anneal~{self.anneal:g}"
        return f"density~{self.density:g}{anneal}_replica~{self.replica}"


@dataclass(frozen=True)
class Stage:
    """A stretch of dynamics at a constant or linearly changing temperature.

    Attributes
    ----------
    first, last
        Temperatures at its beginning and end, K.
    steps
        Its length in time steps.
    """

    first: float
    last: float
    steps: int

    def temperature(self, step: int) -> float:
        """Temperature (K) after `step` steps of this stage."""
        return self.first + (self.last - self.first) * step / self.steps


def values(entry: list[float] | Mapping[str, float]) -> list[float]:
    """Return numbers given as a list or as ``start``, ``stop`` (included) and ``step``."""
    if isinstance(entry, list):
        return [float(value) for value in entry]
    start, stop, step = (float(entry[key]) for key in ("start", "stop", "step"))
    count = floor((stop - start) / step + TOLERANCE) + 1
    return [round(start + step * i, 10) for i in range(count)]


def trajectories(generate: Mapping[str, Any]) -> list[Trajectory]:
    """Return the trajectories of a dataset, in the order of their structures."""
    anneals = (
        values(generate["anneal_temperatures"]) if "anneal_temperatures" in generate else [None]
    )
    every = [
        Trajectory(density, anneal, replica)
        for density in values(generate["densities"])
        for anneal in anneals
        for replica in range(1, generate["replicas"] + 1)
    ]
    return [trajectory for trajectory in every if trajectory.name not in generate["exclude"]]


def trajectory_files(config: Mapping[str, Any], name: str) -> list[str]:
    """Return the files of a dataset's trajectories, in the order of its structures."""
    folder = f"{config['results']}/data/{name}/trajectories"
    runs = trajectories(config["datasets"][name]["generate"])
    return [f"{folder}/{run.name}.extxyz" for run in runs]


def steps_of(ps: float, timestep_fs: float) -> int | None:
    """Return a time (ps) as a number of steps; None if it is not a whole number."""
    steps = round(1000 * ps / timestep_fs)
    return steps if abs(1000 * ps / timestep_fs - steps) < TOLERANCE * max(steps, 1) else None


def stages_of(generate: Mapping[str, Any], anneal: float | None = None) -> list[Stage]:
    """Return the stages of a trajectory with the anneal temperature `anneal` (K)."""

    def kelvin(value: float | str) -> float:
        return float(anneal if value == ANNEAL else value)

    return [
        Stage(
            kelvin(stage.get("from", stage.get("temperature"))),
            kelvin(stage.get("to", stage.get("temperature"))),
            steps_of(stage["ps"], generate["timestep_fs"]),
        )
        for stage in generate["stages"]
    ]


def duration_ps(protocol: Mapping[str, Any]) -> float:
    """Return the length of a trajectory, ps."""
    return sum(stage["ps"] for stage in protocol["stages"])


def frames_of(generate: Mapping[str, Any]) -> int:
    """Return the number of frames of one trajectory, including its start."""
    return round(duration_ps(generate) / generate["frame_every_ps"]) + 1


def structures_of(generate: Mapping[str, Any]) -> int:
    """Return the number of structures of the whole dataset."""
    return len(trajectories(generate)) * frames_of(generate)


def problems(name: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the broken rules between keys of the generated dataset `name`."""
    dataset = config["datasets"][name]
    generate, where = dataset["generate"], f"datasets.{name}.generate"
    for key in ("densities", "anneal_temperatures"):
        entry = generate.get(key)
        if isinstance(entry, Mapping) and entry["stop"] < entry["start"]:
            yield (
                f"{where}.{key}: stop {entry['stop']:g} is below start {entry['start']:g}: "
                "exchange them"
            )
    yield from _source_problems(where, generate, config)
    yield from stage_problems(where, generate)
    per_formula = sum(generate["composition"].values())
    if generate["atoms"] % per_formula:
        yield (
            f"{where}.atoms: {generate['atoms']} is no multiple of the {per_formula} atoms of the "
            "composition"
        )
    every = [trajectory.name for trajectory in trajectories({**generate, "exclude": []})]
    names = set(every)
    if len(names) < len(every):
        twice = next(name for name in every if every.count(name) > 1)
        yield (
            f"{where}.densities: two trajectories are called '{twice}': give values that differ "
            "more"
        )
    for excluded in generate["exclude"]:
        if excluded not in names:
            yield (
                f"{where}.exclude: no trajectory is called '{excluded}'; the first is "
                f"'{min(names)}'"
            )
    if names <= set(generate["exclude"]):
        yield f"{where}.exclude: no trajectory is left; name fewer"
    made = structures_of(generate)
    if dataset["structures"] != made:
        yield f"datasets.{name}.structures: generate makes {made}; leave the number out"
    if dataset.get("format", "extxyz") != "extxyz" or "sha256" in dataset:
        yield f"datasets.{name}: format and sha256 are of files, and the set is generated"


def _source_problems(
    where: str, generate: Mapping[str, Any], config: Mapping[str, Any]
) -> Iterator[str]:
    name = generate["source"]
    yield from unknown(config, f"{where}.source", name, "sources")
    source = config["sources"][name]
    if "calculator" not in source:
        yield f"{where}.source: '{name}' has no calculator to drive the dynamics with"
    if generate["engine"] == "lammps" and source["calculator"] != LAMMPSLIB:
        yield (
            f"{where}.engine: source '{name}' is no LAMMPS pair style ({LAMMPSLIB}): choose ase or "
            "auto"
        )
    for element in generate["composition"]:
        if element not in source["elements"]:
            known = ", ".join(source["elements"])
            yield f"{where}.composition: source '{name}' does not know {element}; it knows: {known}"


def stage_problems(where: str, protocol: Mapping[str, Any]) -> Iterator[str]:
    """Yield the broken rules between keys of the stages of `protocol`, which is at `where`."""
    timestep, every = protocol["timestep_fs"], protocol["frame_every_ps"]
    if not steps_of(every, timestep):
        yield (
            f"{where}.frame_every_ps: {every:g} ps is no whole number of steps of {timestep:g} fs"
        )
    annealed = False
    for index, stage in enumerate(protocol["stages"]):
        annealed |= ANNEAL in (stage.get("temperature"), stage.get("from"), stage.get("to"))
        length = stage["ps"] / every
        if round(length) < 1 or abs(length - round(length)) > TOLERANCE * length:
            yield (
                f"{where}.stages[{index}].ps: {stage['ps']:g} ps is no multiple of the {every:g} "
                "ps from frame to frame"
            )
    if annealed and "anneal_temperatures" not in protocol:
        yield f"{where}.anneal_temperatures: missing; a stage has the temperature '{ANNEAL}'"
    if not annealed and "anneal_temperatures" in protocol:
        yield (
            f"{where}.anneal_temperatures: no stage has the temperature '{ANNEAL}'; leave them out"
        )
