"""What molecular dynamics are made of: their settings, frames and engines.

The integration itself is an engine's: :mod:`.ase_engine` drives any ASE calculator,
:mod:`pretraining.dynamics.lammps_engine` runs LAMMPS pair styles inside LAMMPS, and
:mod:`pretraining.dynamics.torchsim_engine` moves several systems together. All integrate the same
equations, with a thermostat that starts anew with each stage of :mod:`.trajectory`.

This runs in the interpreters of label sources: it imports only the standard library, numpy and ASE.
"""

from __future__ import annotations

from ase import Atoms

from pretraining.dynamics.settings import Settings
from pretraining.runtime.errors import UserError
from pretraining.study.sources import Source


def engine_of(source: Source, wanted: str) -> str:
    """Return the engine that drives a source: ``ase``, or ``lammps`` for a LAMMPS pair style.

    Raises
    ------
    UserError
        If LAMMPS is asked for and cannot do it.
    """
    from pretraining.dynamics.lammps_engine import obstacle

    why_not = obstacle(source)
    if wanted == "lammps" and why_not:
        raise UserError(f"source '{source.name}' cannot be driven by LAMMPS: {why_not}")
    return "ase" if wanted == "ase" or why_not else "lammps"


def make_engine(name: str, atoms: Atoms, settings: Settings):
    """Set up an engine for a structure that has momenta and the source's calculator.

    Raises
    ------
    UserError
        If the structure is one that the engine does not know how to move.
    """
    if name == "lammps":
        from pretraining.dynamics.lammps_engine import LammpsEngine

        return LammpsEngine(atoms, settings)
    from pretraining.dynamics.ase_engine import AseEngine

    return AseEngine(atoms, settings)
