"""The same training on a GPU, with NequIP's modules and in programs; skipped without one."""

from __future__ import annotations

import json

import pytest
import torch

from pretraining.training.run import Request, train
from toy import write_settings, write_store

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


# The last batch of 21 has one structure; what a worker loads is not kept on the GPU.
@pytest.mark.parametrize(("wanted", "workers"), [("never", 0), ("always", 0), ("always", 1)])
def test_gpu_and_cpu_agree(tmp_path, wanted, workers):
    data = write_store(tmp_path / "data.h5")
    metrics = {}
    for device, choice in (("cpu", "never"), ("cuda", wanted)):
        options = {"device": device, "compile": choice, "max_epochs": 3, "workers": workers}
        settings = write_settings(tmp_path / f"{device}.yaml", **options)
        out = tmp_path / device
        assert train(Request("direct", data, 21, 1, settings, out)) == 0
        metrics[device] = json.loads((out / "metrics.json").read_text())
        assert ("not compiled" in (out / "train.log").read_text()) == (choice == "never")
    assert metrics["cuda"]["device"] == "cuda"
    for part in ("val", "test"):
        for name, value in metrics["cpu"][part].items():
            assert metrics["cuda"][part][name] == pytest.approx(value, rel=1e-3)
