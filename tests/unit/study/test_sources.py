"""Label sources: the files that their arguments name."""

from __future__ import annotations

import os
import sys

import pytest

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import file_sha256
from pretraining.runtime.records import write_record
from pretraining.study.sources import Source, changed_files, interpreter_of, parameter_files


def files(*args, **kwargs) -> dict[str, str]:
    """Digests of the files that these arguments name."""
    return parameter_files(Source("x", "ase.Atoms", args=list(args), kwargs=kwargs))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with two models and a pair potential."""
    for name in ("model", "other"):
        (tmp_path / name / "parts").mkdir(parents=True)
        (tmp_path / name / "parts" / "weights.bin").write_text("1 2 3")
    (tmp_path / "pair.txt").write_text("C")
    (tmp_path / "gap.xml").write_text("sparse")
    (tmp_path / "gap.xml.sparseX").write_text("points")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("key", ["model_dir", "cutout_file", "log", "txt", "label", "directory"])
def test_every_argument_counts_whatever_its_name(here, key):
    assert list(files(**{key: "model"})) == ["model"]
    assert list(files(**{key: {"deep": ["model/"]}})) == ["model"]
    assert list(files(**{key: "pair.txt"})) == ["pair.txt"]


def test_words_of_an_argument_and_files_beside_a_named_one(here):
    assert list(files("pair_coeff * * pair.txt C")) == ["pair.txt"]
    assert list(files("-d ./model /tmp / .")) == ["model"]
    assert list(files("model of nothing")) == []
    assert list(files(param="gap.xml")) == ["gap.xml", "gap.xml.sparseX"]


def test_a_folder_counts_by_its_files(here):
    """Neither its place nor hidden files count; names, contents and additions do."""
    before = files(model_dir="model")["model"]
    assert files(model_dir=str(here / "other"))["other"] == before
    (here / "model/.cache").write_text("hidden")
    assert files(model_dir="model")["model"] == before
    (here / "model/parts/weights.bin").write_text("1 2 4")
    changed = files(model_dir="model")["model"]
    assert changed != before
    (here / "model/parts/weights.bin").write_text("1 2 3")
    os.rename(here / "model/parts/weights.bin", here / "model/weights.bin")
    assert files(model_dir="model")["model"] not in (before, changed)


def test_two_files_of_one_name(here):
    (here / "other/parts/weights.bin").write_text("4")
    found = files("model/parts", "other/parts")
    assert list(found) == ["parts", "other/parts"] and len(set(found.values())) == 2


def test_neutral_arguments_do_not_count(here):
    source = Source("x", "ase.Atoms", kwargs={"a": 1}, neutral_kwargs={"txt": "pair.txt"})
    assert parameter_files(source) == {}
    assert source.definition() == Source("x", "ase.Atoms", kwargs={"a": 1}).definition()


def test_files_of_the_interpreter_may_be_left_out(here):
    source = Source("x", "ase.Atoms", args=["{package:ase}/atoms.py", "{root}/pyproject.toml"])
    assert list(parameter_files(source)) == ["atoms.py", "pyproject.toml"]
    assert list(parameter_files(source, installed=False)) == ["pyproject.toml"]


@pytest.mark.parametrize("folder", [".", "..", "{here}"])
def test_the_working_folder_is_no_parameter(here, folder):
    with pytest.raises(UserError, match="source 'x': .*holds the working folder.* neutral_kwargs"):
        files(directory=folder.replace("{here}", str(here)))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"file": "got/one/weights.bin"},
        {"folder": "got"},
        {"folder": "got/one"},
        {"first": "got/one/weights.bin", "second": "got/two/weights.bin"},
        {"file": "got/gap.xml", "folder": "got/two"},
        {"line": "pair_coeff * * got/one/weights.bin C", "own": "model"},
    ],
)
@pytest.mark.parametrize("before", ["nothing", "folder", "another file"])
def test_retrieving_files_labels_nothing_again(here, kwargs, before):
    """However the arguments name them; what changes afterwards counts."""
    paths = ["got/one/weights.bin", "got/two/weights.bin", "got/gap.xml"]
    entry = {"calculator": "ase.Atoms", "kwargs": kwargs, "files": [{"path": p} for p in paths]}
    stamp = here / "stamp.json"
    if before != "nothing":
        (here / "got/one").mkdir(parents=True)
    if before == "another file":
        (here / "got/one/own.txt").write_text("of the user")
    first = changed_files("x", entry, stamp)
    for number, path in enumerate(paths):
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(f"content {number}")
    (here / "got/gap.xml.sparseX").write_text("points")
    assert changed_files("x", entry, stamp) == first
    retrieved = [*paths, "got/gap.xml.sparseX"]
    write_record(stamp, {"files": [{"path": p, "sha256": file_sha256(p)} for p in retrieved]})
    assert changed_files("x", entry, stamp) == first
    for path in retrieved:
        content = (here / path).read_text()
        (here / path).write_text("another")
        named = any(path.startswith(word) for v in kwargs.values() for word in v.split())
        assert (changed_files("x", entry, stamp) != first) == named
        (here / path).write_text(content)


@pytest.mark.parametrize(
    "start, has, words",
    [
        ('exec "{}" -S "$@"', ["numpy", "ase"], "lacks PyYAML, which .* -m pip install PyYAML`"),
        ('exec "{}" -S "$@"', ["yaml"], "lacks ase, numpy, which .* -m pip install ase numpy`"),
        ("echo no libpython >&2; exit 127", [], r"does not start \(no libpython\)"),
        ('exec "{}" -S "$@"', ["ase", "numpy", "yaml"], None),
    ],
)
def test_what_an_interpreter_lacks_is_named(tmp_path, monkeypatch, start, has, words):
    """Not the source's code, which may be there."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{start.format(sys.executable)}\n")
    python.chmod(0o755)
    (tmp_path / "site").mkdir()
    for module in has:
        (tmp_path / "site" / f"{module}.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    entry = {"calculator": "chgnet.model.dynamics.CHGNetCalculator", "python": str(python)}
    if words is None:
        assert interpreter_of("chgnet", entry) == str(python)
        return
    with pytest.raises(UserError, match=f"^sources.chgnet.python: '{python}' {words}"):
        interpreter_of("chgnet", entry)
