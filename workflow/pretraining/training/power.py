"""Electricity that a GPU draws, read from NVIDIA's management library (NVML).

The library comes with the driver and is called directly, so that nothing has to be installed. A
GPU's counter of energy runs from the loading of the driver; the difference of two readings over the
time between them is the mean power of the whole GPU, whoever else uses it. Where there is no such
library, or the GPU has no counter, there is no measurement, and nothing else changes.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import torch

LIBRARY = "libnvidia-ml.so.1"


class PowerMeter:
    """The energy of one GPU since the meter was made, and in the earlier parts of a resumed run.

    Parameters
    ----------
    device
        Device of PyTorch; without energy counter, as a CPU is, nothing is measured.
    library
        NVML, for tests.
    """

    def __init__(self, device: torch.device, library: Any = None) -> None:
        # J and s that earlier parts of this run have measured.
        self.earlier = (0.0, 0.0)
        self._read = _counter(device, library)
        self._began = (self._read() if self._read else None, time.monotonic())

    def total(self) -> tuple[float, float]:
        """Return the energy, J, and the time, s, that have been measured; zero for none."""
        now = self._read() if self._read else None
        if now is None or self._began[0] is None:
            return self.earlier
        return (
            self.earlier[0] + now - self._began[0],
            self.earlier[1] + time.monotonic() - self._began[1],
        )

    @property
    def mean_w(self) -> float | None:
        """Mean power, W; None if nothing was measured."""
        joules, seconds = self.total()
        return joules / seconds if seconds > 0 else None


def _counter(device: torch.device, library: Any) -> Callable[[], float | None] | None:
    """Return a function that reads a GPU's energy counter, J; None where there is none."""
    if device.type != "cuda":
        return None
    try:
        nvml = library or ctypes.CDLL(LIBRARY)
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = ctypes.c_void_p()
        found = nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(
            uuid.encode(), ctypes.byref(handle)
        )
    except (OSError, AttributeError):
        return None
    if found != 0:
        return None

    def read() -> float | None:
        millijoules = ctypes.c_ulonglong()
        status = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        return millijoules.value / 1000 if status == 0 else None

    return read
