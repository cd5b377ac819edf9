"""How programs end when they are not let finish: no traceback."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pretraining.runtime import cli


def test_an_interruption_is_one_line(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        cli.run(interrupted)
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted: run the same command again\n"


def test_a_reader_that_has_ended_is_no_fault():
    code = "from pretraining.runtime.cli import run; run(lambda: print('line\\n' * 50_000))"
    end, writer = os.pipe()
    os.close(end)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
