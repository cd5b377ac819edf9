"""The dynamics of several replicas in one batch: as with ASE, each by itself, to its own end."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ase.io import read

pytest.importorskip("torch_sim", reason="torch-sim is not installed")

from nequip.integrations.torchsim import NequIPTorchSimCalc

from pretraining.dynamics.engines import AseEngine, Settings, thermalise
from pretraining.dynamics.stability.criteria import CRITERIA
from pretraining.dynamics.stability.run import (
    COORDINATION,
    OUTCOME,
    THERMODYNAMICS,
    TRAJECTORY,
    Request,
    run,
)
from pretraining.dynamics.torchsim_engine import Batch, load_batch_model
from pretraining.runtime.errors import UserError
from pretraining.runtime.stop import Interrupted
from pretraining.study.generation import Stage
from pretraining.training.predict import CompiledNetwork, compiled_network, load_calculator
from pretraining.training.run import Request as Training
from pretraining.training.run import train
from stopping import StopAt
from toy import MD_TEST, rattled_cells, write_settings, write_store

pytestmark = pytest.mark.slow

FILES = (TRAJECTORY, THERMODYNAMICS, COORDINATION)
NO_LIMITS = {
    "temperature_factor": 100.0,
    "energy_per_atom": 100.0,
    "min_distance": 0.1,
    "zero_fold": 1.0,
    "eight_fold": 1.0,
}
PROTOCOL = MD_TEST | {
    "stages": [{"from": 100, "to": 300, "ps": 0.02}, {"temperature": 300, "ps": 0.02}],
    "engine": "torch-sim",
    "limits": NO_LIMITS,
}


def structure(seed: int = 9, n: int = 2):
    atoms = next(rattled_cells(1, seed=seed)).repeat((n, 1, 1))
    atoms.calc = None
    return atoms


def thermal(atoms, replica: int):
    thermalise(atoms, 100, np.random.default_rng([42, replica]))
    return atoms


def request(model, start, out, replicas=(1, 2, 3), **protocol) -> Request:
    return Request(model, start, PROTOCOL | protocol, replicas, out, device="cpu")


def logs(folder: Path, replicas=(1, 2, 3)) -> list[pd.DataFrame]:
    return [pd.read_csv(folder / f"replica~{k}" / THERMODYNAMICS) for k in replicas]


def outcomes(folder: Path, replicas=(1, 2, 3)) -> list[dict]:
    return [json.loads((folder / f"replica~{k}" / OUTCOME).read_text()) for k in replicas]


# ---------------------------------------------------------------- the engine


def test_energies_and_forces_are_those_of_ase(model):
    """Cells of several sizes in one batch."""
    frames = [structure(n=2), structure(3, n=1), structure(4, n=3)]
    batch = Batch(load_batch_model(model, "cpu"), frames, Settings())
    for system, atoms in zip(batch.systems, frames, strict=True):
        atoms.calc = load_calculator(model)
        read_atoms, forces = system.read()
        assert np.abs(forces).max() > 0.1
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-5)
        energy = atoms.get_potential_energy() / len(atoms)
        assert system.energy() / len(atoms) == pytest.approx(energy, abs=1e-6)
        assert read_atoms.get_chemical_symbols() == atoms.get_chemical_symbols()


@pytest.mark.parametrize("thermostat", ["none", "nose-hoover"])
def test_trajectories_are_those_of_ase(tmp_path, model, start, thermostat):
    """Heated from step to step, through two stages; each replica from its own velocities."""
    for engine in ("ase", "torch-sim"):
        out = tmp_path / engine
        run(request(model, start, out, thermostat=thermostat, engine=engine, damping_fs=10.0))
    for replica in (1, 2, 3):
        ours, theirs = (
            read(tmp_path / engine / f"replica~{replica}" / TRAJECTORY, ":")
            for engine in ("torch-sim", "ase")
        )
        assert len(ours) == len(theirs) == 5
        assert np.abs(ours[0].positions - ours[-1].positions).max() > 0.02
        for one, other in zip(ours, theirs, strict=True):
            one.extend(other)
            distances = [one.get_distance(i, i + 16, mic=True) for i in range(16)]
            assert max(distances) < 1e-5
    for ours, theirs in zip(logs(tmp_path / "torch-sim"), logs(tmp_path / "ase"), strict=True):
        assert ours["target_k"].tolist() == theirs["target_k"].tolist()
        assert ours["kinetic_ev"][0] == theirs["kinetic_ev"][0]  # the same velocities
        np.testing.assert_allclose(ours["temperature_k"], theirs["temperature_k"], rtol=1e-4)
    kinetic = [log["kinetic_ev"][0] for log in logs(tmp_path / "torch-sim")]
    assert len(set(kinetic)) == 3


def test_the_temperature_of_each_is_its_own(model):
    """A thermostat for each system: they are heated to different temperatures at once."""
    batch = Batch(
        load_batch_model(model, "cpu"),
        [thermal(structure(), replica) for replica in (1, 2)],
        Settings(1.0, damping_fs=10.0),
    )
    for system, kelvin in zip(batch.systems, (50, 400), strict=True):
        system.start(0, Stage(kelvin, kelvin, 300), 0)
    batch.advance(100)
    measured = []
    for _ in range(200):
        batch.advance(1)
        kinetic = [system.check_state()[0] for system in batch.systems]
        measured.append([Settings().temperature(energy, 16) for energy in kinetic])
    assert np.mean(measured, axis=0) == pytest.approx([50, 400], rel=0.15)


def test_a_batch_of_one_is_a_batch_of_three(tmp_path, model, start):
    run(request(model, start, tmp_path / "three"))
    run(request(model, start, tmp_path / "one", replicas=(2,)))
    assert [o["batch"] for o in outcomes(tmp_path / "three")] == [3, 3, 3]
    (one,) = logs(tmp_path / "one", (2,))
    three = logs(tmp_path / "three")[1]
    np.testing.assert_allclose(one.to_numpy(), three.to_numpy(), rtol=1e-5)
    ends = [
        read(tmp_path / name / "replica~2" / TRAJECTORY, -1).positions for name in ("one", "three")
    ]
    np.testing.assert_allclose(*ends, atol=1e-5)


def test_a_compiled_model_gives_the_same_trajectories(tmp_path, start, capfd):
    """It is compiled once, for any number of replicas, one included."""
    settings = write_settings(tmp_path / "settings.yaml", max_epochs=2)
    data = write_store(tmp_path / "data.h5", n=20, n_val=3, n_test=3)
    train(Training("direct", data, 12, 1, settings, tmp_path / "run"))
    model = tmp_path / "run" / "model.ckpt"
    asked = request(model, start, tmp_path / "compiled")
    asked = dataclasses.replace(asked, compile="always")
    with pytest.raises(Interrupted):
        run(asked, StopAt(17))
    capfd.readouterr()
    network = load_batch_model(model, "cpu")
    network.model = compiled_network(network.model, model, structure(), print)
    assert isinstance(network.model, CompiledNetwork)
    for n in (1, 3):
        frames = [structure(seed) for seed in range(n)]
        plain, compiled = (
            Batch(moved, frames, Settings()) for moved in (load_batch_model(model, "cpu"), network)
        )
        for one, other in zip(plain.systems, compiled.systems, strict=True):
            np.testing.assert_allclose(one.read()[1], other.read()[1], atol=1e-5)
            assert one.energy() == pytest.approx(other.energy(), abs=1e-5)
    run(asked)
    said = capfd.readouterr().err
    assert "forces by a compiled function" in said and "compiling" not in said
    # The function is in the cache now.
    run(dataclasses.replace(request(model, start, tmp_path / "plain"), compile="never"))
    assert "forces by a compiled function" not in capfd.readouterr().err
    for plain, compiled in zip(logs(tmp_path / "plain"), logs(tmp_path / "compiled"), strict=True):
        np.testing.assert_allclose(plain["potential_ev"], compiled["potential_ev"], atol=1e-4)
        np.testing.assert_allclose(plain["temperature_k"], compiled["temperature_k"], rtol=1e-4)


# ---------------------------------------------------------------- ends


def test_resumed_trajectories_are_the_uninterrupted_ones(tmp_path, model, start):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(request(model, start, whole))
    for looks in (17, 60):  # within the first stage, and within the second
        with pytest.raises(Interrupted, match="SIGTERM"):
            run(request(model, start, parts), StopAt(looks))
    assert not list(parts.rglob(OUTCOME))
    run(request(model, start, parts))
    for replica in (1, 2, 3):
        for name in FILES:
            path = Path(f"replica~{replica}", name)
            assert (whole / path).read_bytes() == (parts / path).read_bytes(), path


def test_replicas_may_go_on_from_different_steps(tmp_path, model, start):
    """A process that is killed while it saves leaves some states older than others."""
    run(request(model, start, tmp_path / "whole"))
    parts = tmp_path / "parts"
    state = parts / "replica~2" / "state"
    for looks in (17, 30):
        with pytest.raises(Interrupted):
            run(request(model, start, parts), StopAt(looks))
        if looks == 17:
            shutil.copytree(state, tmp_path / "older")
    shutil.rmtree(state)
    shutil.move(tmp_path / "older", state)
    run(request(model, start, parts))
    for ours, theirs in zip(logs(parts), logs(tmp_path / "whole"), strict=True):
        np.testing.assert_allclose(ours.to_numpy(), theirs.to_numpy(), rtol=1e-5)


def test_one_that_fails_does_not_cost_the_others(tmp_path, model, start):
    """Its files hold its time and reason; the others are as they would have been without it."""
    # Heated from 100 K, so that none is hottest at the start.
    protocol = {"thermostat": "nose-hoover", "damping_fs": 10.0}
    run(request(model, start, tmp_path / "sound", **protocol))
    sound = logs(tmp_path / "sound")
    hottest = [log["temperature_k"].max() for log in sound]
    order = np.argsort(hottest)
    first, rest = int(order[-1]) + 1, [int(k) + 1 for k in sorted(order[:-1])]
    assert max(hottest) > 1.01 * sorted(hottest)[-2]
    factor = float(np.mean(sorted(hottest)[-2:])) / 300
    limits = NO_LIMITS | {"temperature_factor": factor}

    asked = request(model, start, tmp_path / "one", **protocol, limits=limits)
    # The failed one is remembered by those who go on without it.
    failed_at = sound[first - 1]["temperature_k"].gt(300 * factor).idxmax() * 10
    with pytest.raises(Interrupted):
        run(asked, StopAt(2 * int(failed_at) + 10))
    assert not list((tmp_path / "one").rglob(OUTCOME))
    run(asked)
    found = dict(zip((1, 2, 3), outcomes(tmp_path / "one"), strict=True))
    assert found[first]["status"] == "failed" and found[first]["criterion"] in CRITERIA
    assert "K, above" in found[first]["reason"] and 0 < found[first]["time_ps"] < 0.04
    last = read(tmp_path / "one" / f"replica~{first}" / TRAJECTORY, -1)
    assert last.info["time"] == pytest.approx(found[first]["time_ps"])
    ours = dict(zip((1, 2, 3), logs(tmp_path / "one"), strict=True))
    assert ours[first]["time_ps"].iloc[-1] == pytest.approx(found[first]["time_ps"])
    for replica in rest:
        assert (found[replica]["status"], found[replica]["time_ps"]) == ("survived", 0.04)
        mine, theirs = ours[replica], sound[replica - 1]
        assert len(mine) == len(theirs) == 9
        np.testing.assert_allclose(mine["potential_ev"], theirs["potential_ev"], rtol=1e-5)


def test_forces_that_are_not_finite_end_one_alone(tmp_path, model, start, monkeypatch):
    forward = NequIPTorchSimCalc.forward
    calls = []

    def poisoned(self, state):
        out = forward(self, state)
        calls.append(len(out["energy"]))
        if len(calls) == 30:
            out["forces"][20] = np.nan  # an atom of the second of three
        return out

    monkeypatch.setattr(NequIPTorchSimCalc, "forward", poisoned)
    run(request(model, start, tmp_path))
    first, second, third = outcomes(tmp_path)
    assert (second["status"], second["criterion"]) == ("failed", "not finite")
    assert second["time_ps"] == pytest.approx(29 * 0.0005)
    assert (first["status"], third["status"]) == ("survived", "survived")
    assert set(calls[:30]) == {3} and set(calls[30:]) == {2}
    for log in logs(tmp_path, (1, 3)):
        assert len(log) == 9 and np.isfinite(log.to_numpy()).all()


def test_all_may_fail_at_the_start(tmp_path, model, start):
    limits = NO_LIMITS | {"temperature_factor": 0.01}
    run(request(model, start, tmp_path, limits=limits))
    for outcome in outcomes(tmp_path):
        assert (outcome["status"], outcome["time_ps"]) == ("failed", 0)
        assert outcome["criterion"] == "temperature"


def test_an_error_of_the_program_is_no_failure_of_the_model(tmp_path, model, start, monkeypatch):
    """The states are left to go on from."""
    with pytest.raises(Interrupted):
        run(request(model, start, tmp_path), StopAt(17))
    advance = Batch.advance

    def broken(self, steps):
        advance(self, steps)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Batch, "advance", broken)
    with pytest.raises(UserError, match=r"replica 1: the program failed at .* lower batch"):
        run(request(model, start, tmp_path))
    assert not list(tmp_path.rglob(OUTCOME))
    assert len(list(tmp_path.rglob("checkpoint.npz"))) == 3


def test_structures_that_torch_sim_does_not_know(model):
    atoms = structure()
    atoms.pbc = [True, True, False]
    with pytest.raises(UserError, match="set engine: ase"):
        Batch(load_batch_model(model, "cpu"), [atoms], Settings())


def test_isolated_molecules(model):
    """Without a cell, too."""
    atoms = thermal(structure(), 1)
    atoms.set_cell(None)
    atoms.pbc = False
    batch = Batch(load_batch_model(model, "cpu"), [atoms, atoms], Settings(thermostat="none"))
    atoms.calc = load_calculator(model)
    engine = AseEngine(atoms, Settings(thermostat="none"))
    for moving in (*batch.systems, engine):
        moving.start(0, Stage(100, 100, 10), 0)
    batch.advance(5)
    engine.advance(5)
    for system in batch.systems:
        np.testing.assert_allclose(system.read()[0].positions, atoms.positions, atol=1e-6)
