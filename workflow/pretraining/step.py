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
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from hydra.utils import get_method
from nequip.data import AtomicDataDict as Key
from nequip.nn import GraphModel
from nequip.nn._tp_scatter_base import TensorProductScatter
from torch import Tensor
from torch.func import functional_call

from pretraining import contraction, fusion, network
from pretraining.contraction import Contraction
from pretraining.fusion import write_out
from pretraining.programs import Program, Source, load_program

FUNCTIONS = GRADIENTS, PREDICTIONS = "gradients", "predictions"
# Of a network's configuration: they show in its weights and buffers, or not at all.
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
# Relative difference to NequIP's modules beyond which a program is not believed. In single
# precision the two orders of summing differ by 1e-6, and by a few times 1e-5 in small gradients.
TOLERANCE = 1e-3


# Measured on one core of a 2023 server, without programs: seconds a step of a small network, and
# seconds an edge and term of its convolutions.
SECONDS_A_STEP, SECONDS_A_TERM = 0.03, 3.8e-8
# A prediction takes this share of a training step on the same structures.
PREDICTION = 0.25


def plain_seconds(model: GraphModel, steps: float, edges: float) -> float:
    """Return about how long steps take on a core without programs, s.

    Parameters
    ----------
    model
        The network.
    steps
        Number of steps.
    edges
        Edges in all of them together.
    """
    products = [m.tp for m in model.modules() if isinstance(m, TensorProductScatter)]
    contractions = [Contraction.of(product) for product in products]
    terms = sum(contraction.n_terms for contraction in contractions if contraction)
    return SECONDS_A_STEP * steps + SECONDS_A_TERM * terms * edges


# What programs are made of, beside the builder of the network.
CODE = (sys.modules[__name__], contraction, fusion, network)


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
            The network's, as of :func:`pretraining.builders.network_config`.
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
        difference = max(_difference(a, b) for a, b in zip(plain, compiled, strict=True))
        if not difference < TOLERANCE:
            self._programs = {}
            say(
                f"not compiled: programs and NequIP's modules differ by {difference:.1e}; the "
                "modules are used, which are slower"
            )

    def _results(
        self, names: Sequence[str], batch: Key.Type, weights: Sequence[Tensor]
    ) -> list[Tensor]:
        results: list[Tensor] = []
        if GRADIENTS in names:
            loss, gradients = self.gradients(batch, weights)
            results += [loss, torch.cat([gradient.ravel() for gradient in gradients])]
        return [*results, *self.predict(batch, weights)]

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
        arguments = [
            tensor.detach().clone() for tensor in [*[example[field] for field in fields], *others]
        ]
        return Source(function, arguments, [*shapes, *[{} for _ in others]])

    def _about(self, name: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """All that a program depends on; what else each run decides is in weights and buffers."""
        shape = {key: value for key, value in config.items() if key not in DECIDED_BY_WEIGHTS}
        about = {
            "function": name,
            "network": shape | {"types": len(config["type_names"])},
            "versions": {package: version(package) for package in ("nequip", "e3nn")},
            "code": _digest([*CODE, config["_target_"]]),
        }
        return about | ({"loss": self._coefficients} if name == GRADIENTS else {})


def _has_two(batch: Key.Type) -> bool:
    """Programs are for two of each and more."""
    return len(batch[Key.NUM_NODES_KEY]) > 1 and batch[Key.EDGE_INDEX_KEY].shape[1] > 1


def _arguments(batch: Key.Type, fields: Sequence[str]) -> list[Tensor]:
    """A program takes it for granted that arrays lie in memory as the examples did."""
    return [batch[field].contiguous() for field in fields]


def _difference(a: Tensor, b: Tensor) -> float:
    """Norm of a difference, relative to the first; not a number where one of them is not."""
    size = float(a.double().norm())
    return float((a - b).double().norm()) / (size or 1.0)


def _digest(sources: Sequence[Any]) -> str:
    """Digest of the code that programs are made of; comments and layout do not matter."""
    parts = []
    for source in sources:
        module = inspect.getmodule(get_method(source)) if isinstance(source, str) else source
        parts.append(ast.dump(ast.parse(inspect.getsource(module))))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
