"""What watches a training: the best model, the learning curve, divergence and the saved state."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint
from nequip.train import EMALightningModule

from pretraining.data import EpochSampler
from pretraining.interruption import Interrupted, StopRequest
from pretraining.metrics import named_errors
from pretraining.power import PowerMeter
from pretraining.runstate import RunState
from pretraining.settings import Training

CURVE = (
    "epoch",
    "train_loss",
    "val_energy_rmse_mev_per_atom",
    "val_force_rmse_ev_per_angstrom",
    "learning_rate",
    "elapsed_s",
)


class Diverged(Exception):
    """The loss is beyond recovery."""


class Recorder(Checkpoint):
    """Keeps the best weights in memory, one row an epoch, and saves the state every so often.

    A `Checkpoint` in Lightning's sense, so that it comes after early stopping: a saved state then
    has the counters of the epoch that it belongs to.

    Parameters
    ----------
    state
        Where the state goes.
    sampler
        Order of the training set.
    training
        Training procedure.
    stop
        Whether the run has been asked to stop.
    started
        Value of ``time.monotonic()`` when the program began.
    power
        Measures the electricity.
    """

    def __init__(
        self,
        state: RunState,
        sampler: EpochSampler,
        training: Training,
        stop: StopRequest,
        started: float,
        power: PowerMeter,
    ) -> None:
        self.state = state
        self.sampler = sampler
        self.training = training
        self.stop = stop
        self.power = power
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Any] | None = None
        self.steps = 0
        self._lowest_loss = math.inf
        self._loss_sum = 0.0
        self._loss_weight = 0
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

    def on_train_start(self, trainer: lightning.Trainer, pl_module: EMALightningModule) -> None:
        # Lightning's own handler ends the process without a state.
        self.stop.listen()

    # -- one epoch ----------------------------------------------------------------------------

    def record_untrained(self, module: EMALightningModule) -> None:
        """Take down the validation before the first step; its model may be the best."""
        self._record(0, math.nan, module)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: EMALightningModule,
        outputs: Any,
        batch: dict[str, torch.Tensor],
        batch_idx: int,
    ) -> None:
        loss = _step_loss(pl_module)
        self.steps += 1
        if not math.isfinite(loss):
            raise Diverged(f"the training loss was {loss} in step {self.steps}")
        if self.steps == 1:
            self._lowest_loss = loss
        size = len(batch["num_atoms"])
        self._loss_sum += loss * size
        self._loss_weight += size
        # A state between the last step of an epoch and its validation is left out: the epoch's end
        # is near, and saves there.
        if not trainer.is_last_batch:
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: EMALightningModule) -> None:
        loss = self._loss_sum / self._loss_weight
        self._loss_sum, self._loss_weight = 0.0, 0
        row = self._record(trainer.current_epoch + 1, loss, pl_module)
        if loss > self.training.divergence_factor * self._lowest_loss:
            raise Diverged(
                f"the training loss of epoch {row['epoch']} is {loss:.3g}, that before was as low "
                f"as {self._lowest_loss:.3g}"
            )
        if not math.isfinite(row["val_force_rmse_ev_per_angstrom"]):
            raise Diverged(f"the validation of epoch {row['epoch']} is not finite")
        self._lowest_loss = min(self._lowest_loss, loss)
        # A run that is about to finish has no use for a state, which would not know that it is.
        if not trainer.should_stop and trainer.current_epoch + 1 < self.training.max_epochs:
            self._save_if_due(trainer)

    def _record(self, epoch: int, loss: float, module: EMALightningModule) -> dict[str, float]:
        values = module.val_metrics[0].metrics_values_epoch
        energy, forces = values["per_atom_energy_rmse"], values["forces_rmse"]
        numbers = (epoch, loss, 1000 * energy, forces, self.training.learning_rate, self.seconds)
        row = dict(zip(CURVE, numbers, strict=True))
        self.rows.append(row)
        finite = math.isfinite(energy) and math.isfinite(forces)
        better = finite and (self.best is None or forces < self.best["forces"])
        if better:
            self.best = {
                "epoch": epoch,
                "forces": forces,
                "errors": named_errors(energy, forces),
                "weights": [w.detach().cpu().clone() for w in module.ema.ema_weights],
            }
        trained = "untrained" if epoch == 0 else f"train loss {loss:.4g}"
        self.state.log(
            f"epoch {epoch}: {trained}, validation {1000 * energy:.2f} meV/atom {forces:.4f} eV/Å"
            f"{' (best)' if better else ''}, {self.seconds:.1f} s",
            routine=True,
        )
        return row

    # -- the saved state ----------------------------------------------------------------------

    def _save_if_due(self, trainer: lightning.Trainer) -> None:
        due = time.monotonic() - self._saved >= self.training.checkpoint_seconds
        if due or self.stop:
            self.state.save(lambda path: trainer.save_checkpoint(path, weights_only=False))
            self._saved = time.monotonic()
        if self.stop:
            raise Interrupted(
                f"stopped by {self.stop.signal} in epoch {trainer.current_epoch + 1} after "
                f"{self.steps} steps; run the same command again to go on"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what must outlive an interruption."""
        epochs_done = self.rows[-1]["epoch"]
        return {
            "rows": self.rows,
            "best": self.best,
            "steps": self.steps,
            "lowest_loss": self._lowest_loss,
            "loss_sum": self._loss_sum,
            "loss_weight": self._loss_weight,
            "seconds": (self.seconds, self.wall_seconds),
            "power": self.power.total(),
            # Epoch to go on with, and how many structures of it have been seen.
            "position": (epochs_done, self._loss_weight),
            # The procedure draws no random numbers, but a network of the user's may.
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.rows = state_dict["rows"]
        self.best = state_dict["best"]
        self.steps = state_dict["steps"]
        self._lowest_loss = state_dict["lowest_loss"]
        self._loss_sum = state_dict["loss_sum"]
        self._loss_weight = state_dict["loss_weight"]
        self._earlier = state_dict["seconds"]
        self.power.earlier = state_dict["power"]
        self.sampler.resume(*state_dict["position"])
        torch.set_rng_state(state_dict["random"])
        if len(state_dict["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state_dict["random_cuda"])


def _step_loss(module: EMALightningModule) -> float:
    """Loss of the last step, of numbers that NequIP has fetched from the device already."""
    values = module.loss.metrics_values_step
    return sum(
        entry.coeff * values[name]
        for name, entry in module.loss.entries.items()
        if entry.coeff is not None
    )


def write_curve(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write the learning curve, one row an epoch; numbers that are not finite stay empty."""
    with open(path, "w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, CURVE)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: v if math.isfinite(v) else "" for k, v in row.items()})
