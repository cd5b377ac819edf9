"""Structure files that cannot be read: one line names the file, the structure and the cure."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
from pathlib import Path

import ase.io
import pytest
import yaml
from ase.build import bulk

from pretraining.data import readers
from pretraining.data.readers import read_files
from pretraining.labels.label import read_structures
from pretraining.runtime.errors import UserError
from scripts import run_script
from toy import labelled, rattled_cells


def text_of(frames) -> bytes:
    ase.io.write("good.extxyz", frames)
    return Path("good.extxyz").read_bytes()


def with_line(text: bytes, number: int, new: bytes) -> bytes:
    lines = text.splitlines(keepends=True)
    return b"".join([*lines[:number], new, *lines[number + 1 :]])


# Name of a file, what becomes of a good one of three cells with two atoms, its format, and words.
BROKEN = [
    ("a.extxyz", lambda text: b"", None, "the file is empty: get it again"),
    ("a.extxyz.gz", lambda text: b"", None, "the file is empty"),
    ("a.extxyz", lambda text: bytes(range(256)), None, "structure 0 .* no text in UTF-8"),
    ("a.extxyz", lambda text: text.decode().encode("utf-16"), None, "no text in UTF-8"),
    ("a.extxyz", lambda text: with_line(text, 6, b"Cu x 0 0\n"), None, "structure 1 .*repair"),
    ("a.extxyz", lambda text: with_line(text, 4, b"two\n"), None, "XYZError.*: repair the file"),
    ("a.extxyz", lambda text: with_line(text, 6, b"Qq 0 0 0\n"), None, "structure 1 .*KeyError"),
    ("a.extxyz", lambda text: text[:-30], None, "structure 2 .*repair the file"),
    ("a.extxyz.gz", lambda text: gzip.compress(text)[:-20], None, "cut short or is none .*again"),
    ("a.extxyz.gz", lambda text: text, None, "cut short or is none .*get it again"),
    ("a.extxyz.xz", lambda text: text, None, "cut short or is none"),
    ("a.extxyz.bz2", lambda text: b"BZh9 nothing", None, "cut short or is none"),
    ("a.traj", lambda text: text, None, "structure 0 cannot be read as its name suggests"),
    ("a.h5", lambda text: text, None, r"does not know the file format \(h5\): name the format, or"),
    ("a.extxyz", lambda text: text, "nonsense", "does not know the file format"),
    ("a.extxyz", lambda text: text, "vasp", "as vasp .*: correct the format, or the file"),
    ("a.extxyz", lambda text: text, "netcdftrajectory", "a module that is missing .*install it"),
]


@pytest.mark.parametrize("name, change, format, words", BROKEN)
def test_broken_files(tmp_path, monkeypatch, name, change, format, words):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.write_bytes(change(text_of([bulk("Cu") * (2, 1, 1)] * 3)))
    with pytest.raises(UserError, match=rf"{name}: .*{words}") as error:
        list(read_files([path], format))
    assert "\n" not in str(error.value)


def test_files_without_structures(tmp_path):
    (tmp_path / "a.extxyz").write_text("\n")
    with pytest.raises(UserError, match="a.extxyz holds no structure"):
        read_structures(tmp_path / "a.extxyz")
    for name, reason in [("absent", "no such structure file"), ("", "cannot be read")]:
        with pytest.raises(UserError, match=reason):
            read_structures(tmp_path / name)


def test_a_full_temporary_folder_is_not_blamed_on_the_file(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(tmp_path)
    Path("a.extxyz.gz").write_bytes(gzip.compress(text_of([bulk("Cu")])))
    monkeypatch.setattr(readers.shutil, "copyfileobj", full)
    with pytest.raises(UserError, match=r"unpacked in .*\(No space left.*set TMPDIR to another"):
        list(read_files([Path("a.extxyz.gz")]))
    monkeypatch.setattr(readers.shutil, "copyfileobj", shutil.copyfileobj)


@pytest.mark.parametrize(
    "setting, words",
    [
        ({"labels": {"energy": "energy", "forces": "forces"}}, "structure 7 (2 of b.extxyz) has"),
        ({"filters": [{"key": "kind", "include": ["x"]}]}, "structure 7 (2 of b.extxyz) has no"),
        ({"split": {"key": "kind"}}, "split.key: structure 7 (2 of b.extxyz) has no entry"),
        ({"keep": ["odd"]}, "keep: 'odd' of structure 7 (2 of b.extxyz) is neither"),
    ],
)
def test_a_structure_of_several_files_is_named_with_its_file(tmp_path, setting, words):
    frames = [labelled(atoms) for atoms in rattled_cells(10)]
    for number, atoms in enumerate(frames):
        atoms.info["kind"] = "x"
        if number == 7:
            del atoms.info["kind"]
            atoms.info["odd"] = [1, 2]
            atoms.calc = None
    ase.io.write(tmp_path / "a.extxyz", frames[:5])
    ase.io.write(tmp_path / "b.extxyz", frames[5:])
    dataset = {"path": ["a.extxyz", "b.extxyz"], **setting}
    dataset["path"] = [str(tmp_path / name) for name in dataset["path"]]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"datasets": {"d": dataset}}))
    out = ("--out", tmp_path / "o.h5", "--summary", tmp_path / "s.json")
    done = run_script("prepare", "--config", tmp_path / "c.yaml", "--dataset", "d", *out)
    last = done.stderr.splitlines()[-1].replace(f"{tmp_path}/", "")
    assert done.returncode == 1 and last.startswith("error: dataset 'd': ") and words in last
