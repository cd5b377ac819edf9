"""Labelling: references, forces, failures, resume, and what the labelled files hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from interpreters import interpreter
from pretraining.labels import evaluate as evaluation
from pretraining.labels.evaluate import VACUUM, Evaluator, isolated_energies, make_calculator
from pretraining.labels.label import label, read_structures
from pretraining.labels.pool import evaluate_all
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml
from pretraining.study.sources import Source, expand, load_source
from scripts import run_script

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "workflow" / "scripts" / "label.py"
SOURCES = ROOT / "config" / "demo.yaml"
DEBIAN_PYTHON = "/usr/bin/python3"
# A pair potential that ASE brings along in every version.
LJ = {"calculator": "ase.calculators.lj.LennardJones", "kwargs": {"sigma": 2.5, "rc": 6.0}}


def real(name: str) -> Source:
    """A source of the demo, or a skipped test where its code is not installed."""
    source = load_source(SOURCES, name)
    try:
        make_calculator(source)
    except UserError as error:
        pytest.skip(str(error))
    return source


def argon(count: int, seed: int = 0) -> list[Atoms]:
    """Rattled argon crystals with info and arrays of their own."""
    frames = []
    for number in range(count):
        atoms = bulk("Ar", "fcc", a=4.1, cubic=True)
        atoms.rattle(0.1, seed=seed + number)
        atoms.info.update(run_id=f"run-{number // 3}", time=0.5 * number, config_type="liquid")
        atoms.arrays["tag_of_mine"] = np.arange(len(atoms))
        frames.append(atoms)
    return frames


def config_file(folder: Path, **entries) -> Path:
    """A configuration with these sources."""
    path = folder / "sources.yaml"
    path.write_text(yaml.safe_dump({"sources": entries}))
    return path


def command(config: Path, source: str, *arguments, python: str = sys.executable) -> list[str]:
    """Command line of label.py."""
    return [python, str(SCRIPT), "--config", str(config), "--source", source, *map(str, arguments)]


def run(*args, python: str = sys.executable) -> subprocess.CompletedProcess:
    """Run label.py to its end, in a process of its own only for another interpreter."""
    line = command(*args, python=python)
    if python == sys.executable:
        return run_script("label", *line[2:])
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


def numerical_force(evaluate: Evaluator, atoms: Atoms, atom: int, axis: int, step: float) -> float:
    """Central difference of the energy (eV/Å)."""
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[atom, axis] += sign * step
        energies.append(evaluate(moved)[0])
    return (energies[1] - energies[0]) / (2 * step)


# ---------------------------------------------------------------- the real sources


@pytest.mark.parametrize(
    "name, diamond",
    [("lcbop_lammps", -7.35), ("edip_lammps", -7.37), ("gap_demo", -8.9)],
)
def test_real_source_cohesion_and_forces(name, diamond):
    source = real(name)
    reference = isolated_energies(source, ["C"])
    evaluate = Evaluator(source)
    crystal = bulk("C", "diamond", a=3.55, cubic=True)
    energy, forces = evaluate(crystal)
    assert energy / 8 - reference["C"] == pytest.approx(diamond, abs=0.15)
    assert np.abs(forces).max() < 1e-6
    crystal.rattle(0.05, seed=3)
    _, forces = evaluate(crystal)
    assert np.abs(forces).max() > 0.5
    assert np.abs(forces.sum(axis=0)).max() < 1e-8
    for atom, axis in [(0, 0), (5, 2)]:
        numerical = numerical_force(evaluate, crystal, atom, axis, 1e-4)
        assert forces[atom, axis] == pytest.approx(numerical, abs=2e-4)


@pytest.mark.parametrize("name", ["lcbop_lammps", "edip_lammps", "gap_demo"])
def test_non_periodic_structures(name):
    """Clusters without a cell, or outside of theirs, have the energy they have in a wide cell."""
    evaluate = Evaluator(real(name))
    trimer = Atoms("C3", positions=[[0, 0, 0], [1.3, 0, 0], [2.5, 0.4, 0]])
    wide = trimer.copy()
    wide.center(vacuum=15)
    periodic = wide.copy()
    periodic.pbc = True
    outside = wide.copy()
    outside.positions -= 40
    energy, forces = evaluate(periodic)
    for atoms in (trimer, wide, outside):
        other_energy, other_forces = evaluate(atoms)
        assert other_energy == pytest.approx(energy, abs=1e-8)
        assert other_forces == pytest.approx(forces, abs=1e-7)
    slab = bulk("C", "diamond", a=3.55, cubic=True)
    slab.pbc = [True, True, False]
    energy, _ = evaluate(slab)
    slab.pbc = True
    slab.center(vacuum=10, axis=2)
    assert evaluate(slab)[0] == pytest.approx(energy, abs=1e-8)


@pytest.mark.parametrize("name", ["lcbop_lammps", "edip_lammps", "gap_demo"])
def test_calculator_is_reused_for_other_sizes(name):
    """Nothing of one structure leaks into the next."""
    source = real(name)
    small = bulk("C", "diamond", a=3.55)
    large = bulk("C", "diamond", a=3.6, cubic=True).repeat((2, 1, 1))
    large.rattle(0.05, seed=1)
    shared = Evaluator(source)
    sequence = [large, small, large]
    apart = [Evaluator(source)(atoms) for atoms in sequence]
    for atoms, (energy, forces) in zip(sequence, apart, strict=True):
        again_energy, again_forces = shared(atoms)
        assert again_energy == pytest.approx(energy, abs=1e-9)
        assert again_forces == pytest.approx(forces, abs=1e-8)


def has_gpaw() -> bool:
    """Whether Debian's interpreter has GPAW."""
    try:
        code = subprocess.run([DEBIAN_PYTHON, "-c", "import gpaw"], capture_output=True).returncode
    except OSError:
        return False
    return code == 0


