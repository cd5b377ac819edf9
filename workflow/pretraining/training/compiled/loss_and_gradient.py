"""Loss, gradients and predictions of a network, by NequIP's modules or as compiled functions.

The weights are arguments. One compiled function serves all runs with a network of the same shape,
for the weights and for their moving average.
"""

from __future__ import annotations

import copy
import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

import torch
from nequip.data import AtomicDataDict as Key
from nequip.nn import GraphModel
from torch import Tensor
from torch.func import functional_call

from pretraining.training.compiled import fused_convolution
from pretraining.training.compiled.compile_cache import (
    CompiledFunction,
    Uncompiled,
    cache_folder,
    code_digest,
    first_line,
    function_file,
    load_compiled,
)
from pretraining.training.network import paper
from pretraining.training.network.graphs import to_device

FUNCTIONS = GRADIENTS, PREDICTIONS = "gradients", "predictions"
Weights, Buffers = Sequence[Tensor], Mapping[str, Tensor]
# Arguments of the functions: type, and which dimension counts what. Lengths are in double precision
# up to the network's embeddings.
INPUTS = {
    Key.POSITIONS_KEY: (torch.float64, {0: "atoms"}),
    Key.CELL_KEY: (torch.float64, {0: "structures"}),
    Key.ATOM_TYPE_KEY: (torch.int64, {0: "atoms"}),
    Key.EDGE_INDEX_KEY: (torch.int64, {1: "edges"}),
    Key.EDGE_CELL_SHIFT_KEY: (torch.float64, {0: "edges"}),
    Key.BATCH_KEY: (torch.int64, {0: "atoms"}),
    Key.NUM_NODES_KEY: (torch.int64, {0: "structures"}),
}
LABELS = {
    Key.TOTAL_ENERGY_KEY: (torch.float64, {0: "structures"}),
    Key.FORCE_KEY: (torch.float64, {0: "atoms"}),
}
ARGUMENTS = {GRADIENTS: INPUTS | LABELS, PREDICTIONS: INPUTS}
# Tolerance for rejecting a compiled function: difference to NequIP's modules, of a tensor relative
# to itself and to all of its kind. Single precision explains 1e-6, in small gradients a few 1e-5.
TOLERANCE, FLOOR = 1e-3, 1e-5
# Entries of a network's configuration that only set its weights and buffers. Builders of other
# packages may compile them in, except the seed.
DECIDED_BY_WEIGHTS = ("seed", "type_names", "avg_num_neighbors")
KNOWN_PACKAGES = ("nequip", "pretraining")
# Modules whose code is compiled, beside the network's builder.
CODE = (sys.modules[__name__], fused_convolution, paper)


