"""Sources at fault: one line says whether code, argument, file or structure is to be mended."""

from __future__ import annotations

import subprocess
import sys

import ase.io
import pytest
import yaml
from ase import Atoms
from ase.build import bulk

from pretraining.labels.evaluate import isolated_energies
from pretraining.runtime.errors import UserError
from pretraining.study.sources import load_source
from scripts import SCRIPTS, run_script

CODE = """
import ctypes
import os
import subprocess
from ase.calculators.calculator import CalculationFailed, Calculator

def function(): pass
value = 3

class Code(Calculator):
    implemented_properties = ("energy", "forces")
    def calculate(self, *args):
        return getattr(self, self.parameters["fault"])()
    def library(self): import no_such_library
    def shared(self): ctypes.CDLL("libnosuch.so")
    def command(self): subprocess.run(["no_such_command"])
    def shell(self): raise CalculationFailed('command "vasp" failed with error code 127')
    def atom(self): raise RuntimeError("one atom is too few")
    def output(self): open("OUTCAR")
    def crash(self): os.kill(os.getpid(), 11)

class Energies(Calculator):
    implemented_properties = ["energy"]

class Needs(Code):
    def __init__(self, **kwargs): import no_such_library

class Reads(Code):
    def __init__(self, file):
        os.chdir("/")
        raise RuntimeError("checksum of the file failed \\x01\\x02")

class Ends(Code):
    def __init__(self, file): os._exit(0)
"""
SKIPPED = {"on_error": "skip", "isolated_atom": {"energies": {"Cu": 0.0}}}


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that makes a source of the module above."""
    (tmp_path / "faulty_code.py").write_text(CODE)
    (tmp_path / "potential.xml").write_text("<cut")
    (tmp_path / "potential.xml.sparse").write_text("1.0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def entry(calculator, **others):
        (tmp_path / "c.yaml").write_text(
            yaml.safe_dump({"sources": {"a": {"calculator": calculator, **others}}})
        )
        return load_source(tmp_path / "c.yaml", "a")

    yield entry
    sys.modules.pop("faulty_code", None)


@pytest.mark.parametrize(
    "calculator, kwargs, words",
    [
        ("collections.OrderedDict", {}, "is no calculator of ASE"),
        ("ase.Atoms", {}, "is no calculator of ASE"),
        ("faulty_code.function", {}, "is no calculator of ASE"),
        ("faulty_code.value", {}, "is no calculator of ASE"),
        ("os.path", {}, "is no calculator of ASE"),
        ("faulty_code.Energies", {}, "gives no forces"),
        ("..x", {}, "an import path is MODULE.NAME"),
        ("faulty_code.Needs", {}, "faulty_code is there, but not the module 'no_such_library'"),
        ("no_such_code.Calculator", {}, "No module named 'no_such_code'\\); install it there"),
        ("faulty_code.Code", {"fault": "library"}, "No module named 'no_such_.*; install it there"),
        ("faulty_code.Code", {"fault": "shared"}, "libnosuch.so: cannot open .*; install it there"),
        ("faulty_code.Code", {"fault": "command"}, "'no_such_command'.*; install it there"),
        ("faulty_code.Code", {"fault": "shell"}, "error code 127.*; install it there"),
        (
            "faulty_code.Reads",
            {"file": "potential.xml"},
            "failed; see .* whole: potential.xml, potential.xml.sparse",
        ),
        ("faulty_code.Reads", {"file": 3}, "see its args and kwargs"),
        (
            "faulty_code.Ends",
            {"file": "potential.xml"},
            "see whether these files are whole: potential.xml, potential.xml.sparse",
        ),
        ("ase.calculators.lj.LennardJones", {"sigma": [1]}, "see its args and kwargs"),
        ("faulty_code.Code", {"fault": "atom"}, "isolated Cu atom .* if it can evaluate others"),
        ("faulty_code.Code", {"fault": "output"}, "isolated Cu atom .* if it can evaluate others"),
    ],
)
def test_the_cure_fits_the_fault(make, calculator, kwargs, words):
    with pytest.raises(UserError, match=f"source 'a'.*{words}") as error:
        isolated_energies(make(calculator, kwargs=kwargs), ["Cu"])
    message = str(error.value)
    assert message.isprintable()
    assert ("isolated_atom:" in message) == ("isolated" in words)


def test_what_is_missing_is_no_fault_of_a_structure(make, tmp_path):
    make("faulty_code.Code", kwargs={"fault": "library"}, **SKIPPED)
    ase.io.write(tmp_path / "s.extxyz", bulk("Cu"))
    files = ("--config", "c.yaml", "--structures", "s.extxyz", "--out", "o.extxyz")
    done = run_script("label", "--source", "a", *files)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "source 'a': cannot run faulty_code.Code" in done.stderr


def test_crashes_that_are_skipped_take_a_line_each(make, tmp_path):
    make("faulty_code.Code", kwargs={"fault": "crash"}, **SKIPPED)
    frames = [Atoms("Cu", positions=[[x, 0, 0]]) for x in range(3)]
    ase.io.write(tmp_path / "s.extxyz", frames)
    files = ["--config", "c.yaml", "--structures", "s.extxyz", "--out", "o.extxyz"]
    done = subprocess.run(
        [sys.executable, SCRIPTS / "label.py", "--source", "a", *files],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{SCRIPTS.parent}:{tmp_path}", "PATH": ""},
    )
    lines = done.stderr.splitlines()
    assert sum("segmentation fault" in line for line in lines) == 3
    assert done.returncode == 0 and len(lines) <= 6, done.stderr


def test_a_structure_is_named_with_its_file(make, tmp_path):
    one = {"isolated_atom": SKIPPED["isolated_atom"]}
    make("faulty_code.Code", kwargs={"fault": "atom"}, **one)
    ase.io.write(tmp_path / "s.extxyz", bulk("Cu"))
    files = ("--config", "c.yaml", "--structures", "s.extxyz", "--out", "o.extxyz")
    done = run_script("label", "--source", "a", *files)
    assert "error: s.extxyz: source 'a' cannot evaluate structure 0" in done.stderr