def test_an_interpreter_that_is_not_there(tmp_path):
    entry = {"calculator": "ase.calculators.emt.EMT", "python": "/nowhere/python"}
    config = config_file(tmp_path, emt=entry)
    done = run(config, "emt", "--structures", tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.strip() == "error: source 'emt': no interpreter '/nowhere/python' here"


def test_another_interpreter_is_named(tmp_path):
    """The user runs the same line with the source's interpreter."""
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho another")
    other.chmod(0o755)
    config = config_file(
        tmp_path, emt={"calculator": "ase.calculators.emt.EMT", "python": str(other)}
    )
    done = run(config, "emt", "--structures", "in", "--out", "out")
    assert done.returncode == 1
    line = f"PYTHONPATH={SCRIPT.parents[1]} {other} {SCRIPT} --config {config} --source emt"
    line += " --structures in --out out"
    assert done.stderr.strip() == f"error: source 'emt' has its own interpreter: run `{line}`"


def test_gpaw_labels_in_its_own_interpreter(tmp_path):
    """Forces of a tiny DFT calculation are the derivative of the written energy."""
    if not has_gpaw():
        pytest.skip(f"{DEBIAN_PYTHON} has no gpaw")
    entry = yaml.safe_load(SOURCES.read_text())["sources"]["dft"]
    entry["kwargs"].update(mode={"name": "pw", "ecut": 250}, kpts=[1, 1, 1])
    entry["kwargs"]["convergence"] = {"density": 1e-6, "eigenstates": 1e-9}
    entry["isolated_atom"] = {"energies": {"C": -1.25}}
    config = config_file(tmp_path, dft=entry)
    frames = []
    for shift in (0.0, 0.01, -0.01):
        cell = [[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]]
        frames.append(Atoms("C2", positions=[[0, 0, 0], [1.0 + shift, 0.85, 0.9]], cell=cell))
        frames[-1].pbc = True
    write(tmp_path / "in.extxyz", frames)
    done = run(
        config, "dft", "--structures", tmp_path / "in.extxyz", "--out", tmp_path / "out.extxyz",
        "--provenance", tmp_path / "how.json", python=DEBIAN_PYTHON,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    middle, plus, minus = read(tmp_path / "out.extxyz", ":")
    numerical = (minus.info["dft_energy"] - plus.info["dft_energy"]) / 0.02
    assert middle.arrays["dft_force"][1, 0] == pytest.approx(numerical, abs=0.05)
    assert abs(numerical) > 1
    how = json.loads((tmp_path / "how.json").read_text())
    assert how["code"]["package"] == "gpaw" and how["code"]["version"]
    assert how["isolated_atoms_ev"] == {"C": -1.25}


def made(folder: Path, entry: dict, atoms: Atoms, python: str = sys.executable) -> dict:
    """Provenance of a structure that a source has labelled with a given interpreter."""
    config = config_file(folder, made={"isolated_atom": {"energies": {"C": 0.0}}, **entry})
    write(folder / "in.extxyz", atoms)
    done = run(
        config, "made", "--structures", folder / "in.extxyz", "--out", folder / "out.extxyz",
        "--provenance", folder / "how.json", python=python,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "how.json").read_text())


@pytest.mark.parametrize(
    "name, package, files",
    [
        ("lcbop_lammps", "lammps", ["C.lcbop"]),
        ("gap_demo", "quippy", [f"gap_demo.xml{s}" for s in ("", ".sparseX.demo1")]),
    ],
)
def test_provenance_names_code_and_potential_files(tmp_path, name, package, files):
    real(name)
    entry = yaml.safe_load(SOURCES.read_text())["sources"][name]
    found = made(tmp_path, entry, bulk("C", "diamond", a=3.55))
    assert set(files) <= set(found["parameter_files_sha256"])
    assert found["code"]["package"] == package
    assert re.match(r"\d+[.\d]*$", found["code"]["version"])
    assert found["isolated_atoms_ev"] == {"C": 0.0}
    for place in (sys.prefix, str(ROOT), str(tmp_path)):  # no path of this machine
        assert place not in json.dumps(found)


def python_with(package: str) -> str:
    """An interpreter that has a package, or a skipped test."""
    try:
        return interpreter(package)
    except LookupError as error:
        pytest.skip(str(error))


def test_provenance_of_a_kim_model(tmp_path):
    python = python_with("kimpy")
    model = "Tersoff_LAMMPS_Tersoff_1988_C__MO_579868029681_003"
    entry = {"calculator": "pretraining.labels.calculators.kim", "args": [model]}
    code = made(tmp_path, entry, bulk("C", "diamond", a=3.57, cubic=True), python)["code"]
    assert code["package"] == "kim-api" and re.match(r"\d+\.\d+", code["version"])
    assert code["kim_model"] == model and code["kimpy"]


def test_provenance_of_ace(tmp_path, shared_data):
    python = python_with("pyace")
    potential = str(shared_data / "potentials" / "c_ace.yace")
    entry = {"calculator": "pyace.PyACECalculator", "kwargs": {"basis_set": potential}}
    found = made(tmp_path, entry, bulk("C", "diamond", a=3.57), python)
    assert found["code"]["package"] == "pyace" and found["code"]["version"].startswith("0.2")
    assert found["parameter_files_sha256"]["c_ace.yace"].startswith("410d6f97de3c")


# ---------------------------------------------------------------- reference energies


def test_energies_are_relative_to_isolated_atoms(tmp_path):
    """A box of far-apart atoms has energy zero; a given reference is subtracted per atom."""
    source = Source("lj", **LJ)
    lone = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 15]], cell=[30] * 3, pbc=True)
    crystal = bulk("Ar", "fcc", a=4.1, cubic=True)
    reference = isolated_energies(source, ["Ar"])
    assert reference == {"Ar": 0.0}
    label(source, [lone, crystal], reference, tmp_path / "zero.extxyz")
    label(source, [lone, crystal], {"Ar": -2.5}, tmp_path / "given.extxyz")
    zero, given = (read(tmp_path / f"{name}.extxyz", ":") for name in ("zero", "given"))
    assert zero[0].info["lj_energy"] == 0
    assert given[0].info["lj_energy"] == pytest.approx(5.0)
    assert given[1].info["lj_energy"] == pytest.approx(zero[1].info["lj_energy"] + 4 * 2.5)