class Evaluator:
    """Loss, gradients and predictions of one network.

    Parameters
    ----------
    model
        The network, on its device.
    loss
        Weights of the mean squared errors of the energy per atom (``energy``) and of the force
        components (``forces``). Only their ratio matters.
    """

    def __init__(self, model: GraphModel, loss: Mapping[str, float]) -> None:
        total = loss["energy"] + loss["forces"]
        self._loss = loss
        self._coefficients = (loss["energy"] / total, loss["forces"] / total)
        self._model = model
        self._names = [name for name, _ in model.named_parameters()]
        self._buffers = dict(model.named_buffers())
        self._modules = {GRADIENTS: self._gradients, PREDICTIONS: self._predictions}
        self._compiled: dict[str, CompiledFunction] = {}

    @property
    def compiled(self) -> bool:
        """Whether compiled functions are used."""
        return bool(self._compiled)

    def gradients(self, batch: Key.Type, weights: Weights) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the loss of a labelled batch, a scalar, and its gradient in each of the weights.

        Weights are in the order of the network's ``parameters()``.
        """
        loss, *gradients = self._call(GRADIENTS, batch, weights)
        return loss, gradients

    def predict(self, batch: Key.Type, weights: Weights) -> tuple[Tensor, Tensor]:
        """Return the energies, shape (structures, 1), and forces, (atoms, 3), of a batch."""
        energies, forces = self._call(PREDICTIONS, batch, weights)
        return energies, forces

    def errors(self, batches: Iterable[Key.Type], weights: Weights) -> tuple[float, float]:
        """Return the RMSEs of the energy per atom, eV, and of the force components, eV/Å.

        They do not depend on how the structures are batched, and are NaN for no structures.
        """
        device = weights[0].device
        squares = torch.zeros(2, dtype=torch.float64, device=device)
        n_structures, n_components = 0, 0
        for batch in batches:
            batch = to_device(batch, device)
            energies, forces = self.predict(batch, weights)
            n_atoms = batch[Key.NUM_NODES_KEY].view(-1, 1)
            energies = (energies - batch[Key.TOTAL_ENERGY_KEY]) / n_atoms
            squares[0] += energies.double().square().sum()
            squares[1] += (forces - batch[Key.FORCE_KEY]).double().square().sum()
            n_structures += len(n_atoms)
            n_components += forces.numel()
        energy, force = squares.tolist()
        if not n_structures:
            return math.nan, math.nan
        return math.sqrt(energy / n_structures), math.sqrt(force / n_components)

    def cached(
        self, config: Mapping[str, Any], device: torch.device, names: Sequence[str] = FUNCTIONS
    ) -> bool:
        """Whether this machine has compiled the functions before; arguments as of `compile`."""
        files = (function_file(self._about(name, config), device) for name in names)
        return all(file.is_file() for file in files)

    def compile(
        self,
        config: Mapping[str, Any],
        example: Key.Type,
        log: Callable[[str], None],
        names: Sequence[str] = FUNCTIONS,
    ) -> None:
        """Use compiled functions from now on, if available and equal to the network's modules.

        Parameters
        ----------
        config
            The network's, of :func:`pretraining.training.network.builders.network_config`.
        example
            A batch on its device, to trace the functions and to compare results; labelled if
            `names` has the gradients.
        log
            Called before long waits, and with the reason if nothing is compiled.
        names
            Of :data:`FUNCTIONS`.
        """
        if not _fits(example):
            log("not compiled: that takes a batch of two structures that have neighbours")
            return
        weights = [weight.detach() for weight in self._model.parameters()]
        plain = self._results(names, example, weights)
        try:
            self._compiled = self._load(names, config, example, log)
            compiled = self._results(names, example, weights)
            if not all(_agree(a, b) for a, b in zip(plain, compiled, strict=True)):
                raise RuntimeError(
                    "the compiled functions and NequIP's modules differ; if the network's code has "
                    f"changed, empty {cache_folder()}"
                )
        except Exception as error:
            self._compiled = {}
            log(f"not compiled ({first_line(error)}): NequIP's modules are used, which are slower")

    def _results(
        self, names: Sequence[str], batch: Key.Type, weights: Weights
    ) -> list[Sequence[Tensor]]:
        """Results of each function, grouped by kind."""
        results: list[Sequence[Tensor]] = []
        if GRADIENTS in names:
            loss, gradients = self.gradients(batch, weights)
            results += [[loss], gradients]
        energies, forces = self.predict(batch, weights)
        return [*results, [energies], [forces]]

    def _call(self, name: str, batch: Key.Type, weights: Weights) -> Sequence[Tensor]:
        if name not in self._compiled or not _fits(batch):
            return self._modules[name](batch, weights, self._buffers)
        with torch.no_grad():
            return self._compiled[name](*_arguments(name, batch), *weights, *self._buffers.values())

    def _gradients(self, batch: Key.Type, weights: Weights, buffers: Buffers) -> list[Tensor]:
        """Return the loss and its gradient in each of the weights, by the network's modules."""
        weights = [weight.detach().requires_grad_() for weight in weights]
        with torch.enable_grad():
            out = self._forward(batch, weights, buffers, training=True)
            energies = out[Key.TOTAL_ENERGY_KEY] - batch[Key.TOTAL_ENERGY_KEY]
            errors = (
                (energies / batch[Key.NUM_NODES_KEY].view(-1, 1)).square().mean(),
                (out[Key.FORCE_KEY] - batch[Key.FORCE_KEY]).square().mean(),
            )
            loss = self._coefficients[0] * errors[0] + self._coefficients[1] * errors[1]
            gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
        return [loss.detach(), *[gradient.detach() for gradient in gradients]]

    def _predictions(self, batch: Key.Type, weights: Weights, buffers: Buffers) -> list[Tensor]:
        """Return energies and forces, by the network's modules."""
        weights = [weight.detach() for weight in weights]
        with torch.enable_grad():
            out = self._forward(batch, weights, buffers, training=False)
        return [out[Key.TOTAL_ENERGY_KEY].detach(), out[Key.FORCE_KEY].detach()]

    def _forward(
        self, batch: Key.Type, weights: Weights, buffers: Buffers, training: bool
    ) -> Key.Type:
        if self._model.training != training:
            self._model.train(training)
        state = dict(zip(self._names, weights, strict=True)) | dict(buffers)
        # The network takes gradients in the positions that it is given.
        data = {name: batch[name].detach() for name in INPUTS}
        return functional_call(self._model, state, (data,))

    def _load(
        self,
        names: Sequence[str],
        config: Mapping[str, Any],
        example: Key.Type,
        log: Callable[[str], None],
    ) -> dict[str, CompiledFunction]:
        device = example[Key.POSITIONS_KEY].device
        loaded: dict[str, CompiledFunction | None] = dict.fromkeys(names)
        # While another run compiles one function, this run compiles the other.
        for wait in (False, True):
            for name in names:
                loaded[name] = loaded[name] or load_compiled(
                    lambda name=name: self._uncompiled(name, example),
                    self._about(name, config),
                    device,
                    log,
                    wait=wait,
                )
        return {name: function for name, function in loaded.items() if function}

    def _uncompiled(self, name: str, example: Key.Type) -> Uncompiled:
        fused = Evaluator(fused_convolution.fuse(copy.deepcopy(self._model)), self._loss)
        compute = fused._modules[name]
        weights, fields = list(self._model.parameters()), ARGUMENTS[name]
        ends = len(fields), len(fields) + len(weights)

        def function(*tensors: Tensor) -> list[Tensor]:
            batch = dict(zip(fields, tensors[: ends[0]], strict=True))
            buffers = dict(zip(self._buffers, tensors[ends[1] :], strict=True))
            return compute(batch, tensors[ends[0] : ends[1]], buffers)

        others = [*weights, *self._buffers.values()]
        # Clones: the compiler would take two arguments that share memory as always equal.
        arguments = [tensor.detach().clone() for tensor in [*_arguments(name, example), *others]]
        sizes = {size: torch.export.Dim(size, min=2) for size in ("structures", "atoms", "edges")}
        shapes = [{i: sizes[size] for i, size in counted.items()} for _, counted in fields.values()]
        return function, arguments, [*shapes, *[{} for _ in others]]

    def _about(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """Everything that a compiled function depends on beside its arguments."""
        package = config["_target_"].partition(".")[0]
        known = package in KNOWN_PACKAGES
        decided = DECIDED_BY_WEIGHTS if known else DECIDED_BY_WEIGHTS[:1]
        shape = {key: value for key, value in config.items() if key not in decided}
        return {
            "function": name,
            "loss": self._coefficients if name == GRADIENTS else None,
            "network": shape | {"types": len(config["type_names"])},
            "versions": {name: version(name) for name in ("nequip", "e3nn")},
            "code": code_digest(CODE if known else [*CODE, *_modules_of(package)]),
        }


def _fits(batch: Key.Type) -> bool:
    """Whether a batch has two structures and edges: compiled functions need two of each size."""
    return len(batch[Key.NUM_NODES_KEY]) > 1 and batch[Key.EDGE_INDEX_KEY].shape[1] > 1


def _arguments(name: str, batch: Key.Type) -> list[Tensor]:
    """Return tensors with the types and the memory layout of the examples."""
    return [batch[key].to(dtype).contiguous() for key, (dtype, _) in ARGUMENTS[name].items()]


def _agree(plain: Sequence[Tensor], compiled: Sequence[Tensor]) -> bool:
    """Whether tensors of one kind are equal up to rounding; NaN never is."""
    sizes = [float(tensor.double().norm()) for tensor in plain]
    floor = FLOOR * math.hypot(*sizes)
    differences = [float((a - b).double().norm()) for a, b in zip(plain, compiled, strict=True)]
    return all(d <= TOLERANCE * s + floor for d, s in zip(differences, sizes, strict=True))


def _modules_of(package: str) -> list[ModuleType]:
    """Return the modules of a package that have been loaded from source files."""
    return [
        module
        for name, module in sorted(sys.modules.items())
        if name.partition(".")[0] == package
        and (inspect.getsourcefile(module) or "").endswith(".py")
    ]
