"""Trajectory of a generated dataset: a random cell, then melt, quench and anneal.

The cell is a cube of the given density with atoms at random places, no two nearer than a minimum
distance. At that distance atoms overlap and forces reach thousands of eV/Å. A minimisation relaxes
the overlaps first, as is usual with random cells in LAMMPS (``minimize`` with its ``dmax`` of
0.1 Å). It ends long before a minimum.

Imported in the interpreter of the driving source: only the standard library, numpy and ASE.
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

from pretraining.dynamics.engines import AseEngine, Frame, Settings, thermalise
from pretraining.dynamics.lammps_engine import ARGUMENTS, LammpsEngine, engine_of
from pretraining.dynamics.recorder import Recorder
from pretraining.dynamics.trajectory import CHECKPOINT_SECONDS, Outcome, Trajectory, simulate
from pretraining.labels.evaluate import (
    make_calculator,
    provenance,
    reason_of,
    refuse_written_files,
)
from pretraining.runtime.cli import log
from pretraining.runtime.errors import UserError
from pretraining.runtime.records import record_of, write_record
from pretraining.runtime.stop import StopRequest
from pretraining.study import generation
from pretraining.study.generation import Stage, stages_of, steps_of
from pretraining.study.sources import Source, parameter_files

ENGINES = {"ase": AseEngine, "lammps": LammpsEngine}
GRAM_PER_CM3 = units._Nav * 1e-24  # 1 g/cm³ in u/Å³
PLACEMENTS = 100_000  # random places tried for one atom
RELAXED = 20.0  # eV/Å, the largest force after relaxing overlaps, as in a hot liquid
MAX_STEPS = 500  # of the relaxation
# Largest temperature as a multiple of the hottest stage. In the first stage the random cell becomes
# a liquid and releases some eV per atom, so that a higher limit holds there.
RUNAWAY = 3.0
RELEASED = 50_000.0  # K


@dataclass(frozen=True)
class Request:
    """One trajectory to generate.

    Attributes
    ----------
    reference
        Isolated-atom energies of the source, eV, subtracted from its energies.
    protocol
        The dataset's entry ``generate`` with the dataset's name (``dataset``) and the
        ``clash_distance`` (Å) below which two atoms end the trajectory.
    frames, log
        Output files: trajectory (extended XYZ) and thermodynamics (CSV).
    """

    source: Source
    reference: dict[str, float]
    protocol: Mapping[str, Any]
    trajectory: generation.Trajectory
    frames: Path
    log: Path


def random_cell(
    composition: Mapping[str, int],
    n_atoms: int,
    density: float,
    min_distance: float,
    rng: np.random.Generator,
) -> Atoms:
    """Return a periodic cube with atoms at random places, as hard spheres.

    `n_atoms` is a multiple of the atoms in a formula unit of the `composition`, `density` is in
    g/cm³, and `min_distance` (Å) is the diameter of the spheres, also across cell boundaries.
    Raises a UserError if there is no room for an atom.
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
    """Relax overlapping atoms until no force exceeds `RELAXED`; return the number of steps."""
    relaxation = LBFGS(atoms, maxstep=0.1, logfile=None)  # Å an atom moves in a step
    relaxation.run(fmax=RELAXED, steps=MAX_STEPS)
    return relaxation.nsteps


def generate(
    request: Request,
    stop: StopRequest | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Generate a trajectory, or resume it.

    Raises a `UserError` if the source fails, which leaves the checkpoint, or if the trajectory is
    unphysical; its frames are then kept beside the output.
    """
    protocol, run = request.protocol, request.trajectory
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
    engine_name = engine_of(request.source, protocol["engine"])
    made = {"protocol": dict(protocol), "run": run.name, "engine": engine_name}
    made |= provenance(request.source, request.reference, [])
    recorder = Recorder(
        request.frames.with_suffix(".state"),
        made,
        run.name,
        labelled(request, atoms),
    )
    plan = stages_of(protocol, run.anneal)
    trajectory = Trajectory(
        _engine(engine_name, request, atoms, plan[0].first, settings, rng, recorder.resumed),
        plan,
        steps_of(protocol["frame_every_ps"], protocol["timestep_fs"]),
        settings,
        recorder,
        monitor=runaway_monitor(protocol, plan),
    )
    simulate([trajectory], trajectory.engine.advance, stop, checkpoint_seconds)
    _finish(request, recorder, trajectory.outcome, made)


def _engine(
    name: str,
    request: Request,
    atoms: Atoms,
    kelvin: float,
    settings: Settings,
    rng: np.random.Generator,
    resumed: bool,
) -> Any:
    """Return the engine with the relaxed and thermalised cell."""
    run, source = request.trajectory.name, request.source
    if name == "lammps":
        source = replace(source, kwargs={**source.kwargs, **ARGUMENTS})
    files = parameter_files(source)
    atoms.calc = make_calculator(source)
    try:
        taken = 0 if resumed else relax_overlaps(atoms)
        thermalise(atoms, kelvin, rng)
        engine = ENGINES[name](atoms, settings)
        refuse_written_files(source, files)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{run}: source '{source.name}' cannot evaluate the random cell "
            f"({reason_of(error)}); check its installation, or raise min_distance"
        ) from error
    if not resumed:
        log(f"{run}: {len(atoms)} atoms, engine {name}; overlaps relaxed in {taken} steps")
    return engine


def _finish(request: Request, recorder: Recorder, outcome: Outcome, made: dict[str, Any]) -> None:
    """Move the files into place beside their record, or raise the reason of an early end."""
    name, end = request.trajectory.name, f"at {outcome.time_ps:g} ps"
    if outcome.raised:
        raise UserError(
            f"{name}: source '{request.source.name}' failed {end} ({outcome.reason}): run it again "
            "to resume from the last checkpoint; if it always fails there (frames in "
            f"{recorder.folder}), shorten timestep_fs or name it under generate.exclude"
        )
    failed = request.frames.with_suffix(".failed.extxyz"), request.log.with_suffix(".failed.csv")
    if outcome.reason is None:
        moving = {request.frames.name: recorder.frames, request.log.name: recorder.log}
        write_record(record_of(request.frames), made, moving=moving)
        recorder.finish(request.frames, request.log)
        for earlier in failed:
            earlier.unlink(missing_ok=True)
        return
    recorder.finish(*failed)
    raise UserError(
        f"{name} failed {end}: {outcome.reason} (frames in {failed[0]}): shorten timestep_fs, "
        "raise min_distance, or name it under the dataset's generate.exclude"
    )


def labelled(request: Request, start: Atoms) -> Callable[[Frame], Atoms]:
    """Return a function from a frame to the structure to write, with the source's labels."""
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


def runaway_monitor(
    protocol: Mapping[str, Any], plan: list[Stage]
) -> Callable[[Frame], str | None]:
    """Return a monitor that ends a trajectory that is too hot or has clashing atoms."""
    nearest = protocol["clash_distance"]
    hottest = max(max(stage.first, stage.last) for stage in plan)

    def monitor(frame: Frame) -> str | None:
        limit = RUNAWAY * hottest
        if frame.step <= plan[0].steps:
            limit = max(limit, RELEASED)
        if not frame.temperature <= limit:
            return (
                f"the temperature is {frame.temperature:.0f} K, the hottest stage {hottest:.0f} K"
            )
        distances = neighbor_list("d", frame.atoms, nearest)
        if len(distances):
            return f"two atoms are {distances.min():.2f} Å from each other"
        return None

    return monitor
