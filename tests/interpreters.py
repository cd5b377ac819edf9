"""Interpreters that have the codes of label sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


def interpreter(package: str, *others: str) -> str:
    """Return the first interpreter that has a package.

    The order is this one, the environment variable ``PRETRAINING_PYTHON_<PACKAGE>``, `others`.

    Raises
    ------
    LookupError
        If none has it.
    """
    variable = f"PRETRAINING_PYTHON_{package.upper()}"
    named = [os.environ[variable]] if os.environ.get(variable) else []
    # PyPI's pyace is another program.
    attribute = {"pyace": "PyACECalculator"}.get(package, "__name__")
    for python in [sys.executable, *named, *others]:
        command = [python, "-c", f"import {package}, yaml, ase; {package}.{attribute}"]
        if shutil.which(python) and not subprocess.run(command, capture_output=True).returncode:
            return python
    raise LookupError(f"no interpreter here has {package} (set {variable} to one that has)")
