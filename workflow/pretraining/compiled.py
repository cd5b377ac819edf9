"""Trained models as machine code, by NequIP's own ``nequip-compile``: shorter steps of dynamics."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from pretraining.errors import UserError

SUFFIX = ".nequip.pt2"


def compile_model(
    model: Path, out: Path, device: torch.device | str = "cpu", target: str = "ase"
) -> None:
    """Compile a model; takes a minute or two, and a C++ compiler on the machine.

    Parameters
    ----------
    model
        A run's ``model.ckpt``.
    out
        File to write, atomically; its name ends in ``.nequip.pt2``.
    device
        What it will run on.
    target
        ``ase`` for :func:`pretraining.inference.load_calculator`, ``pair_nequip`` for LAMMPS.

    Raises
    ------
    UserError
        If NequIP cannot compile it.
    """
    partial = out.with_name(f".{os.getpid()}.{out.name}")
    command = [sys.executable, "-m", "nequip.scripts.compile", str(model), str(partial)]
    command += ["--device", torch.device(device).type, "--mode", "aotinductor", "--target", target]
    # The checkpoint names the network's modules.
    here = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path}
    try:
        process = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if process.returncode != 0:
            last = (process.stdout.strip().splitlines() or ["no message"])[-1]
            raise UserError(
                f"{model} cannot be compiled ({last}): see that the machine has a C++ compiler, or "
                "set compile: false"
            )
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)
