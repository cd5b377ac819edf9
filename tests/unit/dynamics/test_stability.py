"""MD stability: coordination and layering, failure criteria, trajectories of a model."""

from __future__ import annotations

import json
import sys

import numpy as np
import pandas as pd
import pytest
from ase import Atoms, units
from ase.build import bulk, graphene, molecule
from ase.io import read

from pretraining.data.geometry import FOLDS, LAYERING, fold_counts, layering, neighbours
from pretraining.dynamics.engines import Frame, Settings
from pretraining.dynamics.stability.criteria import CRITERIA, Limits, StabilityMonitor
from pretraining.dynamics.stability.run import COORDINATION, OUTCOME, THERMODYNAMICS, Request, run
from pretraining.runtime.errors import UserError
from pretraining.runtime.records import OUTPUTS, read_record
from pretraining.runtime.stop import Interrupted
from pretraining.study.generation import Stage
from pretraining.training.network.checkpoint import load_model
from pretraining.training.predict import load_calculator, predict
from stopping import StopAt
from toy import MD_TEST as PROTOCOL

# ---------------------------------------------------------------- coordination and layers


def graphite(distance: float = 3.35, layers: int = 4) -> Atoms:
    """Layers of graphene, each shifted against the one below."""
    layer = graphene(a=2.46, vacuum=distance / 2)
    layer.pbc = True
    atoms = layer.repeat((4, 4, layers))
    for i in range(layers):
        atoms.positions[atoms.positions[:, 2] > (i + 0.25) * distance] += [0.7, 0.4, 0]
    atoms.set_cell(layer.cell.array * [[4], [4], [layers]])
    return atoms


def test_neighbours_of_crystals_and_atoms():
    counts = fold_counts(neighbours(bulk("C", "diamond", a=3.57, cubic=True), 1.85), 8)
    assert counts.tolist() == [0, 0, 0, 0, 8, 0, 0, 0, 0]
    assert fold_counts(neighbours(graphite(), 1.85), 8).tolist() == [0, 0, 0, 128, 0, 0, 0, 0, 0]
    # An atom alone, a dimer, and the centre of a cube with its corners.
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    atoms = Atoms("C12", [[9, 0, 0], [0, 0, 0], [1.3, 0, 0], [20, 0, 0], *([20, 0, 0] + corners)])
    assert fold_counts(neighbours(atoms, 1.85), 8).tolist() == [1, 10, 0, 0, 0, 0, 0, 0, 1]


def test_layering_is_one_for_flat_layers_wherever_they_lie():
    atoms = graphite()
    assert layering(atoms) == pytest.approx(1)
    atoms.translate([0.3, 0.7, 1.1])
    atoms.wrap()
    assert layering(atoms) == pytest.approx(1)
    atoms.rotate(40, (1, 2, 3), rotate_cell=True)
    assert layering(atoms) == pytest.approx(1)


def test_layering_falls_with_disorder_as_a_structure_factor_does():
    atoms = graphite()
    shifts = np.random.default_rng(1).normal(0, 0.3, atoms.positions.shape)
    atoms.positions += shifts
    # Debye and Waller: |<exp(iqu)>|² = exp(-q²u²)
    expected = np.exp(-((2 * np.pi / 3.35) ** 2) * 0.3**2)
    assert layering(atoms) == pytest.approx(expected, rel=0.15)
    places = np.random.default_rng(1).random((400, 3)) * 16
    assert layering(Atoms("C400", places, cell=[16] * 3, pbc=True)) < 0.05
    assert layering(graphite(distance=5.0)) < 0.05  # nothing at that distance
    assert np.isnan(layering(Atoms("C2", [[0, 0, 0], [1, 0, 0]])))
    assert np.isnan(layering(bulk("C", "diamond", a=1.5)))


# ---------------------------------------------------------------- failure criteria


def frame_of(atoms: Atoms, temperature: float = 3000.0, potential: float = 0.0) -> Frame:
    zeros = np.zeros((len(atoms), 3))
    return Frame(10, 0.01, atoms, zeros, potential, 1.0, temperature, 3000.0)


def monitor(**limits: float) -> StabilityMonitor:
    stages = [Stage(300, 3000, 100), Stage(3000, 3000, 100)]
    limits = {"min_distance": 0.8, "zero_fold": 0.05, "eight_fold": 0.01} | limits
    return StabilityMonitor(Limits(**limits), stages, 1.85, Settings(), start=0.0)


def sound() -> Atoms:
    return bulk("C", "diamond", a=3.57, cubic=True).repeat(2)


def test_a_hot_crystal_is_no_failure():
    look = monitor()
    assert look(frame_of(sound(), 4000, 0.4 * 64)) is None
    assert look.criterion is None


def clashing() -> Atoms:
    atoms = sound()
    atoms.positions[0] = atoms.positions[1] + [0.5, 0, 0]
    return atoms


