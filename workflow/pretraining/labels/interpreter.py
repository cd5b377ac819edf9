"""Go on in the interpreter that a label source names.

It imports only the standard library and what :mod:`pretraining.study.sources` does.
"""

from __future__ import annotations

import os
import shutil
import sys

from pretraining.runtime.errors import UserError
from pretraining.study.sources import Source

HANDED_OVER = "LABEL_INTERPRETER"


def hand_over(source: Source) -> None:
    """Start the running program again in the source's interpreter, if this is another one.

    Raises
    ------
    UserError
        If there is no such interpreter.
    """
    if source.python in (None, "python", sys.executable, os.environ.get(HANDED_OVER)):
        return
    path = shutil.which(source.python)
    if path is None:
        raise UserError(f"source '{source.name}': no interpreter '{source.python}' here")
    os.environ[HANDED_OVER] = source.python
    os.execv(path, [path, *sys.argv])