def test_isolated_atom_is_alone_and_given_energies_are_not_computed(monkeypatch):
    seen = []

    def probe(source, frames):
        seen.extend(frames)
        return evaluate_all(source, frames)

    monkeypatch.setattr(evaluation, "evaluate_all", probe)
    source = Source("lj", isolated_atom={"energies": {"Si": -3.0}}, **LJ)
    energies = isolated_energies(source, ["Si", "C"])
    assert energies == {"C": 0.0, "Si": -3.0}
    (atom,) = seen
    assert not atom.pbc.any()
    margins = np.minimum(atom.positions[0], atom.cell.lengths() - atom.positions[0])
    assert (margins >= VACUUM).all() and VACUUM >= 20


def test_arguments_for_the_isolated_atom_alone():
    source = Source("lj", isolated_atom={"kwargs": {"sigma": "wide"}}, **LJ)
    with pytest.raises(UserError, match="cannot evaluate an isolated Ar atom .*energies: {Ar: "):
        isolated_energies(source, ["Ar"])


def test_unknown_element_in_reference_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no isolated-atom energy of Ar"):
        label(Source("lj", **LJ), argon(1), {"C": 0.0}, tmp_path / "out.extxyz")


# ---------------------------------------------------------------- what the file holds


def test_keys_order_and_kept_columns(tmp_path):
    frames = argon(5)
    frames[1].calc = SinglePointCalculator(frames[1], energy=99.0, forces=np.ones((4, 3)))
    frames[2].info["lj_energy"] = 1e6  # of an earlier labelling
    frames[3].info["ace_energy"] = -7.0
    write(tmp_path / "in.extxyz", frames)
    config = config_file(tmp_path, lj=LJ)
    out = tmp_path / "deep" / "out.extxyz"
    done = run(config, "lj", "--structures", tmp_path / "in.extxyz", "--index", "1:", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "4/4" in done.stderr
    labelled = read(out, ":")
    assert [atoms.info["time"] for atoms in labelled] == [0.5, 1.0, 1.5, 2.0]
    evaluate = Evaluator(Source("lj", **LJ))
    for atoms, original in zip(labelled, frames[1:], strict=True):
        energy, forces = evaluate(original)
        assert atoms.info["lj_energy"] == pytest.approx(energy, abs=1e-6)
        assert atoms.arrays["lj_force"] == pytest.approx(forces, abs=1e-6)
        assert atoms.info["run_id"] == original.info["run_id"]
        assert atoms.arrays["tag_of_mine"].tolist() == [0, 1, 2, 3]
        assert atoms.calc is None
    assert labelled[2].info["ace_energy"] == -7.0
    assert list(out.parent.iterdir()) == [out]


def test_reference_file_is_written_and_reused(tmp_path):
    config = config_file(tmp_path, lj=LJ)
    reference = tmp_path / "reference.json"
    done = run(config, "lj", "--write-reference", reference, "--elements", "Ar", "Si")
    assert done.returncode == 0, done.stderr
    assert json.loads(reference.read_text()) == {"Ar": 0.0, "Si": 0.0}
    reference.write_text('{"Ar": -1.0}')
    write(tmp_path / "in.extxyz", argon(1))
    done = run(
        config, "lj", "--structures", tmp_path / "in.extxyz", "--out", tmp_path / "out.extxyz",
        "--reference", reference,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plain = Evaluator(Source("lj", **LJ))(argon(1)[0])[0]
    assert read(tmp_path / "out.extxyz").info["lj_energy"] == pytest.approx(plain + 4, abs=1e-6)


# ---------------------------------------------------------------- failures


def with_impossible(count: int = 4) -> list[Atoms]:
    """Argon, of which structure 2 has two atoms at the same place."""
    frames = argon(count)
    frames[2].positions[1] = frames[2].positions[0]
    return frames


def test_stop_names_the_structure_and_keeps_what_is_done(tmp_path):
    frames = argon(4)
    frames[2].numbers[:] = 54
    write(tmp_path / "in.extxyz", frames)
    config = config_file(tmp_path, bad={"calculator": "troublemakers.Troublemaker"})
    reference, out = tmp_path / "reference.json", tmp_path / "out.extxyz"
    reference.write_text('{"Ar": 0.0, "Xe": 0.0}')
    given = ["--reference", reference]
    done = run(config, "bad", *given, "--structures", tmp_path / "in.extxyz", "--out", out)
    assert done.returncode == 1
    assert not out.exists()
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "structure 2" in message and "on_error: skip" in message
    assert "Traceback" not in done.stderr
    # The job, the versions and two structures.
    assert len(Path(f"{out}.part").read_text().splitlines()) == 4


def test_skip_reports_the_reason_and_goes_on(tmp_path):
    out = tmp_path / "out.extxyz"
    source = Source("lj", on_error="skip", **LJ)
    frames = with_impossible()
    frames[2].info["lj_energy"] = -1.0
    frames[2].arrays["lj_force"] = np.zeros((4, 3))
    assert label(source, frames, {"Ar": 0.0}, out, first=10) == [12]
    labelled = read(out, ":")
    assert len(labelled) == 4
    assert "atoms 0 and 1 are at the same place" in labelled[2].info["lj_error"]
    assert "lj_energy" not in labelled[2].info and "lj_force" not in labelled[2].arrays
    assert all("lj_energy" in labelled[k].info for k in (0, 1, 3))
    assert all("lj_error" not in labelled[k].info for k in (0, 1, 3))


def test_lammps_error_is_reported_and_survived(tmp_path):
    """An element that LAMMPS was not told of fails; the structure after it does not."""
    source = replace(real("edip_lammps"), on_error="skip")
    frames = [bulk("C", "diamond", a=3.55), bulk("Ge"), bulk("C", "diamond", a=3.6)]
    assert label(source, frames, {"C": 0.0, "Ge": 0.0}, tmp_path / "out.extxyz") == [1]
    labelled = read(tmp_path / "out.extxyz", ":")
    assert "Ge" in labelled[1].info["edip_lammps_error"]
    alone = Evaluator(source)(frames[2])[0]
    assert labelled[2].info["edip_lammps_energy"] == pytest.approx(alone)


@pytest.mark.parametrize(
    "entry, source, message",
    [
        (LJ, "ace", "no source 'ace'"),
        ({"title": "x"}, "lj", "needs 'calculator'"),
        ({"calculator": "no_such_package.Calculator"}, "lj", "cannot import"),
        ({"calculator": "ase.calculators.lj.Missing"}, "lj", "cannot import"),
        ({"calculator": "LennardJones"}, "lj", "cannot import"),
        ({**LJ, "kwargs": {"file": "{root}/nowhere/potential.xml"}}, "lj", "no file"),
        ({**LJ, "kwargs": {"lmpcmds": ["pair_coeff * * none/C.lcbop C"]}}, "lj", "no file none/C"),
        ({**LJ, "kwargs": {"file": "{package:no_such_package}/x"}}, "lj", "is not installed"),
        ({**LJ, "preload": ["{prefix}/lib/libnothere.so"]}, "lj", "cannot preload"),
        ({**LJ, "on_error": "ignore"}, "lj", "not stop or skip"),
        ({**LJ, "time_limit": 0}, "lj", "time_limit is 0, not a number of seconds"),
    ],
)
def test_error_lines(tmp_path, entry, source, message):
    config = config_file(tmp_path, lj=entry)
    with pytest.raises(UserError, match=message):
        make_calculator(load_source(config, source))


def test_missing_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no such structure file"):
        read_structures(tmp_path / "none.extxyz")
    (tmp_path / "bad.extxyz").write_text("not a structure\n")
    with pytest.raises(UserError, match="structure 0 cannot be read"):
        read_structures(tmp_path / "bad.extxyz")
    with pytest.raises(UserError, match="cannot be read"):
        load_source(tmp_path / "none.yaml", "lj")


@pytest.mark.parametrize(
    ("text", "fault"),
    [("- a list", "must be a mapping"), ("a: [", "not valid YAML"), ("a: 1", "'b' is missing")],
)
def test_a_settings_file_that_is_none(tmp_path, text, fault):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=fault):
        read_yaml(path, "b")


def test_bad_index_is_refused(tmp_path):
    config = config_file(tmp_path, lj=LJ)
    done = run(config, "lj", "--structures", "x", "--out", "y", "--index=-3:")
    assert done.returncode == 1 and "START:STOP" in done.stderr


def test_source_that_cannot_hold_a_lone_atom_says_so():
    source = Source("emt", calculator="ase.calculators.emt.EMT")
    with pytest.raises(UserError, match="isolated Si atom .* give isolated_atom: {energies: {Si:"):
        isolated_energies(source, ["Si"])


def test_placeholders():
    import ase

    assert expand({"a": ["{prefix}/lib", 3]}) == {"a": [f"{sys.prefix}/lib", 3]}
    assert expand("x {root}/y") == f"x {ROOT}/y"
    assert expand("{package:ase}/io") == f"{Path(ase.__file__).parent}/io"


# ---------------------------------------------------------------- resume


def test_journal_of_another_job_is_not_used(tmp_path, capsys):
    """A change of source, reference or structures starts afresh."""
    out = tmp_path / "out.extxyz"
    stop = Source("lj", **LJ)
    with pytest.raises(UserError, match="structure 2"):
        label(stop, with_impossible(), {"Ar": 0.0}, out)
    other = replace(stop, kwargs={"sigma": 2.6, "rc": 6.0})
    label(other, argon(4), {"Ar": 0.0}, out)
    assert "starting afresh" in capsys.readouterr().err
    energy = Evaluator(other)(argon(1)[0])[0]
    assert read(out, 0).info["lj_energy"] == pytest.approx(energy)


# ---------------------------------------------------------------- interpreters


def test_runs_with_debian_python(tmp_path):
    """ASE 3.22 on numpy 1: the oldest interpreter that a source may bring."""
    probe = subprocess.run([DEBIAN_PYTHON, "-c", "import ase, yaml"], capture_output=True)
    if probe.returncode:
        pytest.skip(f"{DEBIAN_PYTHON} has no ase and yaml")
    write(tmp_path / "in.extxyz", argon(3))
    config = config_file(tmp_path, lj=LJ)
    outs = []
    for python in (DEBIAN_PYTHON, sys.executable):
        outs.append(tmp_path / f"{len(outs)}.extxyz")
        done = run(
            config, "lj", "--structures", tmp_path / "in.extxyz", "--out", outs[-1], python=python
        )
        assert done.returncode == 0, done.stderr
    old, new = (read(path, ":") for path in outs)
    for a, b in zip(old, new, strict=True):
        assert a.info["lj_energy"] == pytest.approx(b.info["lj_energy"], abs=1e-10)
        assert a.info["run_id"] == b.info["run_id"]
        assert a.arrays["lj_force"] == pytest.approx(b.arrays["lj_force"], abs=1e-7)