def vapour() -> Atoms:
    atoms = sound()
    atoms.set_cell([40, 40, 40])
    for i in range(4):
        atoms.positions[i] = [20 + 4 * i, 30, 30]
    return atoms


def cluster() -> Atoms:
    """A fluctuation of one atom with eight neighbours is too much in a cell of 64."""
    atoms = sound()
    atoms.set_cell([40, 40, 40])
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    atoms.positions[:9] = [[30, 30, 30], *([30, 30, 30] + corners)]
    return atoms


@pytest.mark.parametrize(
    ("criterion", "frame", "said"),
    [
        ("temperature", frame_of(sound(), 9001), "9,001 K, above 9,000 K"),
        ("energy", frame_of(sound(), potential=-3.1 * 64), "-3.1 eV/atom, beyond"),
        ("energy", frame_of(sound(), potential=3.1 * 64), "+3.1 eV/atom, beyond"),
        ("distance", frame_of(clashing()), "two atoms are 0.50 Å from each other"),
        ("free atoms", frame_of(vapour()), "4 of 64 atoms have no neighbour, more than 5 %"),
        ("clusters", frame_of(cluster()), "1 of 64 atoms have 8 or more neighbours"),
        ("not finite", frame_of(sound(), np.nan), "not finite"),
    ],
)
def test_each_criterion_by_itself(criterion, frame, said):
    assert criterion in CRITERIA
    look = monitor()
    assert said in look(frame)
    assert look.criterion == criterion
    # With that limit out of the way there is nothing to object to.
    key = {
        "temperature": {"temperature_factor": 99},
        "energy": {"energy_per_atom": 9},
        "distance": {"min_distance": 0.1, "eight_fold": 1},
        "free atoms": {"zero_fold": 0.1},
        "clusters": {"eight_fold": 0.1},
    }
    if criterion in key:
        assert monitor(**key[criterion])(frame) is None


@pytest.mark.parametrize(
    ("atoms", "counted"),
    [
        (bulk("Mo", cubic=True), 14),  # the second shell of bcc is near
        (bulk("Cu", cubic=True), 12),
        (bulk("Si", cubic=True), 4),
        (bulk("C", cubic=True), 4),
        (bulk("NaCl", "rocksalt", a=5.64, cubic=True), 6),
        (molecule("H2"), 1),
        (Atoms("Ar4", 9.0 * np.arange(4)[:, None] * np.ones(3)), 0),
    ],
)
def test_perfect_structures_of_any_material_break_no_limit(atoms, counted):
    counts = neighbours(atoms)
    assert (counts == counted).all()
    stages = [Stage(300, 300, 100)]
    rest = {"radius": None, "settings": Settings(), "start": 0.0}
    look = StabilityMonitor(Limits(), stages, alone=float((counts == 0).mean()), **rest)
    assert look(frame_of(atoms, 300)) is None
    # What has evaporated since the start, and what has collapsed.
    far = Atoms(atoms.numbers, positions=20.0 * np.arange(len(atoms))[:, None] * np.ones(3))
    assert (look(frame_of(far, 300)) is None) == (counted == 0)
    near = atoms.copy()
    near.set_cell(near.cell * 0.4, scale_atoms=False)
    near.positions *= 0.4
    assert counted == 0 or "from each other, below" in look(frame_of(near, 300))


def test_a_start_that_breaks_a_limit_is_refused(tmp_path, model, start):
    limits = PROTOCOL["limits"] | {"min_distance": 5.0}
    asked = request(model, start, tmp_path, limits=limits)
    with pytest.raises(UserError, match="start already breaks a limit .* below 5 Å: change the"):
        run(asked)
    assert not (asked.folder(1) / OUTCOME).exists()


class Engine:
    """Part of an engine that the monitor needs between frames."""

    def __init__(self, atoms: Atoms, finite: bool = True) -> None:
        self.n_atoms = len(atoms)
        self.check_state = lambda: (atoms.get_kinetic_energy(), finite)


def test_between_frames_heat_and_forces_are_watched():
    atoms = sound()
    kelvin = 8999 * (3 * 64 - 3) / (3 * 64)
    momenta = np.sqrt(atoms.get_masses()[:, None] * units.kB * kelvin) * np.ones((64, 3))
    atoms.set_momenta(momenta)
    assert monitor().watch(Engine(atoms)) is None
    atoms.set_momenta(1.001 * momenta)
    assert "above 9,000 K" in monitor().watch(Engine(atoms))
    assert "forces are not finite" in monitor().watch(Engine(sound(), finite=False))


# ---------------------------------------------------------------- a network's dynamics


def request(model, start, out, replicas=(1,), **protocol) -> Request:
    return Request(model, start, PROTOCOL | protocol, replicas, out, device="cpu")


