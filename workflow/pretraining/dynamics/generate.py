"""Make a trajectory of a generated dataset: a random cell, then melt, quench and anneal.

The cell is a cube of the wanted density with atoms at random places, none nearer to another than
a minimum distance. Such atoms still overlap as atoms: with forces of thousands of eV/Å the first
time step would scatter them. As is usual with random cells in LAMMPS (its ``minimize``, whose
``dmax`` is 0.1 Å, before the first ``run``), the overlaps are relaxed first, by a minimisation in
which no atom moves further than 0.1 Å a step and which ends long before a minimum.

This runs in the interpreter of the driving source: it imports only the standard library, numpy and
ASE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses, atomic_numbers
from ase.neighborlist import neighbor_list
from ase.optimize import LBFGS

from pretraining.dynamics.engines import engine_of, make_engine
from pretraining.dynamics.lammps_engine import ARGUMENTS
from pretraining.dynamics.recorder import Recorder
from pretraining.dynamics.settings import Frame, Settings, thermalise
from pretraining.dynamics.trajectory import CHECKPOINT_SECONDS, Course, simulate
from pretraining.labels.evaluate import make_calculator, reason_of
from pretraining.runtime.errors import UserError
from pretraining.runtime.stop import StopRequest, say
from pretraining.study.generation import Stage, Trajectory, stages_of, steps_of
from pretraining.study.sources import Source

GRAM_PER_CM3 = units._Nav * 1e-24  # 1 g/cm³ in u/Å³
PLACEMENTS = 100_000  # random places that are tried for one atom
MAX_STEP = 0.1  # Å an atom may move in a step of the relaxation
RELAXED = 20.0  # eV/Å, the largest force of atoms that no longer overlap; a hot liquid has such
MAX_STEPS = 500
# A temperature beyond the hottest stage by this factor is no fluctuation. In the first stage the
# random cell becomes a liquid, and some eV per atom become heat: only what no bond would give is
# too much there.
RUNAWAY = 3.0
RELEASED = 50_000.0  # K


@dataclass(frozen=True)
class Request:
    """One trajectory to make.

    Attributes
    ----------
    source, reference
        What drives the dynamics, and its isolated-atom energies (eV), subtracted from energies.
    protocol
        The dataset's entry ``generate``, its name (``dataset``), and the ``clash_distance`` (Å)
        below which two atoms end the trajectory.
    trajectory
        Which one.
    frames, log
        Trajectory (extended XYZ) and thermodynamics (CSV) to write.
    """

    source: Source
    reference: dict[str, float]
    protocol: Mapping[str, Any]
    trajectory: Trajectory
    frames: Path
    log: Path


def random_cell(
    composition: Mapping[str, int],
    n_atoms: int,
    density: float,
    min_distance: float,
    rng: np.random.Generator,
) -> Atoms:
    """Place atoms at random in a periodic cube, as hard spheres.

    Parameters
    ----------
    composition
        Atoms of each element in a formula unit.
    n_atoms
        A multiple of the atoms of the formula unit.
    density
        g/cm³.
    min_distance
        Diameter of the spheres, Å; images in neighbouring cells count.

    Raises
    ------
    UserError
        If an atom finds no room.
    """
    units_of_formula = n_atoms // sum(composition.values())
    symbols = [s for s, count in composition.items() for _ in range(count * units_of_formula)]
    mass = sum(atomic_masses[atomic_numbers[symbol]] for symbol in symbols)
    edge = (mass / (density * GRAM_PER_CM3)) ** (1 / 3)
    if edge < min_distance:
        raise UserError(
            f"a cell of {n_atoms} atoms at {density:g} g/cm³ has an edge of {edge:.2f} Å"
        )
    positions = np.empty((n_atoms, 3))
    for i in range(n_atoms):
        for _ in range(PLACEMENTS):
            place = rng.random(3) * edge
            apart = positions[:i] - place
            apart -= edge * np.round(apart / edge)
            if (np.sum(apart**2, axis=1) >= min_distance**2).all():
                break
        else:
            raise UserError(
                f"no room for atom {i + 1} of {n_atoms} at {density:g} g/cm³, "
                f"{min_distance:g} Å from each other: lower min_distance"
            )
        positions[i] = place
    return Atoms(symbols, positions=positions, cell=[edge] * 3, pbc=True)


def relax_overlaps(atoms: Atoms) -> int:
    """Move overlapping atoms apart until no force exceeds that of a hot liquid.

    Returns
    -------
    int
        The number of steps taken.
    """
    relaxation = LBFGS(atoms, maxstep=MAX_STEP, logfile=None)
    relaxation.run(fmax=RELAXED, steps=MAX_STEPS)
    return relaxation.nsteps


def generate(
    request: Request,
    stop: StopRequest | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Make a trajectory, or go on with it.

    Raises
    ------
    UserError
        If the source cannot evaluate the start or fails on the way, which leaves the checkpoint;
        or if the trajectory is beyond use, and what there is of it is kept beside the output.
    """
    protocol, run = request.protocol, request.trajectory
    engine_name = engine_of(request.source, protocol["engine"])
    steps = stages_of(protocol, run.anneal)
    name = f"{protocol['dataset']}/{run.name}"
    rng = np.random.default_rng([protocol["seed"], *name.encode()])
    settings = Settings(
        timestep_fs=protocol["timestep_fs"],
        thermostat=protocol["thermostat"],
        damping_fs=protocol["damping_fs"],
        seed=int(rng.integers(2**31)),
    )
    atoms = random_cell(
        protocol["composition"], protocol["atoms"], run.density, protocol["min_distance"], rng
    )
    recorder = Recorder(
        request.frames.with_suffix(".state"),
        {
            "protocol": dict(protocol),
            "run": run.name,
            "source": request.source.definition(),
            "reference": request.reference,
            "engine": engine_name,
        },
        run.name,
        labelled(request, atoms),
    )
    source = request.source
    if engine_name == "lammps":
        source = replace(source, kwargs={**source.kwargs, **ARGUMENTS})
    atoms.calc = make_calculator(source)
    try:
        taken = 0 if recorder.resumed else relax_overlaps(atoms)
        thermalise(atoms, steps[0].first, rng)
        engine = make_engine(engine_name, atoms, settings)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{run.name}: source '{source.name}' cannot evaluate the random cell "
            f"({reason_of(error)}); see that it is installed, or raise min_distance"
        ) from error
    if not recorder.resumed:
        say(
            f"{run.name}: {len(atoms)} atoms, engine {engine_name}; overlaps relaxed in {taken} "
            "steps"
        )
    course = Course(
        engine,
        steps,
        steps_of(protocol["frame_every_ps"], protocol["timestep_fs"]),
        settings,
        recorder,
        monitor=failure_of(protocol, steps),
    )
    simulate([course], engine.advance, stop, checkpoint_seconds)
    ending = course.ending
    if ending.raised:
        raise UserError(
            f"{run.name}: source '{source.name}' failed at {ending.time_ps:g} ps "
            f"({ending.reason}): run it again to go on from the last checkpoint; if it fails there "
            f"each time (frames in {recorder.folder}), shorten timestep_fs or name it under "
            "generate.exclude"
        )
    failed = request.frames.with_suffix(".failed.extxyz"), request.log.with_suffix(".failed.csv")
    if ending.reason is None:
        recorder.finish(request.frames, request.log)
        for earlier in failed:
            earlier.unlink(missing_ok=True)
        return
    recorder.finish(*failed)
    raise UserError(
        f"{run.name} failed at {ending.time_ps:g} ps: {ending.reason} (frames in {failed[0]}): "
        "shorten timestep_fs, raise min_distance, or name it under the dataset's generate.exclude"
    )


