"""Train one network: pre-training, direct training or fine-tuning.

The three differ only in their initial weights. A run may be stopped and resumed at any time. On the
CPU its result does not change by that: the order of an epoch depends only on the seed and the
epoch, and everything else is in the checkpoint.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from typing import Any

import pandas as pd
import torch
from nequip.data import AtomicDataDict as Key
from nequip.nn import GraphModel
from nequip.train import EMALightningModule
from torch.utils.data import Subset

from pretraining.data.energy_references import zero_of
from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.runtime.cli import log
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import digest, file_sha256
from pretraining.runtime.lease import Lease
from pretraining.runtime.records import read_record, write_record
from pretraining.runtime.stop import Interrupted, StopRequest
from pretraining.runtime.tables import write_csv
from pretraining.study.queries import code_in
from pretraining.study.settings import COMPILE_ABOVE_S, Request, load_settings, run_identity
from pretraining.training.compiled.fused_convolution import PREDICTION_SHARE, uncompiled_seconds
from pretraining.training.compiled.loss_and_gradient import Evaluator
from pretraining.training.device import GpuUse, device_name, mean_power, resolve_device, versions
from pretraining.training.loop import Diverged, Fit, check_state
from pretraining.training.network.builders import copy_parameters, count_parameters, network_config
from pretraining.training.network.checkpoint import (
    load_model,
    make_module,
    network_of,
    save_model,
    set_weights,
    type_names_of_model,
)
from pretraining.training.network.graphs import (
    StructureDataset,
    collate,
    evaluation_batch,
    make_loader,
    type_names_of,
)
from pretraining.training.predictions import NO_ERRORS, describe, named_errors
from pretraining.training.progress import LEASE, record_end
from pretraining.training.state import RunState

# Structures in the example batch of the compiler.
EXAMPLES = 3
# Training errors are those of the first structures only.
TRAIN_ERRORS_OF = 1000


def train(request: Request, started: float | None = None) -> int:
    """Carry out a run, or resume it; return 0, or 75 if a signal has stopped it.

    Parameters
    ----------
    started
        Value of ``time.monotonic()`` when the program began.
    """
    started = time.monotonic() if started is None else started
    request.check()
    with StopRequest() as stop:
        try:
            Run(request, stop, started).execute()
        except Interrupted as interruption:
            record_end(request.out, "stopped", str(interruption))
            return stop.leave(interruption)
        except Exception as error:
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            record_end(request.out, "failed", f"{kind}{error}")
            again = f"snakemake [the same options] {request.out}/metrics.json"
            log(f"{request.name} has failed; to run only it again: {again}")
            raise
    return 0


class Run:
    """One run under way; arguments as in :func:`train`."""

    def __init__(self, request: Request, stop: StopRequest, started: float) -> None:
        self.request = request
        self.stop = stop
        self.started = started
        self.settings = load_settings(request.settings, request.kind, request.runtime)
        self.training = self.settings.training
        self.transform = Transform.from_settings(request.transform, self.settings.transforms)
        self.device = resolve_device(self.training.device, self.training.allow_cpu)
        if self.device.type == "cpu":
            torch.set_num_threads(self.training.threads)
        self.gpu_use = GpuUse(self.device)
        self.store = Store(request.data)
        self.rows = {
            "train": self.store.indices("train", request.n),
            "val": self.store.indices("val"),
            "test": self.store.indices("test"),
        }
        if not self.rows["val"]:
            raise UserError(f"{request.data} has no validation structures, which choose the model")
        trust = request.trust or list(code_in(self.settings.network))
        self.parent = None
        if request.initial is not None:
            self.parent = load_model(request.initial, trust=trust)
        self.identity = run_identity(
            (request.kind, request.n, request.seed),
            self.settings,
            dataclasses.asdict(self.transform),
            self.store.checksum,
            None if request.initial is None else file_sha256(request.initial),
        )

    def execute(self) -> None:
        """Train, evaluate and write the outputs, unless another process has just done so."""
        with Lease(self.request.out / LEASE, self.request.name) as self.lease:
            if self.lease.waited and self._is_done():
                log(f"{self.request.name}: done by that process")
            else:
                self._execute()

    def _is_done(self) -> bool:
        """Whether the metrics of this very run are there, which are written last."""
        try:
            metrics = read_record(self.request.out / "metrics.json")
        except UserError:
            return False
        return metrics.get("config_hash") == digest(self.identity)

    def _execute(self) -> None:
        self.state = RunState(self.request.out, self.identity, self.lease)
        self.state.report(
            phase="starting", max_epochs=self.training.max_epochs, device=self.device.type
        )
        self.type_names = self._type_names()
        config = network_config(
            self.settings.network,
            type_names=self.type_names,
            avg_num_neighbors=1.0,
            seed=self.request.seed,
            cutoff=self.transform.cutoff,
        )
        self.cutoff = config["r_max"]
        self.train_set, self.val_set = self._dataset("train"), self._dataset("val")
        config["avg_num_neighbors"] = self.train_set.avg_num_neighbors
        module = self._module(config)
        if self.device.type == "cuda" and not self.training.workers:
            self.train_set.to(self.device)
        self.evaluator = Evaluator(network_of(module), self.training.loss)
        saved = self.state.load(functools.partial(check_state, module))
        if self._wants_compiling(network_of(module), config, saved):
            examples = range(min(len(self.train_set), EXAMPLES))
            example = Key.to_(collate([self.train_set[i] for i in examples]), self.device)
            self.state.report(phase="compiling")
            self.evaluator.compile(config, example, self.state.log)
            self.state.report(phase="starting")
        torch.manual_seed(self.request.seed)
        fit = Fit(
            module,
            self.evaluator,
            self.training,
            self.train_set,
            self.val_set,
            seed=self.request.seed,
            device=self.device,
            state=self.state,
            stop=self.stop,
            started=self.started,
            gpu_use=self.gpu_use,
        )
        if saved is not None:
            fit.load_state_dict(saved)
        self._log_start()
        self.stop.deferred = True
        try:
            stopped = fit.execute()
        except Diverged as divergence:
            self.state.log(f"diverged: {divergence}")
            stopped = str(divergence)
        finally:
            self.stop.deferred = False
        self._finish(module, fit, stopped)

    # -- preparation ------------------------------------------------------------------------------

    def _type_names(self) -> list[str]:
        """Elements of the set, or of the parent network if it knows them all."""
        present = type_names_of(self.store, self.transform)
        if self.parent is None:
            return present
        known = type_names_of_model(self.parent)
        if set(present) <= set(known):
            return known
        if len(present) == len(known) == 1:
            return present
        raise UserError(
            f"{self.request.initial} was trained on {', '.join(known)}, and cannot be fine-tuned "
            f"on {', '.join(present)}: only a network of one element may change its element"
        )

    def _dataset(self, part: str) -> StructureDataset:
        return StructureDataset(
            self.store,
            self.rows[part],
            self.type_names,
            self.cutoff,
            self.transform,
            self.training.neighbour_memory_gb * 1e9,
        )

    def _module(self, config: dict[str, Any]) -> EMALightningModule:
        """Return the training module with the initial weights, on the device."""
        module = make_module(config, self.training, about=self._about())
        network = network_of(module)
        self.n_parameters = count_parameters(network)
        if self.parent is not None:
            weights = dict(self.parent.named_parameters())
            copy_parameters(weights, network, str(self.request.initial))
            set_weights(module, list(network.parameters()))
        return module.to(self.device)

    def _wants_compiling(
        self, network: GraphModel, config: dict[str, Any], saved: dict[str, Any] | None
    ) -> bool:
        """Whether to compile the steps; a resumed run does as before."""
        if saved is not None:
            return saved["compiled"]
        training = self.training
        if training.compile != "auto":
            asked = "set, or auto in a long grid" if training.compile == "always" else "set"
            self.state.log(f"compile: {training.compile} ({asked})")
            return training.compile == "always"
        if self.evaluator.cached(config, self.device):
            self.state.log("this machine has compiled these functions before: they are used")
            return True
        steps = math.ceil(len(self.train_set) / training.batch_size)
        edges = self.train_set.n_pairs + PREDICTION_SHARE * self.val_set.n_pairs
        seconds = training.max_epochs * uncompiled_seconds(network, steps, edges)
        wanted = seconds > COMPILE_ABOVE_S
        judged = "worth" if wanted else "not worth"
        self.state.log(
            f"at most {seconds:.0f} s of uncompiled steps: {judged} compiling, which takes minutes "
            f"(compile: auto, above {COMPILE_ABOVE_S:.0f} s)"
        )
        return wanted

    def _log_start(self) -> None:
        data = self.train_set
        self.state.log(
            f"{self.request.kind} on {len(data)} structures ({data.n_atoms} atoms, {data.n_pairs} "
            f"pairs, {data.avg_num_neighbors:.2f} neighbours per atom; {data.n_cached} neighbour "
            f"lists kept), {self.n_parameters} parameters, "
            f"{'compiled' if self.evaluator.compiled else 'not compiled'}, "
            f"{device_name(self.device)}; ready after {time.monotonic() - self.started:.1f} s"
        )

    # -- results ----------------------------------------------------------------------------------

    def _finish(self, module: EMALightningModule, fit: Fit, stopped: str) -> None:
        """Evaluate the best model and write the outputs; the metrics come last."""
        self.state.report(phase="evaluating")
        train_seconds, best = fit.seconds, fit.best
        n_evaluated = min(len(self.train_set), TRAIN_ERRORS_OF)
        errors = {"val": NO_ERRORS, "test": NO_ERRORS, "train": NO_ERRORS}
        if best is not None:
            set_weights(module, best["weights"])
            weights = list(module.model.parameters())
            size = evaluation_batch(self.train_set, self.training.val_batch_size, self.device)
            errors["val"] = best["errors"]
            for part, structures in (
                ("test", self._dataset("test")),
                ("train", Subset(self.train_set, range(n_evaluated))),
            ):
                found = self.evaluator.errors(make_loader(structures, size), weights)
                errors[part] = named_errors(*found)
        diverged = stopped not in ("max_epochs", "patience")
        gpu_use = self.gpu_use.records()
        metrics = {
            **self._about(),
            **errors,
            "diverged": diverged,
            "stopped_because": "diverged" if diverged else stopped,
            "divergence": stopped if diverged else None,
            "epochs": int(fit.rows[-1]["epoch"]),
            "best_epoch": None if best is None else best["epoch"],
            "steps": fit.steps,
            "n_train": len(self.train_set),
            "n_val": len(self.rows["val"]),
            "n_test": len(self.rows["test"]),
            "n_train_evaluated": n_evaluated,
            "n_parameters": self.n_parameters,
            "avg_num_neighbors": self.train_set.avg_num_neighbors,
            "cutoff": self.cutoff,
            "elements": self.type_names,
            "device": self.device.type,
            "device_name": device_name(self.device),
            "train_time_s": round(train_seconds, 3),
            "wall_time_s": round(fit.wall_seconds, 3),
            "threads": self.training.threads if self.device.type == "cpu" else None,
            "gpu_use": gpu_use,
            "power_w_mean": mean_power(gpu_use),
        }
        out = self.request.out
        self.lease.check()
        save_model(module, out / "model.ckpt")
        curve = pd.DataFrame(fit.rows).replace([math.inf, -math.inf], math.nan)
        write_csv(out / "curve.csv", curve, floats=None)
        self.state.log(
            f"stopped ({metrics['stopped_because']}) after {metrics['epochs']} epochs; best epoch "
            f"{metrics['best_epoch']}; test {describe(errors['test'])}; "
            f"{metrics['wall_time_s']:.1f} s in all"
        )
        self.state.hand_over_log(out / "train.log")
        write_record(out / "metrics.json", metrics, out / "model.ckpt")
        self.state.remove()

    def _about(self) -> dict[str, Any]:
        """Description of the run, for the metrics and the model file."""
        return {
            "kind": self.request.kind,
            "n": self.request.n,
            "seed": self.request.seed,
            "transform": self.transform.name,
            "config_hash": digest(self.identity),
            "data_checksum": self.store.checksum,
            "energy_zero": {
                self.transform.elements.get(element, element): energy
                for element, energy in zero_of(self.store.provenance).items()
            },
            "versions": versions(),
        }
