"""What a training computes again and again, as functions of tensors: gradients and predictions.

:class:`Functions` evaluates them as they are, with NequIP's modules, or compiled ahead of time. The
weights are arguments, so that one program serves all runs of a network's shape, and a moving
average of the weights as well as the weights.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from types import ModuleType
from typing import Any

import torch
from nequip.data import AtomicDataDict as Key
from nequip.nn import GraphModel
from torch import Tensor
from torch.func import functional_call

from pretraining.training.compiled import fused_convolution as fusion
from pretraining.training.compiled import tensor_product as contraction
from pretraining.training.compiled.compile_cache import (
    Program,
    Source,
    load_program,
    programs_folder,
)
from pretraining.training.compiled.fused_convolution import write_out
from pretraining.training.network import paper as network

FUNCTIONS = GRADIENTS, PREDICTIONS = "gradients", "predictions"
# Of a network's configuration: they show in its weights and buffers, or not at all.
# A builder of somebody else's may build them in all the same, but for the seed.
DECIDED_BY_WEIGHTS = ("seed", "type_names", "avg_num_neighbors")
INPUTS = (
    Key.POSITIONS_KEY,
    Key.CELL_KEY,
    Key.ATOM_TYPE_KEY,
    Key.EDGE_INDEX_KEY,
    Key.EDGE_CELL_SHIFT_KEY,
    Key.BATCH_KEY,
    Key.NUM_NODES_KEY,
)
LABELS = (Key.TOTAL_ENERGY_KEY, Key.FORCE_KEY)
# Dimensions of any size: which one of a tensor counts structures, atoms or edges.
SIZES = {
    Key.CELL_KEY: {0: "structures"},
    Key.NUM_NODES_KEY: {0: "structures"},
    Key.TOTAL_ENERGY_KEY: {0: "structures"},
    Key.POSITIONS_KEY: {0: "atoms"},
    Key.ATOM_TYPE_KEY: {0: "atoms"},
    Key.BATCH_KEY: {0: "atoms"},
    Key.FORCE_KEY: {0: "atoms"},
    Key.EDGE_INDEX_KEY: {1: "edges"},
    Key.EDGE_CELL_SHIFT_KEY: {0: "edges"},
}
# Difference to NequIP's modules beyond which a program is not believed: of a tensor, relative to
# itself, and to all of its kind. In single precision two orders of summing differ by 1e-6, and by a
# few times 1e-5 in small gradients.
TOLERANCE, FLOOR = 1e-3, 1e-5


# Lengths are in double precision up to the network's embeddings.
TYPES = dict.fromkeys(SIZES, torch.float64)
TYPES |= dict.fromkeys(
    (Key.ATOM_TYPE_KEY, Key.EDGE_INDEX_KEY, Key.BATCH_KEY, Key.NUM_NODES_KEY), torch.int64
)
# What programs are made of, beside the builder of the network.
CODE = (sys.modules[__name__], contraction, fusion, network)
# Their builders are versioned, or among these.
KNOWN_PACKAGES = ("nequip", "pretraining")


class Functions:
    """Gradients and predictions of one network.

    Parameters
    ----------
    model
        The network, on its device; its weights are not used but where they are given.
    loss
        Weights of the mean squared errors of the energy an atom (``energy``) and of the force
        components (``forces``); only their ratio matters.
    """

    def __init__(self, model: GraphModel, loss: Mapping[str, float]) -> None:
        self._model = model
        self._names = [name for name, _ in model.named_parameters()]
        total = loss["energy"] + loss["forces"]
        self._coefficients = (loss["energy"] / total, loss["forces"] / total)
        self._programs: dict[str, Program] = {}

    @property
    def compiled(self) -> bool:
        """Whether programs are used."""
        return bool(self._programs)

    def gradients(
        self, batch: Key.Type, weights: Sequence[Tensor]
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Return the loss of a batch, a scalar, and its gradient in each of the weights.

        Parameters
        ----------
        batch
            Labelled structures in NequIP's form.
        weights
            In the order of the network's ``parameters()``.
        """
        if not self._fits(GRADIENTS, batch):
            loss, *gradients = self._gradients(batch, weights, self._buffers)
        else:
            arguments = _arguments(batch, (*INPUTS, *LABELS))
            with torch.no_grad():
                loss, *gradients = self._programs[GRADIENTS](
                    *arguments, *weights, *self._buffers.values()
                )
        return loss, gradients

    def predict(self, batch: Key.Type, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the energies, shape (structures, 1), and forces, (atoms, 3), of a batch."""
        if not self._fits(PREDICTIONS, batch):
            return self._predict(batch, weights, self._buffers)
        with torch.no_grad():
            energies, forces = self._programs[PREDICTIONS](
                *_arguments(batch, INPUTS), *weights, *self._buffers.values()
            )
        return energies, forces

    def compile(
        self,
        config: Mapping[str, Any],
        example: Key.Type,
        say: Callable[[str], None],
        names: Sequence[str] = FUNCTIONS,
    ) -> None:
        """Use programs from now on, if they can be had and agree with the network's modules.

        Parameters
        ----------
        config
            The network's, as of :func:`pretraining.training.network.builders.network_config`.
        example
            A batch on the device where the programs will run, to trace the functions and to compare
            results; labelled, if gradients are wanted.
        say
            Is told what takes long, and why there are no programs.
        names
            Of :data:`FUNCTIONS`, those that will be wanted.
        """
        if not _has_two(example):
            say("not compiled: that takes a batch of two structures that have neighbours")
            return
        weights = [weight.detach() for weight in self._model.parameters()]
        plain = self._results(names, example, weights)
        try:
            self._programs = self._load(names, config, example, say)
            compiled = self._results(names, example, weights)
        except Exception as error:
            self._programs = {}
            reason = str(error).strip().splitlines() or [type(error).__name__]
            say(f"not compiled ({reason[0]}): NequIP's own modules are used, which are slower")
            return
        if not all(_agree(a, b) for a, b in zip(plain, compiled, strict=True)):
            self._programs = {}
            say(
                "not compiled: programs and NequIP's modules differ, and the slower modules are "
                f"used; if the code of the network has changed, empty {programs_folder()}"
            )

    def _results(
        self, names: Sequence[str], batch: Key.Type, weights: Sequence[Tensor]
    ) -> list[Sequence[Tensor]]:
        """Results of each function, of the same kind together."""
        results: list[Sequence[Tensor]] = []
        if GRADIENTS in names:
            loss, gradients = self.gradients(batch, weights)
            results += [[loss], gradients]
        energies, forces = self.predict(batch, weights)
        return [*results, [energies], [forces]]

    # -- as they are ------------------------------------------------------------------------------

    @cached_property
    def _buffers(self) -> dict[str, Tensor]:
        return dict(self._model.named_buffers())

    def _out(
        self,
        batch: Key.Type,
        weights: Sequence[Tensor],
        buffers: Mapping[str, Tensor],
        training: bool,
        model: GraphModel | None = None,
    ) -> Key.Type:
        model = self._model if model is None else model
        if model.training != training:
            model.train(training)
        state = dict(zip(self._names, weights, strict=True)) | dict(buffers)
        # The network asks for the gradient in the positions that it is given.
        data = {name: batch[name].detach() for name in INPUTS}
        return functional_call(model, state, (data,))

    def _gradients(
        self,
        batch: Key.Type,
        weights: Sequence[Tensor],
        buffers: Mapping[str, Tensor],
        model: GraphModel | None = None,
    ) -> list[Tensor]:
        weights = [weight.detach().requires_grad_() for weight in weights]
        with torch.enable_grad():
            out = self._out(batch, weights, buffers, True, model)
            energies = out[Key.TOTAL_ENERGY_KEY] - batch[Key.TOTAL_ENERGY_KEY]
            errors = (
                (energies / batch[Key.NUM_NODES_KEY].view(-1, 1)).square().mean(),
                (out[Key.FORCE_KEY] - batch[Key.FORCE_KEY]).square().mean(),
            )
            loss = self._coefficients[0] * errors[0] + self._coefficients[1] * errors[1]
            gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
        return [loss.detach(), *[gradient.detach() for gradient in gradients]]

    def _predict(
        self,
        batch: Key.Type,
        weights: Sequence[Tensor],
        buffers: Mapping[str, Tensor],
        model: GraphModel | None = None,
    ) -> tuple[Tensor, Tensor]:
        weights = [weight.detach() for weight in weights]
        with torch.enable_grad():
            out = self._out(batch, weights, buffers, False, model)
        return out[Key.TOTAL_ENERGY_KEY].detach(), out[Key.FORCE_KEY].detach()

    # -- compiled ---------------------------------------------------------------------------------

    def _fits(self, name: str, batch: Key.Type) -> bool:
        return name in self._programs and _has_two(batch)

    def _load(
        self,
        names: Sequence[str],
        config: Mapping[str, Any],
        example: Key.Type,
        say: Callable[[str], None],
    ) -> dict[str, Program]:
        device = example[Key.POSITIONS_KEY].device
        programs: dict[str, Program | None] = dict.fromkeys(names)
        # Where another run is about to compile one, this run compiles the other meanwhile.
        for wait in (False, True):
            for name in names:
                programs[name] = programs[name] or load_program(
                    lambda name=name: self._source(name, example),
                    self._about(name, config),
                    device,
                    say,
                    wait=wait,
                )
        return {name: program for name, program in programs.items() if program}

    def _source(self, name: str, example: Key.Type) -> Source:
        weights = list(self._model.parameters())
        fields = (*INPUTS, *LABELS) if name == GRADIENTS else INPUTS
        sizes = {size: torch.export.Dim(size, min=2) for size in ("structures", "atoms", "edges")}
        shapes = [{i: sizes[size] for i, size in SIZES[field].items()} for field in fields]
        others = [*weights, *self._buffers.values()]
        ends = len(fields), len(fields) + len(weights)
        compute = self._gradients if name == GRADIENTS else self._predict
        network = write_out(copy.deepcopy(self._model))

        def function(*tensors: Tensor) -> list[Tensor]:
            batch = dict(zip(fields, tensors[: ends[0]], strict=True))
            buffers = dict(zip(self._buffers, tensors[ends[1] :], strict=True))
            return list(compute(batch, tensors[ends[0] : ends[1]], buffers, network))

        # Each a tensor of its own: the compiler would take the same one for the same always.
        arguments = [tensor.detach().clone() for tensor in [*_arguments(example, fields), *others]]
        return Source(function, arguments, [*shapes, *[{} for _ in others]])

    def _about(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """All that a program depends on; what else each run decides is in weights and buffers."""
        package = config["_target_"].partition(".")[0]
        known = package in KNOWN_PACKAGES
        decided = DECIDED_BY_WEIGHTS if known else DECIDED_BY_WEIGHTS[:1]
        shape = {key: value for key, value in config.items() if key not in decided}
        about = {
            "function": name,
            "network": shape | {"types": len(config["type_names"])},
            "versions": {name: version(name) for name in ("nequip", "e3nn")},
            "code": _digest(CODE if known else [*CODE, *_modules(package)]),
        }
        return about | ({"loss": self._coefficients} if name == GRADIENTS else {})


def _has_two(batch: Key.Type) -> bool:
    """Programs are for two of each and more."""
    return len(batch[Key.NUM_NODES_KEY]) > 1 and batch[Key.EDGE_INDEX_KEY].shape[1] > 1


def _arguments(batch: Key.Type, fields: Sequence[str]) -> list[Tensor]:
    """A program takes it for granted that arrays lie in memory as the examples did."""
    return [batch[field].to(TYPES[field]).contiguous() for field in fields]


def _agree(plain: Sequence[Tensor], compiled: Sequence[Tensor]) -> bool:
    """Whether tensors of a kind are the same up to rounding; not if there is no number."""
    sizes = [float(tensor.double().norm()) for tensor in plain]
    floor = FLOOR * math.hypot(*sizes)
    differences = [float((a - b).double().norm()) for a, b in zip(plain, compiled, strict=True)]
    return all(d <= TOLERANCE * s + floor for d, s in zip(differences, sizes, strict=True))


def _modules(package: str) -> list[ModuleType]:
    """Return the modules of a package, or the one of a file, that have been loaded from source."""
    found = [name for name in sys.modules if name.partition(".")[0] == package]
    modules = [sys.modules[name] for name in sorted(found)]
    return [module for module in modules if (inspect.getsourcefile(module) or "").endswith(".py")]


def _digest(modules: Sequence[ModuleType]) -> str:
    """Digest of the code that programs are made of; comments and layout do not matter."""
    parts = [ast.dump(ast.parse(inspect.getsource(module))) for module in modules]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
