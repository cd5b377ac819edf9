"""When a run used a GPU, from a library that stands in for NVIDIA's."""

from __future__ import annotations

import types
from datetime import datetime

import pynvml
import pytest
import torch

from pretraining.training.device import GpuUse, mean_power

CUDA = torch.device("cuda")
UUID = "01234567-89ab-cdef-0123-456789abcdef"
EARLIER = {
    "gpu": "GPU-other",
    "start": "2026-11-21T16:00:00.000+00:00",
    "end": "2026-11-21T16:01:00.000+00:00",
}


@pytest.fixture
def nvml(monkeypatch):
    """A GPU whose energy counter goes up by 500 J from reading to reading."""
    gpu = types.SimpleNamespace(uuid=UUID)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    counter = iter(range(7_000_000, 10_000_000, 500_000))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", {f"GPU-{UUID}": 17}.get)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda gpu: {17: next(counter)}[gpu]
    )


def test_a_record_has_gpu_times_and_energy(nvml):
    (record,) = GpuUse(CUDA).records()
    start, end = (datetime.fromisoformat(record.pop(key)) for key in ("start", "end"))
    assert start.utcoffset().total_seconds() == 0 and start <= end
    assert record == {"gpu": f"GPU-{UUID}", "start_j": 7000.0, "end_j": 7500.0}


def test_a_resumed_run_keeps_the_records_of_earlier_processes(nvml):
    use = GpuUse(CUDA)
    use.earlier = [EARLIER | {"start_j": 10.0, "end_j": 1810.0}]
    records = use.records()
    assert [record["gpu"] for record in records] == ["GPU-other", f"GPU-{UUID}"]
    # Resumed on a CPU, it uses no GPU any more.
    cpu = GpuUse(torch.device("cpu"))
    assert cpu.records() == []
    cpu.earlier = records
    assert cpu.records() == records


def test_mean_power_is_energy_over_time():
    measured = EARLIER | {"start_j": 10.0, "end_j": 1810.0}
    unknown = EARLIER | {"start_j": None, "end_j": None}
    assert mean_power([measured, unknown]) == 30.0
    assert mean_power([measured, measured | {"end_j": 3610.0}]) == 45.0
    assert mean_power([unknown]) is mean_power([]) is None


@pytest.mark.parametrize(
    "function",
    ["nvmlInit", "nvmlDeviceGetHandleByUUID", "nvmlDeviceGetTotalEnergyConsumption"],
)
def test_without_a_counter_the_times_are_recorded(nvml, monkeypatch, function):
    def missing(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, function, missing)
    (record,) = GpuUse(CUDA).records()
    assert record["gpu"] == f"GPU-{UUID}" and record["start"] <= record["end"]
    assert record["start_j"] is record["end_j"] is None
