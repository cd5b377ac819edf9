"""Where a run computes: its device, software, and the use of its GPU."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import pynvml
import torch

from pretraining.runtime.errors import UserError


def resolve_device(device: str, allow_cpu: bool = False) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device.

    Raises a `UserError` for another word, or for ``cuda`` without a GPU, unless `allow_cpu` is set.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"training.device: {device!r} is not one of auto, cpu, cuda")
    if device != "cpu" and torch.cuda.is_available():
        return torch.device("cuda")
    if device in ("cpu", "auto") or allow_cpu:
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


class GpuUse:
    """When a run used a GPU, with the GPU's energy counter at both ends (NVML).

    The counter is that of the whole GPU: :func:`pretraining.results.cost.gpu_shares` divides time
    and energy among the runs that used it at once. A run on a CPU leaves no record.

    Attributes
    ----------
    earlier
        Records of the processes that this one resumes.
    """

    def __init__(self, device: torch.device) -> None:
        self.earlier: list[dict[str, Any]] = []
        self._gpu = None
        if device.type == "cuda":
            self._gpu = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        self._began = self._now()

    def records(self) -> list[dict[str, Any]]:
        """Return a record for each process of the run, until now.

        That of a killed process ends with its last checkpoint, as its wall time does. Keys: ``gpu``
        (UUID), ``start`` and ``end`` (UTC, ISO 8601), ``start_j`` and ``end_j`` (energy counter, J;
        None if the GPU has none).
        """
        if self._gpu is None:
            return self.earlier
        (start, start_j), (end, end_j) = self._began, self._now()
        times = {"start": start, "end": end, "start_j": start_j, "end_j": end_j}
        return [*self.earlier, {"gpu": self._gpu, **times}]

    def _now(self) -> tuple[str, float | None]:
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        if self._gpu is None:
            return time, None
        try:
            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(self._gpu)
            return time, pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000
        except pynvml.NVMLError:
            return time, None


def mean_power(records: list[dict[str, Any]]) -> float | None:
    """Return the mean power of the GPUs in records of :class:`GpuUse`, W; None if not measured."""
    joules = seconds = 0.0
    for record in records:
        if record["start_j"] is not None and record["end_j"] is not None:
            start, end = (datetime.fromisoformat(record[key]) for key in ("start", "end"))
            joules += record["end_j"] - record["start_j"]
            seconds += (end - start).total_seconds()
    return round(joules / seconds, 1) if seconds > 0 else None
