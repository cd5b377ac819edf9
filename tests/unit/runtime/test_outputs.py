"""Files to write: every program refuses at once what cannot be written, in one line."""

from __future__ import annotations

import errno
import os
import re
import subprocess

import pytest

from pretraining.runtime.cli import Output, Parser
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import room_for, write_text
from pretraining.runtime.lease import Lease
from scripts import SCRIPTS, run_script
from toy import write_store

OPTION = re.compile(r'"(--[\w-]+)",[^"]*?type=(?:cli\.)?(Output|Folder)\b')
OUTPUTS = [
    (path.stem, option, kind)
    for path in sorted(SCRIPTS.glob("*.py"))
    for option, kind in OPTION.findall(path.read_text(encoding="utf-8"))
]


def places(folder):
    """Return paths that cannot be written, with words of the reason, by the kind of output."""
    (folder / "file").write_text("precious")
    (folder / "loop").symlink_to("loop")
    return [
        ("Output", folder, "is no regular file"),
        ("Output", "", "is no regular file"),
        ("Output", "/dev/null", "is no regular file"),
        ("Folder", folder / "file", "is no folder"),
        ("both", folder / "file/below/x.h5", "Not a directory"),
        ("both", folder / "loop/x.h5", "Too many levels of symbolic links"),
        ("both", "/proc/nowhere/x.h5", "No such file or directory"),
    ]


@pytest.mark.parametrize("program, option, kind", OUTPUTS)
def test_an_output_that_cannot_be_written(tmp_path, given, program, option, kind):
    for of, path, reason in places(tmp_path):
        if of in (kind, "both"):
            given.words = [option, str(path)]
            done = run_script(program)
            assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
            assert done.stderr.startswith(f"error: {option}: {path or '.'} "), done.stderr
            assert reason in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "loop"]


def test_every_program_with_outputs_is_in_the_table():
    without = {"accept", "check", "status"}
    assert {path.stem for path in SCRIPTS.glob("*.py")} - {name for name, *_ in OUTPUTS} <= without


def test_a_read_only_file_system(tmp_path):
    try:
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here")
    try:
        parser = Parser()
        parser.add_argument("--out", type=Output)
        with pytest.raises(UserError, match=r"--out: .*/x.csv cannot be written \(Read-only"):
            parser.parse_args(["--out", str(tmp_path / "x.csv")])
        with pytest.raises(UserError, match=r"x.csv cannot be written \(Read-only file system\)"):
            write_text(tmp_path / "sub/x.csv", "text")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_what_happens_later(tmp_path):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    for path in ("file/x.csv", "file/sub/x.csv", "folder", "n" * 255):
        with pytest.raises(UserError, match=rf"{path} cannot be written \(.+\): give a path"):
            write_text(tmp_path / path, "text")
    with pytest.raises(UserError, match="in the place of its folder"):
        write_store(tmp_path / "file/x.h5")
    with pytest.raises(UserError, match="cannot be written"), Lease(tmp_path / "file/x", "run"):
        pass
    with pytest.raises(UserError, match="Input/output error"), room_for(tmp_path / "x"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    # Another file's fault keeps its own message.
    with pytest.raises(FileNotFoundError), room_for(tmp_path / "x"):
        open("/nowhere/input")  # noqa: SIM115
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]


def test_a_path_with_spaces_that_lacks_quotes():
    done = run_script("grid", "--config", "my", "study.yaml", "--costs", "c", "--out", "x")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "unrecognized arguments: study.yaml: put quotes around a path" in done.stderr
