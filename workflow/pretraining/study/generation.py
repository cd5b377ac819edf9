"""What a generated dataset is made of: its trajectories, and the stages of each.

Everything here follows from the configuration alone, so that the grid is known before any
trajectory exists. It runs in the interpreters of label sources too: only the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor
from typing import Any

ANNEAL = "anneal"  # stands for the trajectory's own anneal temperature
LAMMPSLIB = "ase.calculators.lammpslib.LAMMPSlib"  # what the engine lammps can drive
# How far a number of steps may be from a whole one: decimal fractions are not exact.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Trajectory:
    """The identity of one trajectory.

    Attributes
    ----------
    density
        Mass density, g/cm³.
    anneal
        Anneal temperature, K; None where no stage asks for one.
    replica
        Number from 1 of trajectories that differ in nothing but their random numbers.
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
    """A stretch of the dynamics at a temperature that is held, or changes linearly.

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
    """Return a list of numbers, given as one or as ``start``, ``stop`` (included) and ``step``."""
    if isinstance(entry, list):
        return [float(value) for value in entry]
    start, stop, step = (float(entry[key]) for key in ("start", "stop", "step"))
    count = floor((stop - start) / step + TOLERANCE) + 1
    return [round(start + step * i, 10) for i in range(count)]


def trajectories(generate: Mapping[str, Any]) -> list[Trajectory]:
    """Return the trajectories of a dataset in the order of their structures.

    Parameters
    ----------
    generate
        A dataset's entry ``generate``, with its defaults.
    """
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


def steps_of(ps: float, timestep_fs: float) -> int | None:
    """Return a time (ps) as a number of steps; None if it is not a whole number of them."""
    steps = round(1000 * ps / timestep_fs)
    return steps if abs(1000 * ps / timestep_fs - steps) < TOLERANCE * max(steps, 1) else None


def stages(generate: Mapping[str, Any], anneal: float | None) -> list[Stage]:
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


def frames_of(generate: Mapping[str, Any]) -> int:
    """Return the number of frames of one trajectory, its start included."""
    total = sum(stage["ps"] for stage in generate["stages"])
    return round(total / generate["frame_every_ps"]) + 1


def structures_of(generate: Mapping[str, Any]) -> int:
    """Return the number of structures of the whole dataset."""
    return len(trajectories(generate)) * frames_of(generate)


def protocol_of(generate: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all trajectories share: another density later changes none that exists."""
    apart = ("densities", "anneal_temperatures", "replicas", "exclude")
    return {key: value for key, value in generate.items() if key not in apart}


def problems(generate: Mapping[str, Any], sources: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the key and the fault of every broken rule that a schema cannot express."""
    for key in ("densities", "anneal_temperatures"):
        entry = generate.get(key)
        if isinstance(entry, Mapping) and entry["stop"] < entry["start"]:
            yield key, f"stop {entry['stop']:g} is below start {entry['start']:g}: exchange them"
            return
    yield from _source_problems(generate, sources)
    yield from stage_problems(generate)
    per_formula = sum(generate["composition"].values())
    if generate["atoms"] % per_formula:
        yield (
            "atoms",
            f"{generate['atoms']} is no multiple of the {per_formula} atoms of the composition",
        )
    every = [trajectory.name for trajectory in trajectories({**generate, "exclude": []})]
    names = set(every)
    if len(names) < len(every):
        twice = next(name for name in every if every.count(name) > 1)
        yield "densities", f"two trajectories are called '{twice}': give values that differ more"
    for name in generate["exclude"]:
        if name not in names:
            yield "exclude", f"no trajectory is called '{name}'; the first is '{min(names)}'"
    if names <= set(generate["exclude"]):
        yield "exclude", "no trajectory is left; name fewer"


def _source_problems(
    generate: Mapping[str, Any], sources: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    name = generate["source"]
    if name not in sources:
        yield (
            "source",
            f"'{name}' is not one of the configured sources; allowed: {', '.join(sources)}",
        )
        return
    source = sources[name]
    if "calculator" not in source:
        yield "source", f"'{name}' has no calculator to drive the dynamics with"
        return
    if generate["engine"] == "lammps" and source["calculator"] != LAMMPSLIB:
        yield "engine", f"source '{name}' is no LAMMPS pair style ({LAMMPSLIB}): say ase or auto"
    for element in generate["composition"]:
        if element not in source["elements"]:
            known = ", ".join(source["elements"])
            yield "composition", f"source '{name}' does not know {element}; it knows: {known}"


def stage_problems(generate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    timestep, every = generate["timestep_fs"], generate["frame_every_ps"]
    if not steps_of(every, timestep):
        yield "frame_every_ps", f"{every:g} ps is no whole number of steps of {timestep:g} fs"
        return
    asked = False
    for index, stage in enumerate(generate["stages"]):
        asked |= ANNEAL in (stage.get("temperature"), stage.get("from"), stage.get("to"))
        length = stage["ps"] / every
        if round(length) < 1 or abs(length - round(length)) > TOLERANCE * length:
            yield (
                f"stages[{index}].ps",
                f"{stage['ps']:g} ps is no multiple of the {every:g} ps from frame to frame",
            )
    if asked and "anneal_temperatures" not in generate:
        yield "anneal_temperatures", f"missing; a stage has the temperature '{ANNEAL}'"
    if not asked and "anneal_temperatures" in generate:
        yield "anneal_temperatures", f"no stage has the temperature '{ANNEAL}'; leave it out"
