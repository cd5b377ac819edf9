"""The training loop: steps, validation, best model, early stopping, divergence and checkpoints.

Optimiser, moving average, loss and results are those of NequIP's Lightning module, without
Lightning's trainer, which adds 3 ms to each step: more than a step of a small network.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from nequip.data import AtomicDataDict as Key
from nequip.train import EMALightningModule

from pretraining.runtime.stop import Interrupted, StopRequest
from pretraining.study.settings import Training
from pretraining.training.compiled.loss_and_gradient import Evaluator
from pretraining.training.device import GpuUse
from pretraining.training.network.graphs import (
    RESIDENT_BYTES,
    EpochSampler,
    StructureDataset,
    evaluation_batch,
    make_loader,
    to_device,
)
from pretraining.training.predictions import named_errors
from pretraining.training.state import RunState

# Steps between two readings of the losses on a GPU, each of which waits for the GPU.
STEPS_PER_READING = 100
# Attributes of a fit that a checkpoint holds.
SAVED = ("rows", "best", "steps", "_patience", "_lowest_loss", "_loss_sum", "_loss_weight")
# All entries of a checkpoint.
ENTRIES = {
    *SAVED,
    "module",
    "optimizer",
    "compiled",
    "seconds",
    "wall_seconds",
    "gpu_use",
    "random",
}


def check_state(module: EMALightningModule, content: dict[str, Any]) -> None:
    """Raise a `ValueError` if a checkpoint is not one that this version would write of `module`."""
    if differing := ENTRIES ^ content.keys():
        raise ValueError(f"another version wrote it, as {', '.join(sorted(differing))} shows")
    shapes = [
        {name: getattr(value, "shape", None) for name, value in state.items()}
        for state in (content["module"], module.state_dict())
    ]
    if shapes[0] != shapes[1]:
        raise ValueError("its weights are those of another network")


class Diverged(Exception):
    """The training has diverged."""


@dataclass(eq=False)
class Fit:
    """A training under way.

    Attributes
    ----------
    train_set, val_set
        Structures for the steps, and for choosing the best model.
    seed
        Of the order of batches.
    started
        Value of ``time.monotonic()`` when the program began.
    rows
        The learning curve, a row per epoch.
    best
        Epoch, errors and weights of the best model; None if there is none.
    """

    module: EMALightningModule
    evaluator: Evaluator
    training: Training
    train_set: StructureDataset
    val_set: StructureDataset
    seed: int
    device: torch.device
    state: RunState
    stop: StopRequest
    started: float
    gpu_use: GpuUse
    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    steps: int = 0

    def __post_init__(self) -> None:
        self._weights = list(self.module.model.parameters())
        self._optimizer = self.module.configure_optimizers()
        self._sampler = EpochSampler(len(self.train_set), self.seed)
        self._train_loader = make_loader(
            self.train_set,
            self.training.batch_size,
            workers=self.training.workers,
            sampler=self._sampler,
            pin_memory=self.train_set.device != self.device,
        )
        batch_size = evaluation_batch(self.val_set, self.training.val_batch_size, self.device)
        self._val_loader = make_loader(self.val_set, batch_size)
        # Indices and shifts take 40 bytes per pair.
        if 40 * self.val_set.n_pairs <= RESIDENT_BYTES:
            self._val_loader = [to_device(batch, self.device) for batch in self._val_loader]
        # Validation error to improve on, and epochs since it was reached.
        self._patience = (math.inf, 0)
        self._lowest_loss = math.inf
        self._loss_sum, self._loss_weight = 0.0, 0
        # Losses and sizes of the last batches, not yet read from the device.
        self._unread: list[tuple[torch.Tensor, int]] = []
        self._began = self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time of training, s, including that before a resumption."""
        return time.monotonic() - self._began

    @property
    def wall_seconds(self) -> float:
        """Time of the whole program, s, including that before a resumption."""
        return time.monotonic() - self.started

    def execute(self) -> str:
        """Train to the end; return ``max_epochs`` or ``patience``.

        Raises
        ------
        Diverged
            With the reason.
        Interrupted
            On a stop request, with the state saved.
        """
        if not self.rows:
            # Validate before the first step: this model may be the best.
            self._record(math.nan)
        while not self._finished:
            self._train_epoch()
        return "patience" if self._patience[1] >= self.training.patience else "max_epochs"

    @property
    def _epoch(self) -> int:
        return int(self.rows[-1]["epoch"])

    @property
    def _finished(self) -> bool:
        training = self.training
        return self._patience[1] >= training.patience or self._epoch >= training.max_epochs

    # -- one epoch --------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        # The weight of the losses so far is the number of structures that the epoch has seen.
        done = self._loss_weight
        self._sampler.set_epoch(self._epoch, done)
        left = math.ceil((len(self._sampler) - done) / self.training.batch_size)
        for batch in self._train_loader:
            self._step(to_device(batch, self.device))
            left -= 1
            # No checkpoint between the last step and the validation: one follows the epoch.
            if left:
                self._save_if_due()
        self._read_losses()
        loss = self._loss_sum / self._loss_weight
        self._loss_sum, self._loss_weight = 0.0, 0
        row = self._record(loss)
        if loss > self.training.divergence_factor * self._lowest_loss:
            raise Diverged(
                f"the training loss of epoch {row['epoch']} is {loss:.3g}, after a lowest loss of "
                f"{self._lowest_loss:.3g}"
            )
        if not math.isfinite(row["val_force_rmse_ev_per_angstrom"]):
            raise Diverged(f"the validation of epoch {row['epoch']} is not finite")
        self._lowest_loss = min(self._lowest_loss, loss)
        # Skip the checkpoint if the run ends here.
        if not self._finished:
            self._save_if_due()

    def _step(self, batch: Key.Type) -> None:
        loss, gradients = self.evaluator.gradients(batch, self._weights)
        set_gradients(self._weights, gradients)
        self._optimizer.step()
        self.module.ema.update_parameters(self.module.model)
        self._unread.append((loss, len(batch[Key.NUM_NODES_KEY])))
        if self.device.type == "cpu" or len(self._unread) == STEPS_PER_READING:
            self._read_losses()

    def _read_losses(self) -> None:
        """Read the losses of the last steps from the device."""
        if not self._unread:
            return
        losses, sizes = zip(*self._unread, strict=True)
        self._unread = []
        for loss, size in zip(torch.stack(losses).tolist(), sizes, strict=True):
            self.steps += 1
            if not math.isfinite(loss):
                raise Diverged(f"the training loss was {loss} in step {self.steps}")
            if self.steps == 1:
                self._lowest_loss = loss
            self._loss_sum += loss * size
            self._loss_weight += size

    def _record(self, loss: float) -> dict[str, float]:
        """Validate the moving average of the weights and add a row to the learning curve."""
        weights = self.module.ema.ema_weights
        energy, forces = self.evaluator.errors(self._val_loader, weights)
        epoch = self._epoch + 1 if self.rows else 0
        row = {
            "epoch": epoch,
            "train_loss": loss,
            "val_energy_rmse_mev_per_atom": 1000 * energy,
            "val_force_rmse_ev_per_angstrom": forces,
            "learning_rate": self.training.learning_rate,
            "elapsed_s": self.seconds,
        }
        self.rows.append(row)
        finite = math.isfinite(energy) and math.isfinite(forces)
        better = finite and (self.best is None or forces < self.best["forces"])
        if better:
            self.best = {
                "epoch": epoch,
                "forces": forces,
                "errors": named_errors(energy, forces),
                "weights": [weight.detach().cpu().clone() for weight in weights],
            }
        compared, waited = self._patience
        if forces < compared - self.training.min_delta:
            self._patience = (forces, 0)
        elif epoch:
            self._patience = (compared, waited + 1)
        trained = "untrained" if epoch == 0 else f"train loss {loss:.4g}"
        self.state.log(
            f"epoch {epoch}: {trained}, validation {1000 * energy:.2f} meV/atom {forces:.4f} eV/Å"
            f"{' (best)' if better else ''}, {self.seconds:.1f} s",
            routine=True,
        )
        best = {"epoch": self.best["epoch"], **self.best["errors"]} if self.best else None
        self.state.report(
            routine=True,
            phase="training",
            epoch=epoch,
            best=best,
            train_time_s=round(self.seconds, 3),
        )
        return row

    # -- checkpoints ------------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        due = time.monotonic() - self._saved >= self.training.checkpoint_seconds
        if due or self.stop:
            self._read_losses()
            self.state.save(self.state_dict())
            self._saved = time.monotonic()
            self.state.report(routine=True, train_time_s=round(self.seconds, 3))
        if self.stop:
            raise Interrupted(
                f"stopped by {self.stop.signal} in epoch {self._epoch + 1} after {self.steps} "
                "steps; run the same command again to resume"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the content of a checkpoint."""
        return {name: getattr(self, name) for name in SAVED} | {
            "module": self.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "compiled": self.evaluator.compiled,
            "seconds": self.seconds,
            "wall_seconds": self.wall_seconds,
            "gpu_use": self.gpu_use.records(),
            # For networks of users that draw random numbers; the procedure draws none.
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Resume from what :meth:`state_dict` returned."""
        for name in SAVED:
            setattr(self, name, content[name])
        self.module.load_state_dict(content["module"])
        self._optimizer.load_state_dict(content["optimizer"])
        # Both clocks count the time before the resumption.
        self._began -= content["seconds"]
        self.started -= content["wall_seconds"]
        self.gpu_use.earlier = content["gpu_use"]
        torch.set_rng_state(content["random"])


def set_gradients(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
    """Set ``grad`` of each weight, in the memory layout of the weight.

    Fused optimisers rely on that; on the CPU they do not check it.
    """
    for weight, gradient in zip(weights, gradients, strict=True):
        same_layout = gradient.stride() == weight.stride()
        weight.grad = gradient if same_layout else torch.empty_like(weight).copy_(gradient)
