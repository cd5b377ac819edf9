"""Checks of label sources: right numbers, wrong forces, and what is not there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.calculators.emt import EMT
from ase.eos import birchmurnaghan
from ase.units import GPa

from pretraining.figures.source_checks import figure_of_sources
from pretraining.labels.check.probes import crystals_of, effort_of, plan, primitive_cell
from pretraining.labels.check.run import check_source
from pretraining.labels.check.summary import (
    dimer_minimum,
    equation_of_state,
    largest_jump,
    read_checks,
    summarise,
)
from pretraining.runtime.errors import UserError
from pretraining.study.config import validate_config
from pretraining.study.sources import load_source
from scripts import run_script

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "workflow" / "scripts"
SETTINGS = validate_config({}, "defaults")["check_sources"]
FEW = {**SETTINGS, "points": {kind: {"dimer": 21, "crystal": 9} for kind in ("fast", "dft")}}
EMT_SOURCE = {"title": "EMT", "kind": "empirical", "elements": ["Cu"], "install": "pip install ase"}
EMT_SOURCE["calculator"] = "ase.calculators.emt.EMT"
ODDITIES = """
import os, time
import numpy as np
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT

class Odd(EMT):
    def __init__(self, oddity):
        super().__init__()
        self.oddity = oddity
        if oddity == "crashes":
            os.abort()
        if oddity == "refuses":
            raise TypeError("no such argument")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.oddity == "hangs" and len(atoms) == 2 and atoms.get_distance(0, 1) > 6.5:
            time.sleep(100)
        if self.oddity == "slow":
            time.sleep(0.02)
        if self.oddity == "wrong":
            self.results["forces"] = 1.03 * self.results["forces"]
        if self.oddity == "ordered":
            self.results["energy"] += 0.1 * np.sin(atoms.positions[0, 0])
            self.results["forces"] = self.results["forces"].copy()
            self.results["forces"][0, 0] -= 0.1 * np.cos(atoms.positions[0, 0])
        self.results.pop("free_energy", None)
"""


def odd(oddity: str, **entry) -> dict:
    """A source that is EMT but for one thing."""
    known = {"isolated_atom": {"energies": {"Cu": 3.51}}}
    return {**EMT_SOURCE, **known, "calculator": "oddities.Odd", "args": [oddity], **entry}


def check(folder: Path, settings=FEW, alone=(), **sources) -> dict[str, dict]:
    """Check sources, those of `alone` by the program, and read what is written."""
    config = folder / "sources.yaml"
    config.write_text(yaml.safe_dump({"sources": sources, "check_sources": settings}))
    (folder / "oddities.py").write_text(ODDITIES)
    jobs = []
    for name in alone:
        command = [sys.executable, SCRIPTS / "check_source.py", "--config", config]
        command += ["--source", name, "--out", folder / f"{name}.json", "--attempt", "first"]
        environment = {"PYTHONPATH": f"{folder}:{SCRIPTS.parent}", "PATH": "/usr/bin:/bin"}
        environment["OMP_NUM_THREADS"] = "1"
        jobs.append(subprocess.Popen(list(map(str, command)), env=environment))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name in sources.keys() - set(alone):
            result = check_source(load_source(config, name), "empirical", ["Cu"], settings)
            (folder / f"{name}.json").write_text(json.dumps(result))
    assert [job.wait(timeout=200) for job in jobs] == [0] * len(jobs)
    results = read_checks([folder / f"{name}.json" for name in sources])
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []
    return {result["source"]: result for result in results}


@pytest.fixture(scope="module")
def copper(tmp_path_factory) -> tuple[Path, dict[str, dict]]:
    """Results for EMT as it is, with wrong forces, with a memory for order, and for what fails."""
    folder = tmp_path_factory.mktemp("checks")
    bare = folder / "python-without-packages"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    return folder, check(
        folder,
        alone=["emt", "elsewhere", "bare", "crashes"],
        emt=EMT_SOURCE,
        wrong=odd("wrong"),
        ordered=odd("ordered"),
        absent={**EMT_SOURCE, "calculator": "no_such.Code", "install": "apt install no-such-code"},
        elsewhere={**EMT_SOURCE, "python": "/nowhere/python"},
        bare={**EMT_SOURCE, "python": str(bare)},
        refuses=odd("refuses"),
        crashes=odd("crashes"),
        hangs=odd("hangs", time_limit=1.0),
    )


def test_emt_is_what_is_known_of_it(copper):
    """Lattice constant, cohesive energy and bulk modulus of ASE's EMT for copper."""
    result = copper[1]["emt"]
    (row,) = summarise(result, 0.01)
    assert result["status"] == "installed" and result["errors"] == []
    assert row["fcc_a"] == pytest.approx(3.59, abs=0.003)
    assert row["fcc_energy"] == pytest.approx(-3.51, abs=0.01)
    assert row["fcc_bulk_modulus"] == pytest.approx(134, abs=4)
    assert row["consistent"] == "yes" and row["remarks"] == []
    assert row["rattled_force_deviation"] < 1e-4 * row["rattled_largest_force"]
    atom = primitive_cell("Cu", {"prototype": "fcc", "a": 40.0})
    atom.calc = EMT()
    assert result["reference_ev"] == {"Cu": pytest.approx(atom.get_potential_energy())}
    assert result["provenance"]["code"]["package"] == "ase"
    assert result["speed"]["atoms"] == 64 and result["speed"]["atoms_per_second"] > 100
    assert result["attempt"] == "first"