def test_the_engine_has_the_forces_of_plain_inference(model, start):
    atoms = read(start)
    (predicted,) = predict(load_model(model), [atoms])
    atoms.calc = load_calculator(model)
    assert np.abs(predicted.get_forces()).max() > 0.1
    np.testing.assert_allclose(atoms.get_forces(), predicted.get_forces(), atol=1e-6)
    assert atoms.get_potential_energy() == pytest.approx(predicted.get_potential_energy())


def test_constant_energy(tmp_path, model, start):
    """Without a thermostat the error falls with the square of the time step."""
    spread = []
    for timestep in (1.0, 0.5):
        out = tmp_path / f"{timestep:g}"
        stages = [{"temperature": 300, "ps": 0.1}]
        run(request(model, start, out, stages=stages, thermostat="none", timestep_fs=timestep))
        log = pd.read_csv(out / "replica~1" / THERMODYNAMICS)
        assert log["kinetic_ev"].std() > 0.05
        spread.append(log["total_ev"].std() / log["kinetic_ev"].std())
    assert spread[1] < 0.02
    assert spread[0] / spread[1] > 2.5


def test_a_trajectory_and_its_files(tmp_path, model, start):
    out = tmp_path / "replica~1"
    returned = run(request(model, start, out.parent))
    assert {p.name for p in out.iterdir()} == {
        "trajectory.extxyz", "thermodynamics.csv", "coordination.csv", "outcome.json"
    }  # fmt: skip
    outcome = read_record(out / OUTCOME)
    assert set(outcome.pop(OUTPUTS)) == {p.name for p in out.iterdir()} - {OUTCOME}
    assert returned == {1: outcome}
    assert (outcome["status"], outcome["time_ps"], outcome["planned_ps"]) == (
        "survived",
        0.06,
        0.06,
    )
    assert outcome["criterion"] is None and outcome["steps_per_second"] > 0
    frames = read(out / "trajectory.extxyz", ":")
    assert [atoms.info["time"] for atoms in frames] == pytest.approx(np.arange(7) / 100)
    log, counts = (pd.read_csv(out / name) for name in (THERMODYNAMICS, COORDINATION))
    assert len(log) == len(counts) == 13
    assert log["target_k"].iloc[[0, 6, 12]].tolist() == [100, 300, 300]
    assert list(counts) == ["time_ps", *FOLDS, LAYERING]
    assert (counts[list(FOLDS)].sum(axis=1) == 16).all()
    expected = fold_counts(neighbours(frames[-1], 1.85))
    assert counts[list(FOLDS)].iloc[-1].tolist() == expected.tolist()
    np.testing.assert_allclose(frames[0].get_all_distances(mic=True),
                               read(start).get_all_distances(mic=True), atol=1e-6)  # fmt: skip


def test_replicas_differ_in_their_velocities_and_models_do_not(tmp_path, model, start):
    stages = [{"temperature": 300, "ps": 0.01}]
    run(request(model, start, tmp_path, (1, 2), stages=stages))
    energies = {
        replica: pd.read_csv(tmp_path / f"replica~{replica}" / THERMODYNAMICS)["kinetic_ev"][0]
        for replica in (1, 2)
    }
    assert energies[1] != energies[2]


def test_torch_sim_where_it_is_not_installed(tmp_path, model, start, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_sim", None)
    for module in ("nequip.integrations.torchsim", "pretraining.dynamics.torchsim_engine"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(UserError, match="pip install torch-sim-atomistic==.*set engine: ase"):
        run(request(model, start, tmp_path, engine="torch-sim"))


def test_a_resumed_trajectory_is_the_uninterrupted_one(tmp_path, model, start):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(request(model, start, whole))
    for looks in (17, 60):  # within the first stage, and within the second
        with pytest.raises(Interrupted):
            run(request(model, start, parts), StopAt(looks))
    assert not (parts / "replica~1" / OUTCOME).exists()
    run(request(model, start, parts))
    for name in ("trajectory.extxyz", THERMODYNAMICS, COORDINATION):
        assert (whole / "replica~1" / name).read_bytes() == (
            parts / "replica~1" / name
        ).read_bytes()


def test_a_model_that_is_made_to_fail(tmp_path, model, start):
    """What a network of a few epochs does at 20,000 K ends in time, with its last frame kept."""
    out = tmp_path / "hot"
    limits = PROTOCOL["limits"] | {"temperature_factor": 1.05}
    stages = [{"from": 300, "to": 20000, "ps": 0.5}]
    protocol = {"stages": stages, "limits": limits, "damping_fs": 5.0, "frame_every_ps": 0.1}
    run(request(model, start, out, **protocol))
    out = out / "replica~1"
    outcome = json.loads((out / OUTCOME).read_text())
    assert outcome["status"] == "failed" and outcome["criterion"] in CRITERIA
    assert outcome["reason"] and 0 < outcome["time_ps"] < 0.5
    last = read(out / "trajectory.extxyz", -1)
    assert last.info["time"] == pytest.approx(outcome["time_ps"])
    assert pd.read_csv(out / THERMODYNAMICS)["time_ps"].iloc[-1] == last.info["time"]
