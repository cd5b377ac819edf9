"""The dynamics: two engines, thermostats, schedules, and what survives an interruption."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.geometry import find_mic
from ase.io import read

from pretraining.dynamics.engines import NoseHooverChain, Settings, thermalise
from pretraining.dynamics.generate import ENGINES
from pretraining.dynamics.lammps_engine import ARGUMENTS, engine_of
from pretraining.dynamics.recorder import Recorder
from pretraining.dynamics.trajectory import Trajectory, simulate
from pretraining.labels.evaluate import make_calculator
from pretraining.runtime.errors import UserError
from pretraining.runtime.stop import Interrupted
from pretraining.study.generation import LAMMPSLIB, Stage
from pretraining.study.sources import Source

MPI = ["{prefix}/lib/libmpi.so.12"]
ARGON = Source(
    "argon",
    calculator=LAMMPSLIB,
    preload=MPI,
    kwargs={
        "lmpcmds": ["pair_style lj/cut 8.0", "pair_modify shift yes", "pair_coeff * * 0.0104 3.4"],
        "atom_types": {"Ar": 1},
        **ARGUMENTS,
    },
)
CARBON = Source(
    "carbon",
    calculator=LAMMPSLIB,
    preload=MPI,
    kwargs={
        "lmpcmds": [
            "pair_style lcbop",
            'pair_coeff * * "{package:lammps}/share/lammps/potentials/C.lcbop" C',
        ],
        "atom_types": {"C": 1},
        **ARGUMENTS,
    },
)


def start(source: Source, kelvin: float, seed: int = 1):
    """A rattled crystal with momenta and the source's calculator."""
    if source is CARBON:
        atoms = bulk("C", "diamond", a=3.6, cubic=True).repeat(2)
    else:
        atoms = bulk("Ar", "fcc", a=5.4, cubic=True).repeat(3)
    # A cell that is not LAMMPS' own, so that directions must be turned.
    atoms.rotate(30, "z", rotate_cell=True)
    atoms.rattle(0.05, seed=3)
    thermalise(atoms, kelvin, np.random.default_rng(seed))
    try:
        atoms.calc = make_calculator(source)
    except UserError as error:
        pytest.skip(str(error))
    return atoms


def simulated(engine, stages, every, settings, recorder, monitor=lambda frame: None, stop=None):
    """Run one trajectory; return its outcome."""
    moving = Trajectory(engine, stages, every, settings, recorder, monitor)
    simulate([moving], engine.advance, stop)
    return moving.outcome


def trajectory(folder, engine, stages, settings, every=50, **kwargs):
    """Run to the end; return how it ended, the frames and the log."""
    recorder = Recorder(folder / "state", {"seed": settings.seed}, "run")
    outcome = simulated(engine, stages, every, settings, recorder, **kwargs)
    frames, log = folder / "frames.extxyz", folder / "log.csv"
    recorder.finish(frames, log)
    assert not (folder / "state").exists()
    return outcome, read(frames, ":"), pd.read_csv(log)


def separation(first, second) -> float:
    """Largest distance of an atom from itself in another frame, Å."""
    shift, _ = find_mic(first.positions - second.positions, first.cell, True)
    return float(np.abs(shift).max())


# ---------------------------------------------------------------- momenta


def test_momenta_are_thermal_and_at_rest():
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True).repeat(5)
    thermalise(atoms, 500, np.random.default_rng(1))
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-10
    energies = atoms.get_momenta() ** 2 / (2 * atoms.get_masses()[:, None])
    for symbol in ("Si", "C"):  # equipartition
        mine = energies[atoms.symbols == symbol].mean()
        assert mine == pytest.approx(units.kB * 500 / 2, rel=0.1)
    other = atoms.copy()
    thermalise(other, 500, np.random.default_rng(2))
    assert np.abs(other.get_momenta() - atoms.get_momenta()).max() > 1


# ---------------------------------------------------------------- equations of motion