def test_dimer_of_emt(copper):
    """Every point of the curve is the energy of two atoms at that distance."""
    curves = {curve["name"]: curve for curve in copper[1]["emt"]["curves"]}
    for point in curves["dimer"]["points"][::5]:
        pair = Atoms("Cu2", [[0, 0, 0], [0, 0, point["x"]]], calculator=EMT())
        zero = 2 * copper[1]["emt"]["reference_ev"]["Cu"]
        assert point["energy"] == pytest.approx(pair.get_potential_energy() - zero, abs=1e-6)
        assert point["force"] == pytest.approx(pair.get_forces()[1, 2], abs=1e-6)


def test_wrong_forces_are_found(copper):
    (row,) = summarise(copper[1]["wrong"], 0.01)
    assert row["consistent"] == "not when rattled and stretched"
    assert any("forces are not −dE/dx in the rattled Cu cell" in text for text in row["remarks"])
    deviation = row["rattled_force_deviation"] / row["rattled_largest_force"]
    assert 0.01 < deviation <= 0.03
    # A tolerance that is wider than the fault.
    assert summarise(copper[1]["wrong"], 0.05)[0]["consistent"] == "yes"


def test_dependence_on_the_order_of_atoms_is_found(copper):
    (row,) = summarise(copper[1]["ordered"], 0.01)
    (remark,) = [text for text in row["remarks"] if text.startswith("the rattled Cu cell")]
    assert "its atoms in another order" in remark
    assert row["consistent"] == "yes"


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("absent", "not installed", "cannot import no_such.Code"),
        ("elsewhere", "not installed", "no interpreter '/nowhere/python' here"),
        ("bare", "failed", "lacks ase, numpy, PyYAML, which every source needs beside its own"),
        ("refuses", "failed", "no such argument"),
        ("crashes", "failed", "signal 6"),
    ],
)
def test_what_cannot_run_is_a_result(copper, name, status, reason):
    result = copper[1][name]
    assert result["status"] == status and reason in result["reason"]
    (row,) = summarise(result, 0.01)
    assert row["element"] == ""


def test_what_hangs_is_left(copper):
    """Wide dimers hang, and all else is there."""
    result, whole = copper[1]["hangs"], copper[1]["emt"]
    assert result["status"] == "installed"
    assert 1 < len(result["errors"]) < 10
    assert all(error["structure"].startswith("Cu dimer at") for error in result["errors"])
    assert result["evaluated"] + len(result["errors"]) == whole["evaluated"]
    (row,) = summarise(result, 0.01)
    assert row["fcc_a"] == pytest.approx(3.59, abs=0.003)
    assert row["remarks"][0].startswith("not evaluated: Cu dimer at 6.")


def test_the_page_names_every_source(copper):
    folder, results = copper
    words = ["--checks", *(folder / f"{name}.json" for name in results)]
    words += ["--styles", folder / "sources.yaml", "--markdown", folder / "out/sources.md"]
    words += ["--out", folder / "out/sources.csv", "--figure", folder / "out/sources.png"]
    assert run_script("report_sources", *words).returncode == 0
    page = (folder / "out/sources.md").read_text()
    assert re.search(r"\| EMT +\| +3\.510 \| +3\.590 \| +-3\.51", page)
    assert "`absent` is not installed" in page and "apt install no-such-code" in page
    assert "`crashes` failed: ended by signal 6" in page
    assert "-m pip install ase numpy PyYAML`.\n" in page  # not how to get the code of the source
    assert (folder / "out/sources.png").stat().st_size > 10_000
    assert (folder / "out/sources.csv").read_text().count("\n") == 1 + len(results)


def test_a_figure_of_nothing_is_a_figure():
    assert figure_of_sources([], 0.01).get_axes() is not None


def test_time_that_is_up_leaves_structures_out(tmp_path):
    result = check(tmp_path, {**FEW, "time_limit": 0.5}, slow=odd("slow"))["slow"]
    assert result["left_out"] > 100 and result["evaluated"] > 0
    (row,) = summarise(result, 0.01)
    assert f"{result['left_out']} structures were left out: no time" in row["remarks"]
    assert row["consistent"] == "unknown"


