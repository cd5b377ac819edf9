"""Where a run computes, and with which software."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from pretraining.runtime.errors import UserError


def resolve_device(device: str, allow_cpu: bool = False) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises
    ------
    UserError
        If a GPU is asked for, there is none, and `allow_cpu` is false.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if allow_cpu:
        return torch.device("cpu")
    raise UserError(
        "training.device: a GPU is asked for, but PyTorch finds none; check the driver and that "
        "this PyTorch is built for CUDA, or set `device: auto`, or `allow_cpu: true`"
    )


def device_name(device: torch.device) -> str:
    """Name a device as its maker does."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    names = ("torch", "nequip", "e3nn", "lightning", "ase", "numpy")
    return {"python": platform.python_version()} | {name: version(name) for name in names}
