"""Generated datasets: the trajectories and stages of a dataset's section `generate`.

Everything follows from the configuration, so the grid is known before any trajectory exists.
Imported in interpreters of label sources: only the standard library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import floor, prod
from typing import Any

ANNEAL = "anneal"  # as a temperature: that of the trajectory
# As a snapshot: the first frame with an atom of five neighbours or more.
FIRST_FIVE_FOLD = "first_five_fold"
LAMMPSLIB = "ase.calculators.lammpslib.LAMMPSlib"  # the calculator that engine lammps can drive
# Relative tolerance of whole numbers of steps: decimal fractions are not exact.
TOLERANCE = 1e-6
MOST_TRAJECTORIES = 100_000


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
    start, step = float(entry["start"]), float(entry["step"])
    return [round(start + step * i, 10) for i in range(_count(entry))]


def _count(entry: list[float] | Mapping[str, float]) -> int:
    """Return how many numbers :func:`values` gives, without making them."""
    if isinstance(entry, list):
        return len(entry)
    start, stop, step = (float(entry[key]) for key in ("start", "stop", "step"))
    return max(0, floor((stop - start) / step + TOLERANCE) + 1)


def too_many(where: str, generate: Mapping[str, Any]) -> Iterator[str]:
    """Yield a problem if a dataset has more trajectories than a study can hold."""
    lists = [generate[key] for key in ("densities", "anneal_temperatures") if key in generate]
    count = prod([_count(entry) for entry in lists], start=generate["replicas"])
    if count > MOST_TRAJECTORIES:
        yield (
            f"{where}: densities, anneal_temperatures and replicas make {count:,} trajectories, "
            f"more than {MOST_TRAJECTORIES:,}: give a larger step or fewer replicas"
        )


def trajectories(generate: Mapping[str, Any]) -> list[Trajectory]:
    """Return the trajectories of a dataset, in the order of their structures."""
    temperatures = generate.get("anneal_temperatures")
    anneals = [None] if temperatures is None else values(temperatures)
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
