"""Trajectories of a generated dataset: random starts, labels, failures, interruptions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from ase import Atoms, units
from ase.build import bulk, graphene
from ase.calculators.emt import EMT
from ase.io import read, write
from ase.neighborlist import neighbor_list

from pretraining.dynamics.engines import Frame
from pretraining.dynamics.generate import (
    RELAXED,
    Request,
    generate,
    random_cell,
    relax_overlaps,
    runaway_monitor,
)
from pretraining.dynamics.summary import CLASSES, as_markdown, coordination, summarise
from pretraining.figures.dynamics import structures_figure
from pretraining.labels.evaluate import make_calculator
from pretraining.runtime.errors import UserError
from pretraining.study.generation import LAMMPSLIB, Stage, Trajectory
from pretraining.study.sources import Source, load_source

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "workflow" / "scripts" / "generate.py"
DEBIAN_PYTHON = "/usr/bin/python3"
EMT_SOURCE = Source("emt", calculator="ase.calculators.emt.EMT")
COPPER = {
    "dataset": "copper",
    "source": "emt",
    "composition": {"Cu": 1},
    "atoms": 8,
    "seed": 42,
    "min_distance": 1.6,
    "stages": [
        {"temperature": 3000, "ps": 0.2},
        {"from": 3000, "to": "anneal", "ps": 0.1},
        {"temperature": "anneal", "ps": 0.2},
    ],
    "frame_every_ps": 0.1,
    "timestep_fs": 2.0,
    "thermostat": "nose-hoover",
    "damping_fs": 25.0,
    "engine": "auto",
    "clash_distance": 0.5,
}
RUN = Trajectory(density=7.5, anneal=600, replica=1)


def request(folder: Path, source: Source = EMT_SOURCE, run: Trajectory = RUN, **changes) -> Request:
    protocol = {**COPPER, "source": source.name, **changes}
    paths = folder / f"{run.name}.extxyz", folder / f"{run.name}.csv"
    return Request(source, {"Cu": 0.5, "C": 0.0}, protocol, run, *paths)


# ---------------------------------------------------------------- random cells


@pytest.mark.parametrize("density", [1.0, 3.5])
def test_random_cells_have_the_density_and_keep_the_distance(density):
    atoms = random_cell({"C": 1}, 200, density, 1.0, np.random.default_rng(1))
    grams = atoms.get_masses().sum() / units._Nav
    assert grams / (atoms.get_volume() * 1e-24) == pytest.approx(density, rel=1e-12)
    distances = neighbor_list("d", atoms, 1.3)
    # Images count too, and the spheres do touch.
    assert len(distances) and distances.min() >= 1.0
    assert atoms.pbc.all() and (atoms.cell.angles() == 90).all()
    scaled = atoms.get_scaled_positions()
    assert (scaled >= 0).all() and (scaled < 1).all()
    assert np.histogram(scaled.ravel(), 4, (0, 1))[0].min() > 100


def test_random_cells_of_a_compound():
    atoms = random_cell({"Si": 1, "O": 2}, 30, 2.2, 1.0, np.random.default_rng(1))
    assert atoms.get_chemical_formula() == "O20Si10"
    grams = atoms.get_masses().sum() / units._Nav
    assert grams / (atoms.get_volume() * 1e-24) == pytest.approx(2.2, rel=1e-12)


def test_a_cell_without_room_is_one_line():
    with pytest.raises(UserError, match="no room for atom .* lower min_distance"):
        random_cell({"C": 1}, 30, 3.5, 1.9, np.random.default_rng(1))
    with pytest.raises(UserError, match="has an edge of"):
        random_cell({"C": 1}, 2, 3.5, 3.0, np.random.default_rng(1))


def test_overlaps_are_relaxed_and_no_further():
    source = load_source(ROOT / "config" / "demo.yaml", "lcbop_lammps")
    atoms = random_cell({"C": 1}, 64, 3.5, 1.0, np.random.default_rng(1))
    start = atoms.positions.copy()
    try:
        atoms.calc = make_calculator(source)
    except UserError as error:
        pytest.skip(str(error))
    assert np.abs(atoms.get_forces()).max() > 50
    steps = relax_overlaps(atoms)
    forces = np.linalg.norm(atoms.get_forces(), axis=1)
    assert 0.3 * RELAXED < forces.max() <= RELAXED
    assert np.linalg.norm(atoms.positions - start, axis=1).max() <= 0.1 * steps + 1e-9
    assert steps < 100


# ---------------------------------------------------------------- trajectories


def test_a_trajectory_and_its_labels(tmp_path):
    generate(request(tmp_path))
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv", ".extxyz", ".json"]
    frames = read(tmp_path / f"{RUN.name}.extxyz", ":")
    assert [atoms.info["time"] for atoms in frames] == [0, 0.1, 0.2, 0.3, 0.4, 0.5]
    for atoms in frames:
        assert atoms.info["run_id"] == RUN.name
        assert (atoms.info["density"], atoms.info["anneal_T"]) == (7.5, 600)
        copy = atoms.copy()
        copy.calc = EMT()
        # Relative to isolated atoms, of which the reference says 0.5 eV each.
        assert atoms.info["emt_energy"] == pytest.approx(copy.get_potential_energy() - 4, abs=1e-5)
        assert atoms.arrays["emt_force"] == pytest.approx(copy.get_forces(), abs=1e-5)
        assert atoms.calc is None
    log = pd.read_csv(tmp_path / f"{RUN.name}.csv")
    assert log["target_k"].tolist() == [3000, 3000, 3000, 600, 600, 600]
    sums = log["potential_ev"] + log["kinetic_ev"]
    assert log["total_ev"].to_numpy() == pytest.approx(sums.to_numpy(), abs=1e-7)
    freedom = 3 * 8 - 3
    kelvin = 2 * log["kinetic_ev"] / (freedom * units.kB)
    assert log["temperature_k"].to_numpy() == pytest.approx(kelvin.to_numpy(), rel=1e-6)


def test_random_numbers_belong_to_the_trajectory(tmp_path):
    found = {}
    cases = {
        "first": (RUN, {}),
        "again": (RUN, {}),
        "replica": (Trajectory(7.5, 600, 2), {}),
        "seed": (RUN, {"seed": 43}),
        "dataset": (RUN, {"dataset": "bronze"}),
    }
    for name, (run, changes) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        generate(request(folder, run=run, **changes))
        found[name] = (folder / f"{run.name}.extxyz").read_bytes()
    assert found["first"] == found["again"]
    starts = {name: read(tmp_path / name / f"{cases[name][0].name}.extxyz", 0) for name in found}
    for name in ("replica", "seed", "dataset"):
        assert np.abs(starts[name].positions - starts["first"].positions).max() > 0.5


def test_a_protocol_without_anneal_temperature(tmp_path):
    run = Trajectory(7.5, None, 1)
    generate(request(tmp_path, run=run, stages=[{"temperature": 500, "ps": 0.2}]))
    frames = read(tmp_path / "density~7.5_replica~1.extxyz", ":")
    assert len(frames) == 3 and "anneal_T" not in frames[0].info


# ---------------------------------------------------------------- failures

POTENTIALS = '''
import numpy as np
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

class Hot(EMT):
    """Pushes every atom along its way."""
    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["forces"] = self.results["forces"] + 500 * np.sign(self.atoms.get_momenta())

class Trap(Calculator):
    """Pulls all atoms to one place."""
    implemented_properties = ["energy", "forces"]
    def calculate(self, atoms, *args):
        away = atoms.positions - atoms.cell.sum(axis=0) / 2
        self.results = {"energy": 0.1 * (away**2).sum(), "forces": -0.2 * away}
'''


@pytest.mark.parametrize(
    ("potential", "reason"),
    [("Hot", "the temperature is"), ("Trap", "two atoms are")],
)
def test_a_failing_trajectory_names_run_time_and_reason(tmp_path, monkeypatch, potential, reason):
    (tmp_path / "made_to_fail.py").write_text(POTENTIALS)
    monkeypatch.syspath_prepend(tmp_path)
    source = Source("bad", calculator=f"made_to_fail.{potential}")
    out = tmp_path / "out"
    out.mkdir()
    weak = {"thermostat": "langevin", "damping_fs": 1000.0}
    stages = [{"temperature": 300, "ps": 2}]
    with pytest.raises(UserError, match=reason) as error:
        generate(request(out, source, stages=stages, **weak))
    message = str(error.value)
    assert message.startswith(f"{RUN.name} failed at 0.") or " failed at 1." in message
    assert "generate.exclude" in message and "\n" not in message
    # The frames can be looked at; the trajectory itself is not there.
    assert sorted(path.name for path in out.iterdir()) == [
        f"{RUN.name}.failed.csv",
        f"{RUN.name}.failed.extxyz",
    ]
    assert len(read(out / f"{RUN.name}.failed.extxyz", ":")) >= 2


PASSING = """
import os
from ase.calculators.calculator import Calculator