@pytest.mark.parametrize("engine", ENGINES)
def test_constant_energy(tmp_path, engine):
    """The error of velocity Verlet does not grow, and falls with the square of the time step."""
    spread = []
    for timestep in (1.0, 0.5):
        settings = Settings(timestep, thermostat="none")
        moving = ENGINES[engine](start(CARBON, 1500), settings)
        steps = round(150 / timestep)
        _, _, log = trajectory(tmp_path, moving, [Stage(1500, 1500, steps)], settings, every=5)
        assert log["kinetic_ev"].std() > 0.5
        total = log["total_ev"]
        assert total.iloc[-10:].mean() == pytest.approx(total.iloc[:10].mean(), abs=0.02)
        spread.append(total.std())
    assert spread[0] < 0.02
    assert spread[0] / spread[1] > 3


def test_engines_give_the_same_forces_and_the_same_trajectory(tmp_path):
    settings = Settings(1.0, "nose-hoover", damping_fs=40)
    # Two stages: a ramp, then a thermostat that starts anew.
    stages = [Stage(2000, 4000, 60), Stage(1000, 1000, 60)]
    found = {}
    for engine in ENGINES:
        moving = ENGINES[engine](start(CARBON, 2000), settings)
        _, forces = moving.read()
        (tmp_path / engine).mkdir()
        outcome, frames, log = trajectory(tmp_path / engine, moving, stages, settings, every=30)
        assert outcome.reason is None and outcome.time_ps == pytest.approx(0.12)
        found[engine] = forces, frames, log
    (forces, frames, log), (others_forces, others_frames, others_log) = found.values()
    assert np.abs(forces).max() > 1
    assert forces == pytest.approx(others_forces, abs=1e-8)
    assert len(frames) == len(others_frames) == 5
    assert separation(frames[0], frames[-1]) > 0.1
    # LAMMPS' units differ from ASE's in the seventh digit.
    assert max(map(separation, frames, others_frames)) < 1e-5
    assert log["temperature_k"].to_numpy() == pytest.approx(others_log["temperature_k"], rel=1e-4)
    assert log["target_k"].tolist() == [2000, 3000, 4000, 1000, 1000]


def test_the_thermostat_is_that_of_ase():
    """An independent implementation, where ASE has one, gives the same trajectory."""
    thermostat = pytest.importorskip("ase.md.nose_hoover_chain")
    atoms = {}
    for name in ("ours", "theirs"):
        atoms[name] = bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2)
        atoms[name].rattle(0.05, seed=1)
        thermalise(atoms[name], 120, np.random.default_rng(1))
        atoms[name].calc = LennardJones(epsilon=0.0104, sigma=3.4, rc=8.0, smooth=True)
    settings = Settings(1.0, "nose-hoover", damping_fs=50)
    engine = ENGINES["ase"](atoms["ours"], settings)
    # ASE counts the centre of mass among the degrees of freedom.
    engine.chain = NoseHooverChain(3 * len(atoms["ours"]), 50 * units.fs)
    engine.start(0, Stage(120, 120, 100), 0)
    engine.advance(100)
    dynamics = thermostat.NoseHooverChainNVT(
        atoms["theirs"], units.fs, temperature_K=120, tdamp=50 * units.fs
    )
    dynamics.run(100)
    assert separation(atoms["ours"], atoms["theirs"]) < 1e-5


