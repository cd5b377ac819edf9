"""The same training on a GPU; skipped where there is none."""

from __future__ import annotations

import json

import pytest
import torch

from pretraining.training import Request, train
from toy import write_settings, write_store

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_gpu_and_cpu_agree(tmp_path):
    data = write_store(tmp_path / "data.h5")
    metrics = {}
    for device in ("cpu", "cuda"):
        settings = write_settings(tmp_path / f"{device}.yaml", device=device, max_epochs=3)
        out = tmp_path / device
        assert train(Request("direct", data, 25, 1, settings, out)) == 0
        metrics[device] = json.loads((out / "metrics.json").read_text())
    assert metrics["cuda"]["device"] == "cuda"
    for part in ("val", "test"):
        for name, value in metrics["cpu"][part].items():
            assert metrics["cuda"][part][name] == pytest.approx(value, rel=1e-3)