class Passing(Calculator):
    \"\"\"A weak spring to the middle of the cell, sometimes out of reach.\"\"\"
    implemented_properties = ["energy", "forces"]
    calls = 0
    def calculate(self, atoms, *args):
        Passing.calls += 1
        if Passing.calls > 150 and "AWAY" in os.environ:
            raise RuntimeError("no licence is free")
        apart = atoms.positions - atoms.cell.sum(axis=0) / 2
        self.results = {"energy": 0.001 * (apart**2).sum(), "forces": -0.002 * apart}
"""


def test_a_fault_of_the_source_that_passes_loses_nothing(tmp_path, monkeypatch):
    (tmp_path / "passing.py").write_text(PASSING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AWAY", "")
    source = Source("far", calculator="passing.Passing")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"thermostat": "none", "frame_every_ps": 0.02, "clash_distance": 0.0}
    with pytest.raises(UserError, match=r"source 'far' failed at .*no licence.*run it again"):
        generate(request(parts, source, **options), checkpoint_seconds=0)
    # Nothing looks like a trajectory that is beyond use; its state waits.
    assert [path.name for path in parts.iterdir()] == [f"{RUN.name}.state"]
    monkeypatch.delenv("AWAY")
    generate(request(parts, source, **options))
    generate(request(whole, source, **options))
    assert sorted(path.suffix for path in parts.iterdir()) == [".csv", ".extxyz", ".json"]
    for path in whole.iterdir():
        assert path.read_bytes() == (parts / path.name).read_bytes()


def test_heat_is_a_failure_but_not_that_of_the_random_cell():
    steps = [Stage(2000, 2000, 100), Stage(2000, 300, 100)]
    fails = runaway_monitor({"clash_distance": 1.0}, steps)

    def at(step, kelvin, distance=2.0):
        pair = Atoms("C2", positions=[[0, 0, 0], [0, 0, distance]])
        forces = np.zeros((2, 3))
        return fails(Frame(step, step / 1000, pair, forces, 0.0, 0.0, kelvin, 300.0))

    assert at(100, 20_000) is None and at(101, 5_900) is None
    assert at(101, 6_100) == "the temperature is 6100 K, the hottest stage 2000 K"
    assert "60000 K" in at(50, 60_000) and at(150, np.nan) is not None
    assert at(150, 300, 0.9) == "two atoms are 0.90 Å from each other"


def test_a_source_that_cannot_evaluate_the_start(tmp_path):
    silicon = replace(request(tmp_path, composition={"Si": 1}), reference={"Si": 0.0})
    with pytest.raises(UserError, match="source 'emt' cannot evaluate the random cell .*Si"):
        generate(silicon)


def test_an_argument_that_names_an_output_is_refused(tmp_path):
    """At the next start, the trajectory would be that of another source."""
    bad = Source("bad", calculator="troublemakers.Troublemaker", kwargs={"log": f"{tmp_path}/log"})
    with pytest.raises(UserError, match="source 'bad' changes log, .* neutral_kwargs"):
        generate(request(tmp_path, bad, replace(RUN, density=1.0), composition={"C": 1}))


def test_a_missing_reference(tmp_path):
    with pytest.raises(UserError, match="no isolated-atom energy of Ni"):
        generate(request(tmp_path, composition={"Ni": 1}))


# ---------------------------------------------------------------- the program


def command(folder: Path, out: str, *arguments, python: str = sys.executable, **changes):
    """Command line of generate.py, and the trajectory that it makes."""
    config = folder / f"{out}.yaml"
    entry = {"calculator": "ase.calculators.emt.EMT", **changes.pop("entry", {})}
    content = {"generate": {**COPPER, **changes}, "sources": {"emt": entry}}
    config.write_text(yaml.safe_dump(content))
    (folder / "reference.json").write_text('{"Cu": 0.5}')
    frames = folder / f"{out}.extxyz"
    line = [
        *(python, str(SCRIPT), "--config", str(config), "--density", "7.5", "--anneal", "600"),
        *("--reference", str(folder / "reference.json"), "--out", str(frames)),
        *("--log", str(folder / f"{out}.csv"), *map(str, arguments)),
    ]
    return line, frames


def wait_for_frames(job: subprocess.Popen, state: Path, count: int) -> None:
    """Wait until a job has made so many frames and saved what it goes on from."""
    deadline = time.monotonic() + 60
    frames = state / "frames.extxyz"
    while not (
        (state / "checkpoint.npz").exists() and frames.read_bytes().count(b"Lattice") >= count
    ):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


# Driven from Python by a calculator that keeps nothing from step to step.
PAIRS = {
    "calculator": LAMMPSLIB,
    "preload": ["{prefix}/lib/libmpi.so.12"],
    "kwargs": {
        "lmpcmds": ["pair_style lj/cut 5.0", "pair_coeff * * 0.4 2.3"],
        "atom_types": {"Cu": 1},
    },
}
LONG = {"stages": [{"temperature": 1500, "ps": 1.2}], "frame_every_ps": 0.01}


def test_killed_and_stopped_programs_go_on(tmp_path):
    line, whole = command(tmp_path, "whole", entry=PAIRS, engine="ase", **LONG)
    assert subprocess.run(line, capture_output=True, timeout=100).returncode == 0
    line, parts = command(
        tmp_path, "parts", "--checkpoint-seconds", "0.05", entry=PAIRS, engine="ase", **LONG
    )
    state = tmp_path / "parts.state"
    for number, frames in ((signal.SIGKILL, 20), (signal.SIGTERM, 60)):
        job = subprocess.Popen(line, stderr=subprocess.PIPE, text=True)
        wait_for_frames(job, state, frames)
        os.kill(job.pid, number)
        _, said = job.communicate(timeout=60)
        assert job.returncode == (-9 if number == signal.SIGKILL else 75)
        assert not parts.exists() and state.is_dir()
    assert "stopped by SIGTERM after" in said and "run the same command to resume" in said
    done = subprocess.run(line, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "resuming after" in done.stderr
    assert parts.read_bytes() == whole.read_bytes()
    assert (tmp_path / "parts.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not state.exists()


@pytest.mark.parametrize("thermostat", ["nose-hoover", "langevin"])
def test_the_interpreter_of_a_source(tmp_path, thermostat):
    """ASE 3.22, the oldest that a source may bring, gives the same trajectory."""
    probe = subprocess.run([DEBIAN_PYTHON, "-c", "import ase, yaml"], capture_output=True)
    if probe.returncode:
        pytest.skip(f"{DEBIAN_PYTHON} has no ase and yaml")
    outs = []
    for python in (sys.executable, DEBIAN_PYTHON):
        line, frames = command(tmp_path, f"o{len(outs)}", thermostat=thermostat)
        done = subprocess.run([python, *line[1:]], capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr
        outs.append(read(frames, ":"))
    for new, old in zip(*outs, strict=True):
        assert new.positions == pytest.approx(old.positions, abs=1e-6)
        assert new.info["emt_energy"] == pytest.approx(old.info["emt_energy"], abs=1e-6)


# ---------------------------------------------------------------- what they ended in


def test_coordination():
    diamond = bulk("C", "diamond", a=3.57, cubic=True)
    assert coordination(diamond, 1.85).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    sheet = graphene(a=2.46, vacuum=8)
    sheet.pbc = True
    assert coordination(sheet, 1.85).tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    atom = Atoms("C", positions=[[0.5, 0.5, 13.0]])
    assert coordination(sheet + atom, 1.85) * 3 == pytest.approx([1, 0, 0, 2, 0, 0, 0, 0, 0])
    crystal = bulk("Cu", cubic=True)
    assert coordination(crystal).tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]
    del diamond[0]
    assert coordination(diamond, 1.85) * 7 == pytest.approx([0, 0, 0, 4, 3, 0, 0, 0, 0])


def ended(folder: Path, anneals) -> pd.DataFrame:
    """A table of trajectories that ended in diamond or graphene."""
    paths = []
    for density, atoms in ((2.0, graphene(a=2.46, vacuum=8)), (3.5, bulk("C", "diamond", a=3.57))):
        for anneal in anneals:
            atoms.info = {"run_id": f"{density}-{anneal}", "density": density, "time": 0.2}
            if anneal:
                atoms.info["anneal_T"] = anneal
            atoms.info["x_energy"] = -8.0 * len(atoms) - density
            paths.append(folder / f"{atoms.info['run_id']}.extxyz")
            first = atoms.copy()
            first.info["x_energy"] = 100.0
            write(paths[-1], [first, atoms])
            paths[-1].with_suffix(".csv").write_text("time_ps,temperature_k\n0,900\n0.2,310\n")
    return summarise(paths, "x", 1.85)


def test_the_table_is_of_the_last_frames(tmp_path):
    table = ended(tmp_path, [2000, 3000])
    assert table["run_id"].tolist() == ["2.0-2000", "2.0-3000", "3.5-2000", "3.5-3000"]
    assert table["energy_ev_per_atom"].tolist() == [-9.0, -9.0, -9.75, -9.75]
    assert table["3"].tolist() == [1, 1, 0, 0] and table["4"].tolist() == [0, 0, 1, 1]
    assert set(CLASSES) <= set(table)
    assert (table["structures"] == 2).all() and (table["temperature_k"] == 310).all()
    page = " ".join(as_markdown(table).split())
    assert "4 trajectories (8 structures)" in page and "| 3.5 | 2 | -9.750 | 0.0 |" in page
    with pytest.raises(UserError, match="no other_energy"):
        summarise([tmp_path / "2.0-2000.extxyz"], "other", 1.85)


@pytest.mark.parametrize("anneals", [[None], [2000, 3000], list(range(2000, 4100, 100))])
def test_the_figure_shows_the_table(tmp_path, anneals):
    figure = structures_figure(ended(tmp_path, anneals))
    left, right = figure.axes[:2]
    drawn = [tuple(xy) for line in left.lines for xy in np.array(line.get_data()).T]
    drawn += [tuple(xy) for points in left.collections for xy in points.get_offsets().tolist()]
    assert sorted(set(drawn)) == [(2.0, -9.0), (3.5, -9.75)]
    assert len(drawn) == 2 * len(anneals)
    curves = [container.lines[0].get_ydata().tolist() for container in right.containers]
    # Only the classes that occur.
    assert curves == [[100, 0], [0, 100]]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["3", "4"]
    assert (len(figure.axes) == 3) == (len(anneals) > 6)  # a colour bar
    if len(anneals) == 2:
        names = [text.get_text() for text in left.get_legend().get_texts()]
        assert names == ["2,000 K", "3,000 K"]


def test_the_state_of_another_protocol_is_not_used(tmp_path):
    line, _ = command(tmp_path, "a", "--checkpoint-seconds", "0.01", **LONG)
    job = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    wait_for_frames(job, tmp_path / "a.state", 10)
    os.kill(job.pid, signal.SIGTERM)
    assert job.wait(60) == 75
    assert json.loads((tmp_path / "a.state/identity.json").read_text())["run"] == RUN.name
    line, frames = command(tmp_path, "a", **LONG | {"damping_fs": 50.0})
    done = subprocess.run(line, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0
    assert "starting afresh: the checkpoint is of another trajectory (protocol" in done.stderr
    assert len(read(frames, ":")) == 121