@pytest.mark.parametrize("thermostat", ["nose-hoover", "langevin"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_temperature_follows_the_schedule(tmp_path, engine, thermostat):
    settings = Settings(5.0, thermostat, damping_fs=100, seed=4)
    atoms = start(ARGON, 60)
    stages = [Stage(60, 60, 500), Stage(60, 20, 500), Stage(20, 20, 500)]
    moving = ENGINES[engine](atoms, settings)
    _, frames, log = trajectory(tmp_path, moving, stages, settings, every=10)
    assert len(frames) == 151
    assert log["time_ps"].iloc[[0, 50, 150]].tolist() == [0, 2.5, 7.5]
    assert log["target_k"].iloc[[50, 75, 100]].tolist() == [60, 40, 20]
    measured = log["temperature_k"]
    assert measured[10:51].mean() == pytest.approx(60, rel=0.07)
    assert measured[60:91].mean() == pytest.approx(log["target_k"][60:91].mean(), rel=0.07)
    assert measured[110:].mean() == pytest.approx(20, rel=0.07)
    assert measured[110:].std() > 0.3  # and it fluctuates
    momentum = np.abs(moving.read()[0].get_momenta().sum(axis=0)).max()
    assert (momentum < 1e-6) == (thermostat == "nose-hoover")


# ---------------------------------------------------------------- interruption


class StopAt:
    """A stop request that comes at a frame."""

    signal, deferred = "SIGTERM", False

    def __init__(self, time_ps: float) -> None:
        self.time_ps, self.asked = time_ps, False

    def __call__(self, frame) -> None:
        self.asked |= frame.time_ps >= self.time_ps

    def __bool__(self) -> bool:
        return self.asked

    def listen(self) -> None:
        pass


@pytest.mark.parametrize("thermostat", ["nose-hoover", "langevin"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_resumed_trajectory_is_the_uninterrupted_one(tmp_path, capsys, engine, thermostat):
    settings = Settings(2.0, thermostat, damping_fs=50, seed=4)
    stages = [Stage(60, 30, 125), Stage(30, 90, 125)]

    def moving():
        return ENGINES[engine](start(ARGON, 60), settings)

    (tmp_path / "whole").mkdir()
    trajectory(tmp_path / "whole", moving(), stages, settings, every=25)
    folder = tmp_path / "parts"
    folder.mkdir()
    for time_ps in (0.1, 0.25, 0.4):  # within the stages and between them
        recorder = Recorder(folder / "state", {"seed": 4}, "run")
        stop = StopAt(time_ps)
        with pytest.raises(Interrupted, match=rf"SIGTERM after {time_ps:g} ps"):
            simulated(moving(), stages, 25, settings, recorder, stop, stop)
        # What came after the last checkpoint is made again.
        with open(folder / "state/frames.extxyz", "a") as handle:
            handle.write("108\ngarbage")
        with open(folder / "state/log.csv", "a") as handle:
            handle.write("0.25,")
    trajectory(folder, moving(), stages, settings, every=25)
    assert "resuming after 50 steps" in capsys.readouterr().err
    whole, parts = (
        [(tmp_path / name / file).read_bytes() for file in ("frames.extxyz", "log.csv")]
        for name in ("whole", "parts")
    )
    if engine == "ase":
        assert whole == parts
        return
    # LAMMPS sums in another order after a restart.
    for first, second in zip(*(read(io.StringIO(text[0].decode()), ":", format="extxyz")
                               for text in (whole, parts)), strict=True):  # fmt: skip
        assert separation(first, second) < 1e-7
    first, second = (pd.read_csv(io.BytesIO(text[1])) for text in (whole, parts))
    assert len(first) == 11 and first.to_numpy() == pytest.approx(second.to_numpy(), rel=1e-8)


def test_the_state_of_another_trajectory_is_not_used(tmp_path, capsys):
    settings, stages = Settings(2.0), [Stage(60, 60, 100)]
    recorder = Recorder(tmp_path / "state", {"density": 1.0}, "run")
    stop = StopAt(0.1)
    with pytest.raises(Interrupted):
        simulated(ENGINES["ase"](start(ARGON, 60), settings), stages, 25, settings, recorder,
                 stop, stop)  # fmt: skip
    assert Recorder(tmp_path / "state", {"density": 1.0}, "run").resumed
    assert not Recorder(tmp_path / "state", {"density": 1.1}, "run").resumed
    assert "density has changed" in capsys.readouterr().err


def test_an_unusable_checkpoint_is_said_and_left(tmp_path, capsys):
    settings, stages = Settings(2.0), [Stage(60, 60, 100)]
    harms = (
        ("checkpoint.npz", lambda content: b"not this"),
        ("frames.extxyz", lambda content: b"not this"),
        ("checkpoint.npz", lambda content: content.replace(b"step", b"stop", 1)),
        ("checkpoint.npz", lambda content: content[:300] + b"!" + content[301:]),
        ("frames.extxyz", lambda content: content.replace(b"0.1", b"0.2", 1)),
        ("log.csv", lambda content: content.replace(b"60", b"61", 1)),
    )
    for name, harm in harms:
        recorder = Recorder(tmp_path / "state", {}, "run")
        stop = StopAt(0.1)
        with pytest.raises(Interrupted):
            simulated(ENGINES["ase"](start(ARGON, 60), settings), stages, 25, settings,
                     recorder, stop, stop)  # fmt: skip
        content = (tmp_path / "state" / name).read_bytes()
        assert harm(content) != content
        (tmp_path / "state" / name).write_bytes(harm(content))
        recorder = Recorder(tmp_path / "state", {}, "run")
        assert not recorder.resumed
        assert "cannot be used" in capsys.readouterr().err
    _, frames, log = trajectory(
        tmp_path, ENGINES["ase"](start(ARGON, 60), settings), stages, settings, every=25
    )
    assert len(frames) == len(log) == 5


# ---------------------------------------------------------------- failure


def test_a_monitor_ends_the_trajectory(tmp_path):
    settings = Settings(2.0)
    moving = ENGINES["ase"](start(ARGON, 60), settings)
    outcome, frames, log = trajectory(
        tmp_path,
        moving,
        [Stage(60, 60, 100)],
        settings,
        every=10,
        monitor=lambda frame: "too late" if frame.time_ps > 0.05 else None,
    )
    assert outcome.reason == "too late" and outcome.time_ps == pytest.approx(0.06)
    # The frame that it did not like is there to be looked at.
    assert len(frames) == len(log) == 4


@pytest.mark.parametrize(
    ("error", "reason"), [(None, "the potential energy is nan"), ("lost", "RuntimeError: lost")]
)
def test_a_failing_potential_ends_the_trajectory(tmp_path, error, reason):
    class Failing(LennardJones):
        calls = 0

        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.calls += 1
            if self.calls > 30:
                if error:
                    raise RuntimeError(error)
                self.results["energy"] = self.results["free_energy"] = np.nan

    settings = Settings(2.0)
    atoms = start(ARGON, 60)
    atoms.calc = Failing(epsilon=0.0104, sigma=3.4)
    moving = ENGINES["ase"](atoms, settings)
    outcome, frames, _ = trajectory(tmp_path, moving, [Stage(60, 60, 100)], settings, every=20)
    assert outcome.reason == reason
    assert 0.05 < outcome.time_ps < 0.07 and len(frames) == 2


def test_lost_atoms_end_the_trajectory_in_lammps(tmp_path):
    """Steps of a picosecond: LAMMPS' own error comes back as the reason."""
    settings = Settings(5000.0, "none")
    moving = ENGINES["lammps"](start(ARGON, 60), settings)
    outcome, _, _ = trajectory(tmp_path, moving, [Stage(60, 60, 1000)], settings, every=100)
    assert outcome.reason


# ---------------------------------------------------------------- which engine


def test_lammps_drives_its_pair_styles_alone():
    assert engine_of(CARBON, "auto") == "lammps"
    assert engine_of(CARBON, "ase") == "ase"
    other = Source("emt", calculator="ase.calculators.emt.EMT")
    assert engine_of(other, "auto") == "ase"
    with pytest.raises(UserError, match="'emt' cannot be driven by LAMMPS"):
        engine_of(other, "lammps")
    special = Source("x", calculator=LAMMPSLIB, kwargs={"lmpcmds": [], "boundary": False})
    assert engine_of(special, "auto") == "ase"


def test_lammps_needs_a_periodic_cell():
    atoms = start(ARGON, 60)
    atoms.pbc = [True, True, False]
    with pytest.raises(UserError, match="set engine: ase"):
        ENGINES["lammps"](atoms, Settings())


def test_unknown_thermostat():
    with pytest.raises(UserError, match="'berendsen' is none of"):
        Settings(thermostat="berendsen")
