"""Reading a GPU's energy counter, from a library that stands in for NVIDIA's."""

from __future__ import annotations

import types

import pytest
import torch

from pretraining.training.power import PowerMeter

CUDA = torch.device("cuda")
UUID = "01234567-89ab-cdef-0123-456789abcdef"


class Library:
    """NVML's three functions; the counter goes up by 500 J from reading to reading."""

    def __init__(self, missing: str = "") -> None:
        self.missing = missing
        self.millijoules = 7_000_000
        self.asked = None

    def status(self, name: str) -> int:
        return 3 if name == self.missing else 0

    def nvmlInit_v2(self) -> int:
        return self.status("init")

    def nvmlDeviceGetHandleByUUID(self, uuid, handle) -> int:
        self.asked = uuid
        handle._obj.value = 17
        return self.status("handle")

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, energy) -> int:
        assert handle.value == 17
        energy._obj.value = self.millijoules
        self.millijoules += 500_000
        return self.status("energy")


@pytest.fixture
def clock(monkeypatch):
    """A GPU of a known name, and a clock that goes on by 2 s from reading to reading."""
    gpu = types.SimpleNamespace(uuid=UUID)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    ticks = iter(range(100, 200, 2))
    monkeypatch.setattr("pretraining.training.power.time.monotonic", lambda: next(ticks))


def test_mean_power_is_energy_over_time(clock):
    library = Library()
    meter = PowerMeter(CUDA, library)
    assert library.asked == f"GPU-{UUID}".encode()
    assert meter.total() == (500.0, 2)
    assert meter.mean_w == pytest.approx(250.0)


def test_a_resumed_run_counts_its_earlier_parts(clock):
    meter = PowerMeter(CUDA, Library())
    meter.earlier = (1500.0, 3.0)
    assert meter.total() == (2000.0, 5.0)
    # Resumed where there is no counter, what was measured before is kept.
    blind = PowerMeter(CUDA, Library(missing="handle"))
    blind.earlier = (1500.0, 3.0)
    assert blind.mean_w == 500.0


@pytest.mark.parametrize("missing", ["init", "handle", "energy"])
def test_without_a_counter_there_is_no_measurement(clock, missing):
    assert PowerMeter(CUDA, Library(missing)).mean_w is None


def test_a_cpu_and_a_machine_without_the_library_measure_nothing(monkeypatch):
    assert PowerMeter(torch.device("cpu"), Library()).mean_w is None
    monkeypatch.setattr("pretraining.training.power.LIBRARY", "libno-such-thing.so.9")
    assert PowerMeter(CUDA).mean_w is None