def test_unreadable_results_are_one_line(tmp_path):
    with pytest.raises(UserError, match="no result"):
        read_checks([tmp_path / "none.json"])
    (tmp_path / "bad.json").write_text(json.dumps({"source": "x"}))
    with pytest.raises(UserError, match="make it again"):
        read_checks([tmp_path / "bad.json"])


# ---------------------------------------------------------------- structures


def test_graphite_and_diamond_are_themselves():
    crystals = crystals_of("C", {})
    assert list(crystals) == ["diamond", "graphite"]
    for name, bonds, length in (("diamond", 4, 1.546), ("graphite", 3, 1.420)):
        atoms = primitive_cell("C", crystals[name]).repeat(3)
        distances = atoms.get_distances(0, range(1, len(atoms)), mic=True)
        assert (np.abs(distances - length) < 1e-3).sum() == bonds
    wide = primitive_cell("C", crystals["graphite"], 1.1).cell.cellpar()
    assert wide == pytest.approx([2.706, 2.706, 6.71, 90, 90, 120])


@pytest.mark.parametrize(
    ("element", "prototype"), [("Cu", "fcc"), ("Fe", "bcc"), ("Mg", "hcp"), ("Ga", "fcc")]
)
def test_elements_have_prototypes(element, prototype):
    (crystal,) = crystals_of(element, {}).values()
    assert crystal["prototype"] == prototype
    assert len(list(plan(element, {}, effort_of("ml", FEW["points"]), None))) > 100


def test_configured_crystals_replace_the_others():
    crystals = {"C": {"simple": {"prototype": "sc", "a": 1.8}}}
    probes = list(plan("C", crystals, effort_of("dft", SETTINGS["points"]), 4.0))
    assert {probe.name for probe in probes} == {"simple", "rattled", "dimer"}
    with pytest.raises(UserError, match="needs 'c'"):
        primitive_cell("C", {"prototype": "graphite", "a": 2.46})


def test_dft_has_few_and_small_structures():
    probes = list(plan("C", {}, effort_of("dft", SETTINGS["points"]), 4.0))
    assert len(probes) < 40 and max(len(probe.atoms) for probe in probes) == 4
    # What tells most comes first, since time may run out.
    assert probes[0].name == "diamond" and probes[-1].name == "dimer"
    assert all(probe.atoms.pbc.all() for probe in probes)


# ---------------------------------------------------------------- numbers


def crystal_curve(v0=5.6, e0=-8.9, b=440.0, fixed=False) -> dict:
    """A crystal that follows the Birch-Murnaghan equation, one atom a cell."""
    points = []
    for scale in np.linspace(0.94, 1.06, 9):
        volume = 5.7 * scale ** (2 if fixed else 3)
        energy = float(birchmurnaghan(volume, e0, b * GPa, 4.0, v0))
        points.append({"x": 3.5 * scale, "volume": volume, "energy": energy})
    return {"points": points, "atoms": 1}


def test_equation_of_state():
    found = equation_of_state(crystal_curve())
    assert found["a"] == pytest.approx(3.5 * (5.6 / 5.7) ** (1 / 3), abs=1e-5)
    assert found["energy"] == pytest.approx(-8.9, abs=1e-6)
    assert found["bulk_modulus"] == pytest.approx(440, abs=0.1)
    found = equation_of_state(crystal_curve(fixed=True))
    assert found["a"] == pytest.approx(3.5 * (5.6 / 5.7) ** (1 / 2), abs=1e-5)
    assert np.isnan(found["bulk_modulus"])
    assert np.isnan(equation_of_state(crystal_curve(v0=9.0))["a"])


def morse(x):
    """Energy (eV) and force (eV/Å) of a Morse potential with its minimum of -6 eV at 1.3 Å."""
    decay = np.exp(-2.0 * (x - 1.3))
    return 6 * (decay**2 - 2 * decay), 24.0 * (decay**2 - decay)


def dimer_curve(n: int, step: float = 0.0, scale: float = 1.0) -> dict:
    points = []
    for x in np.geomspace(0.9, 4.5, n):
        energy, force = morse(x)
        points.append({"x": x, "energy": energy + step * (x > 2.0), "force": scale * force})
    return {"points": points}


@pytest.mark.parametrize(("n", "accuracy"), [(121, 1e-3), (13, 0.02)])
def test_dimer_minimum(n, accuracy):
    found = dimer_minimum(dimer_curve(n))
    assert found["distance"] == pytest.approx(1.3, abs=accuracy)
    assert found["energy"] == pytest.approx(-6, abs=3 * accuracy)


@pytest.mark.parametrize("n", [121, 31])
def test_a_jump_is_found_and_a_smooth_curve_has_none(n):
    assert largest_jump(dimer_curve(n)) is None
    found = largest_jump(dimer_curve(n, step=0.8))
    assert found["distance"] == pytest.approx(2.0, abs=0.2)
    assert 0.3 < found["energy"] <= 0.8
