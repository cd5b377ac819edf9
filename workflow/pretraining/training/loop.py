"""The steps of a training: the paper's procedure, the best model, divergence and the saved state.

Optimiser, moving average and loss are those of NequIP's Lightning module, and so are the results.
The loop is no Lightning trainer's: that spends 3 ms on a step, longer than a small network's steps.
"""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nequip.data import AtomicDataDict as Key
from nequip.train import EMALightningModule

from pretraining.runtime.stop import Interrupted, StopRequest
from pretraining.study.settings import Training
from pretraining.training.compiled.loss_and_gradient import Functions
from pretraining.training.device import GpuUse
from pretraining.training.metrics import errors_of, named_errors
from pretraining.training.network.graphs import (
    RESIDENT_BYTES,
    EpochSampler,
    StructureDataset,
    evaluation_batch,
    make_loader,
    to_device,
)
from pretraining.training.state import RunState

CURVE = (
    "epoch",
    "train_loss",
    "val_energy_rmse_mev_per_atom",
    "val_force_rmse_ev_per_angstrom",
    "learning_rate",
    "elapsed_s",
)
# Steps between two looks at the losses on a GPU: each look waits for it.
LOOK_EVERY = 100


class Diverged(Exception):
    """The loss is beyond recovery."""


class Fit:
    """A training under way.

    Parameters
    ----------
    module
        NequIP's training module, on the device.
    functions
        Gradients and predictions of its network.
    training
        Training procedure.
    train_set, val_set
        Structures to train on, and to choose the model by.
    seed
        Of the order of batches.
    device
        Where it runs.
    state
        Where the state goes.
    stop
        Whether the run has been asked to stop.
    started
        Value of ``time.monotonic()`` when the program began.
    gpu_use
        Records when the run uses a GPU.

    Attributes
    ----------
    rows
        The learning curve, a row an epoch.
    best
        Epoch, errors and weights of the best model; None if there is none.
    steps
        Optimiser steps.
    """

    def __init__(
        self,
        module: EMALightningModule,
        functions: Functions,
        training: Training,
        train_set: StructureDataset,
        val_set: StructureDataset,
        *,
        seed: int,
        device: torch.device,
        state: RunState,
        stop: StopRequest,
        started: float,
        gpu_use: GpuUse,
    ) -> None:
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Any] | None = None
        self.steps = 0
        self._module = module
        self._functions = functions
        self._training = training
        self._device = device
        self._state = state
        self._stop = stop
        self._gpu_use = gpu_use
        self._weights = list(module.model.parameters())
        self._optimizer = module.configure_optimizers()
        self._sampler = EpochSampler(len(train_set), seed)
        self._train_loader = make_loader(
            train_set,
            training.batch_size,
            workers=training.workers,
            sampler=self._sampler,
            pin_memory=train_set.device != device,
        )
        at_once = evaluation_batch(val_set, training.val_batch_size, device)
        self._val_loader = make_loader(val_set, at_once)
        if 40 * val_set.n_pairs <= RESIDENT_BYTES:  # indices and shifts of a pair
            self._val_loader = [to_device(batch, device) for batch in self._val_loader]
        # Validation error that an epoch is compared with, and epochs since it was reached.
        self._patience = (math.inf, 0)
        self._lowest_loss = math.inf
        self._loss_sum = 0.0
        self._loss_weight = 0
        # Losses of the last steps, not yet fetched from the device.
        self._pending: list[tuple[torch.Tensor, int]] = []
        # Seconds of training and of the whole program: those of the runs that this one resumes, and
        # when the clocks of this process began.
        self._earlier = (0.0, 0.0)
        self._began = (time.monotonic(), started)
        self._saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resumption included."""
        return self._earlier[0] + time.monotonic() - self._began[0]

    @property
    def wall_seconds(self) -> float:
        """Seconds since the program began, and of the runs that this one resumes."""
        return self._earlier[1] + time.monotonic() - self._began[1]

    def execute(self) -> str:
        """Train to the end; return ``max_epochs`` or ``patience``.

        Raises
        ------
        Diverged
            With what has happened.
        Interrupted
            If the run was asked to stop; its state has been saved.
        """
        training = self._training
        if not self.rows:
            # The validation before the first step: its model may be the best.
            self._record(math.nan)
        while self._patience[1] < training.patience and self._epoch < training.max_epochs:
            self._train_epoch()
        return "patience" if self._patience[1] >= training.patience else "max_epochs"

    @property
    def _epoch(self) -> int:
        return int(self.rows[-1]["epoch"])

    # -- one epoch --------------------------------------------------------------------------------

    def _train_epoch(self) -> None:
        self._sampler.set_epoch(self._epoch)
        left = math.ceil((len(self._sampler) - self._sampler.done) / self._training.batch_size)
        for batch in self._train_loader:
            self._step(to_device(batch, self._device))
            left -= 1
            # A state between the last step of an epoch and its validation is left out: the epoch's
            # end is near, and saves there.
            if left:
                self._save_if_due()
        self._look()
        loss = self._loss_sum / self._loss_weight
        self._loss_sum, self._loss_weight = 0.0, 0
        row = self._record(loss)
        if loss > self._training.divergence_factor * self._lowest_loss:
            raise Diverged(
                f"the training loss of epoch {row['epoch']} is {loss:.3g}, that before was as low "
                f"as {self._lowest_loss:.3g}"
            )
        if not math.isfinite(row["val_force_rmse_ev_per_angstrom"]):
            raise Diverged(f"the validation of epoch {row['epoch']} is not finite")
        self._lowest_loss = min(self._lowest_loss, loss)
        # A run that is about to finish has no use for a state, which would not know that it is.
        if self._patience[1] < self._training.patience and self._epoch < self._training.max_epochs:
            self._save_if_due()

    def _step(self, batch: Key.Type) -> None:
        loss, gradients = self._functions.gradients(batch, self._weights)
        set_gradients(self._weights, gradients)
        self._optimizer.step()
        self._module.ema.update_parameters(self._module.model)
        self._pending.append((loss, len(batch[Key.NUM_NODES_KEY])))
        if self._device.type == "cpu" or len(self._pending) == LOOK_EVERY:
            self._look()

    def _look(self) -> None:
        """Fetch the losses of the last steps."""
        if not self._pending:
            return
        losses = torch.stack([loss for loss, _ in self._pending]).tolist()
        sizes = [size for _, size in self._pending]
        self._pending = []
        for loss, size in zip(losses, sizes, strict=True):
            self.steps += 1
            if not math.isfinite(loss):
                raise Diverged(f"the training loss was {loss} in step {self.steps}")
            if self.steps == 1:
                self._lowest_loss = loss
            self._loss_sum += loss * size
            self._loss_weight += size

    def _record(self, loss: float) -> dict[str, float]:
        """Validate the moving average of the weights and take the epoch down."""
        weights = self._module.ema.ema_weights
        energy, forces = errors_of(self._functions, weights, self._val_loader, self._device)
        epoch = self._epoch + 1 if self.rows else 0
        numbers = (epoch, loss, 1000 * energy, forces, self._training.learning_rate, self.seconds)
        row = dict(zip(CURVE, numbers, strict=True))
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
        if forces < compared - self._training.min_delta:
            self._patience = (forces, 0)
        elif epoch:
            self._patience = (compared, waited + 1)
        trained = "untrained" if epoch == 0 else f"train loss {loss:.4g}"
        self._state.log(
            f"epoch {epoch}: {trained}, validation {1000 * energy:.2f} meV/atom {forces:.4f} eV/Å"
            f"{' (best)' if better else ''}, {self.seconds:.1f} s",
            routine=True,
        )
        best = {"epoch": self.best["epoch"], **self.best["errors"]} if self.best else None
        self._state.report(
            routine=True,
            phase="training",
            epoch=epoch,
            best=best,
            train_time_s=round(self.seconds, 3),
        )
        return row

    # -- the saved state --------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        due = time.monotonic() - self._saved >= self._training.checkpoint_seconds
        if due or self._stop:
            self._look()
            # By way of memory: of a full disk PyTorch's own writer tells nothing.
            content = io.BytesIO()
            torch.save(self.state_dict(), content)
            self._state.save(lambda path: path.write_bytes(content.getbuffer()))
            self._saved = time.monotonic()
            self._state.report(routine=True, train_time_s=round(self.seconds, 3))
        if self._stop:
            raise Interrupted(
                f"stopped by {self._stop.signal} in epoch {self._epoch + 1} after {self.steps} "
                "steps; run the same command again to go on"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what must outlive an interruption."""
        return {
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "compiled": self._functions.compiled,
            "rows": self.rows,
            "best": self.best,
            "steps": self.steps,
            "patience": self._patience,
            "lowest_loss": self._lowest_loss,
            "loss_sum": self._loss_sum,
            "loss_weight": self._loss_weight,
            "seconds": (self.seconds, self.wall_seconds),
            "gpu_use": self._gpu_use.records(),
            # The procedure draws no random numbers, but a network of the user's may.
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self._device.type == "cuda" else [],
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Go on with what :meth:`state_dict` returned."""
        self._module.load_state_dict(content["module"])
        self._optimizer.load_state_dict(content["optimizer"])
        self.rows = content["rows"]
        self.best = content["best"]
        self.steps = content["steps"]
        self._patience = content["patience"]
        self._lowest_loss = content["lowest_loss"]
        self._loss_sum = content["loss_sum"]
        self._loss_weight = content["loss_weight"]
        self._earlier = content["seconds"]
        self._gpu_use.earlier = content["gpu_use"]
        # How many structures of the epoch have been seen.
        self._sampler.resume(self._epoch, self._loss_weight)
        torch.set_rng_state(content["random"])
        on_gpu = self._device.type == "cuda"
        if on_gpu and len(content["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(content["random_cuda"])


def set_gradients(weights: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> None:
    """Set ``grad`` of each weight, laid out in memory as the weight is.

    Fused optimisers take that for granted, on the CPU without a look.
    """
    for weight, gradient in zip(weights, gradients, strict=True):
        alike = gradient.stride() == weight.stride()
        weight.grad = gradient if alike else torch.empty_like(weight).copy_(gradient)


def write_curve(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write the learning curve, one row an epoch; numbers that are not finite stay empty."""
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, CURVE)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: v if math.isfinite(v) else "" for k, v in row.items()})
