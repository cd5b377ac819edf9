"""What a step of training consists of: its parts, its kernels, and the limits of the device."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ase import Atoms
from nequip.data import AtomicDataDict as Key
from torch._inductor import metrics
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.study.settings import settings_of
from pretraining.training.compiled.loss_and_gradient import FUNCTIONS, GRADIENTS, Evaluator
from pretraining.training.network.builders import network_config
from pretraining.training.network.checkpoint import make_module, network_of
from pretraining.training.network.graphs import (
    StructureDataset,
    collate,
    evaluation_batch,
    make_loader,
    to_device,
)
from pretraining.training.run import EXAMPLES

CUTOFF = 4.0


class Work:
    """A training in this process: the parts of a step that :class:`.loop.Fit` takes.

    Parameters
    ----------
    network
        Of the configuration.
    frames
        Labelled structures.
    device
        Where it runs.
    """

    def __init__(
        self, network: dict[str, Any], frames: Sequence[Atoms], device: torch.device
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Store.write(Path(folder) / "data.h5", frames, n_val=0, n_test=0)
            store = Store(Path(folder) / "data.h5")
            rows = range(len(frames))
            self.structures = StructureDataset(store, rows, ["C"], CUTOFF, Transform())
            store.close()
        average = self.structures.avg_num_neighbors
        self.config = network_config(
            network, type_names=["C"], avg_num_neighbors=average, seed=1, cutoff=CUTOFF
        )
        training = settings_of({}, "direct").training
        self.device = device
        self.module = make_module(self.config, training, about={}).to(device)
        self.structures.to(device)
        self.model = network_of(self.module)
        self.evaluator = Evaluator(self.model, training.loss)
        self.weights = list(self.model.parameters())
        self.optimizer = self.module.configure_optimizers()
        self.batch = self.next_batch()
        at_once = evaluation_batch(self.structures, training.val_batch_size, device)
        loader = make_loader(self.structures, at_once)
        self.validation = [to_device(batch, device) for batch in loader]
        self.forward_and_gradients()

    def compile(self, names: Sequence[str] = FUNCTIONS) -> None:
        """Use compiled functions from now on, as a run does."""
        example = collate([self.structures[i] for i in range(EXAMPLES)])
        self.evaluator.compile(self.config, to_device(example, self.device), print, names)
        if not self.evaluator.compiled:
            raise SystemExit("not compiled: nothing to measure")

    def next_batch(self) -> Key.Type:
        """Join ten structures and bring them to the device."""
        return to_device(collate([self.structures[i] for i in range(10)]), self.device)

    def forward_and_gradients(self) -> None:
        """Compute what the optimiser needs."""
        _, gradients = self.evaluator.gradients(self.batch, self.weights)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient

    def average(self) -> None:
        """Update the moving average of the weights."""
        self.module.ema.update_parameters(self.module.model)

    def validate(self) -> None:
        """Compute the errors of all structures."""
        weights = self.module.ema.ema_weights
        self.evaluator.errors(self.validation, weights)

    def step(self) -> None:
        """Do all of a step."""
        self.batch = self.next_batch()
        self.forward_and_gradients()
        self.optimizer.step()
        self.average()

    @cached_property
    def parts(self) -> dict[str, float]:
        """Seconds of each part of a step, of a whole one, and of a structure's validation."""
        actions = {
            "batching": self.next_batch,
            "forward and gradients": self.forward_and_gradients,
            "optimiser": self.optimizer.step,
            "moving average": self.average,
            "whole step": self.step,
            "validation of a structure": self.validate,
        }
        found = {name: seconds_of(action, self.device) for name, action in actions.items()}
        found["validation of a structure"] /= len(self.structures)
        return found


def seconds_of(action: Callable[[], object], device: torch.device) -> float:
    """Return the median time of an action: on a GPU the wall clock's, else the processor's."""
    action()
    times: list[float] = []
    begun = time.monotonic()
    while len(times) < 3 or (len(times) < 20 and time.monotonic() - begun < 5):
        if device.type == "cuda":
            times.append(_on_gpu(action, 10))
        else:
            start = time.process_time()
            action()
            times.append(time.process_time() - start)
    return median(times)


def _on_gpu(action: Callable[[], object], count: int) -> float:
    """Seconds an action takes when the host runs ahead as far as it can."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(count):
        action()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000 / count


# -- kernels ---------------------------------------------------------------------------------------


class Count(TorchDispatchMode):
    """Operations that compute something, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = 0
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, torch.Tensor)]
            self.kernels += 1
            self.bytes += sum(tensor.numel() * tensor.itemsize for tensor in tensors)
        return out


def count_eager(action: Callable[[], object]) -> tuple[int, int]:
    """Return kernels and bytes of an action of single operations."""
    with Count() as count:
        action()
    return count.kernels, count.bytes


def count_program(work: Work) -> tuple[int, int] | None:
    """Compile the program of the gradients, unless there is one already.

    Returns
    -------
    tuple
        Its kernels, those of libraries included, and the bytes that a step reads and writes by the
        compiler's own account, scaled from its example by pairs of atoms; None if the program was
        there.
    """
    log = torch._logging.getArtifactLogger("torch._inductor.compile_fx", "inductor_metrics")
    log.setLevel(logging.INFO)  # else it does not count
    log.propagate = False
    metrics.reset()
    work.compile([GRADIENTS])
    if not metrics.nodes_num_elem:
        return None
    kernels = sum(size > 0 for _, size in metrics.nodes_num_elem)
    pairs = [work.structures[i][Key.EDGE_INDEX_KEY].shape[1] for i in range(10)]
    scale = sum(pairs) / sum(pairs[:EXAMPLES])
    return kernels, int(metrics.num_bytes_accessed * scale)


def profile_gpu(action: Callable[[], object]) -> tuple[float, float]:
    """Return the kernels that an action launches on a GPU, and the seconds that they take."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    action()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(5):
            action()
        torch.cuda.synchronize()
    events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    return len(events) / 5, sum(e.time_range.elapsed_us() for e in events) / 5e6


# -- the device ------------------------------------------------------------------------------------


def bandwidth(device: torch.device) -> float:
    """Return the bytes a second that a big copy reads and writes."""
    size = 2**32 if device.type == "cuda" else 2**28
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / seconds_of(lambda: target.copy_(source), device)


def launch_rate(device: torch.device) -> float:
    """Return the smallest kernels that can be launched in a second."""
    small = torch.zeros(1, device=device)

    def launch() -> None:
        for _ in range(1000):
            small.add_(1.0)

    return 1000 / seconds_of(launch, device)