def labelled(request: Request, start: Atoms) -> Callable[[Frame], Atoms]:
    """Return what makes the structure that is written of a frame, with the source's labels."""
    source, run = request.source, request.trajectory
    missing = sorted(set(start.get_chemical_symbols()) - set(request.reference))
    if missing:
        raise UserError(f"source '{source.name}': no isolated-atom energy of {', '.join(missing)}")
    zero = sum(request.reference[symbol] for symbol in start.get_chemical_symbols())

    def describe(frame: Frame) -> Atoms:
        atoms = frame.atoms
        bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        bare.info = {"run_id": run.name, "density": run.density, "time": frame.time_ps}
        if run.anneal is not None:
            bare.info["anneal_T"] = run.anneal
        bare.info[source.energy_key] = frame.potential - zero
        bare.arrays[source.force_key] = frame.forces
        return bare

    return describe


def failure_of(protocol: Mapping[str, Any], steps: list[Stage]) -> Callable[[Frame], str | None]:
    """Return what sees that a trajectory is beyond use: too hot, or with atoms in each other."""
    nearest = protocol["clash_distance"]
    hottest = max(max(stage.first, stage.last) for stage in steps)

    def look(frame: Frame) -> str | None:
        limit = RUNAWAY * hottest
        if frame.step <= steps[0].steps:
            limit = max(limit, RELEASED)
        if not frame.temperature <= limit:
            return (
                f"the temperature is {frame.temperature:.0f} K, the hottest stage {hottest:.0f} K"
            )
        distances = neighbor_list("d", frame.atoms, nearest)
        if len(distances):
            return f"two atoms are {distances.min():.2f} Å from each other"
        return None

    return look
