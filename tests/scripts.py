"""Scripts of the workflow, run in this process: a start of Python takes a second."""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"


def run_script(name: str, *arguments) -> subprocess.CompletedProcess:
    """Run ``workflow/scripts/<name>.py`` with arguments; return its exit status and output."""
    line = [str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
    with (
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as errors,
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", line)
        patch.setattr(sys, "path", list(sys.path))
        runpy.run_path(line[0], run_name="__main__")
    return subprocess.CompletedProcess(line, end.value.code, out.getvalue(), errors.getvalue())
