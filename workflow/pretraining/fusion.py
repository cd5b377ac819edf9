"""A network whose convolutions run in compiled loops: the same weights, the same results.

:func:`fuse` replaces NequIP's ``TensorProductScatter`` in a network in memory. Names and shapes of
all weights and buffers stay, so that checkpoints are those of the network as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from nequip.nn import GraphModel
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.model_modifier_utils import replace_submodules
from torch import Tensor

from pretraining.contraction import Contraction
from pretraining.kernels import Kernels, load_kernels

# Measured with the paper's network on one core: 1.8 s a step of 10 cells of 64 atoms.
SECONDS_A_TERM = 3.8e-8
# Compiling a network's kernels takes minutes, once on a machine; a shorter run (s) cannot gain.
WORTH_COMPILING = 60.0
# Energies and forces take this share of a training's step on the same structures.
EVALUATION = 0.25


def fuse(
    model: GraphModel,
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
) -> bool:
    """Replace the convolutions of a network by compiled ones, in place.

    Parameters
    ----------
    model
        Network of NequIP's modules.
    device
        Where it will run. On a GPU PyTorch compiles the loops as they are first used.
    say
        Is told what takes long, and why a convolution stays as it is.

    Returns
    -------
    bool
        Whether all of them have been replaced.
    """
    complete = True

    def replaced(old: TensorProductScatter) -> torch.nn.Module:
        nonlocal complete
        contraction = Contraction.of(old.tp)
        if contraction is None:
            complete = False
            say("a convolution with several multiplicities stays as NequIP has it")
            return old
        if device.type == "cuda":
            return FusedConvolution(old, contraction, _compiled_on_use(contraction))
        try:
            kernels = load_kernels(contraction, old.model_dtype, say)
        except Exception as error:
            complete = False
            reason = str(error).strip().splitlines() or [type(error).__name__]
            say(f"no compiled kernels ({reason[0]}): NequIP's own are used, which are slower")
            return old
        return FusedConvolution(old, contraction, kernels)

    replace_submodules(model, TensorProductScatter, replaced)
    return complete


def choose_convolutions(
    model: GraphModel,
    device: torch.device,
    edges: float,
    kernels: str,
    say: Callable[[str], None],
) -> str:
    """Replace a network's convolutions by compiled ones where these earn their making.

    What has been compiled before is no reason: a run that goes on must do as it did.

    Parameters
    ----------
    model, device, say
        As of :func:`fuse`.
    edges
        Edges in all steps of a training together; evaluations count for a quarter.
    kernels
        As of :class:`pretraining.settings.Training`.

    Returns
    -------
    str
        Which they are, for a log.
    """
    wanted = kernels == "always" or (
        kernels == "auto"
        and device.type == "cpu"
        and SECONDS_A_TERM * _terms(model) * edges > WORTH_COMPILING
    )
    if not wanted:
        return "NequIP's"
    return "compiled" if fuse(model, device, say) else "partly compiled"


def _terms(model: GraphModel) -> int:
    """Return the terms an edge in all convolutions of a network."""
    products = [m.tp for m in model.modules() if isinstance(m, TensorProductScatter)]
    contractions = [Contraction.of(product) for product in products]
    return sum(contraction.n_terms for contraction in contractions if contraction)


def _compiled_on_use(contraction: Contraction) -> Kernels:
    plain = Kernels.plain(contraction)
    options: dict[str, Any] = {"dynamic": True, "fullgraph": True}
    return Kernels(
        torch.compile(plain.forward, **options),
        torch.compile(plain.gradient, **options),
        torch.compile(plain.second, **options),
    )


class FusedConvolution(torch.nn.Module):
    """Takes the place of a ``TensorProductScatter``.

    Parameters
    ----------
    old
        What it replaces; e3nn's tensor product stays in it, for its buffers in checkpoints.
    contraction
        The same tensor product.
    kernels
        Functions that evaluate it.
    """

    def __init__(
        self, old: TensorProductScatter, contraction: Contraction, kernels: Kernels
    ) -> None:
        super().__init__()
        self.tp = old.tp
        self.contraction = contraction
        self.kernels = kernels

    def forward(
        self,
        x: Tensor,
        edge_attr: Tensor,
        edge_weight: Tensor,
        edge_dst: Tensor,
        edge_src: Tensor,
    ) -> Tensor:
        """Do what NequIP's does; features are (atoms, irreps), their multiplicity not last."""
        contraction = self.contraction
        weights = edge_weight.view(-1, contraction.n_paths, contraction.multiplicity)
        # Compiled loops are for two of each and more.
        small = len(x) < 2 or len(edge_dst) < 2
        kernels = Kernels.plain(contraction) if small else self.kernels
        out = Convolution.apply(
            kernels, _by_component(x, self.tp.irreps_in1), edge_attr, weights, edge_src, edge_dst
        )
        return _by_irrep(out, self.tp.irreps_out)


def _by_component(x: Tensor, irreps: Any) -> Tensor:
    """Lay features out as (atoms, components, multiplicity)."""
    parts = torch.split(x, [mul * ir.dim for mul, ir in irreps], dim=1)
    blocks = zip(parts, irreps, strict=True)
    return torch.cat([p.view(-1, mul, ir.dim).transpose(1, 2) for p, (mul, ir) in blocks], dim=1)


def _by_irrep(x: Tensor, irreps: Any) -> Tensor:
    """Lay features out as e3nn does: (atoms, irreps)."""
    parts = torch.split(x, [ir.dim for _, ir in irreps], dim=1)
    return torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=1)


class Convolution(torch.autograd.Function):
    """The convolution, differentiable twice."""

    @staticmethod
    def forward(ctx, kernels, x, y, w, sender, receiver):
        ctx.kernels = kernels
        ctx.save_for_backward(x, y, w, sender, receiver)
        return _one(kernels.forward(x, y, w, sender, receiver))

    @staticmethod
    def backward(ctx, g):
        x, y, w, sender, receiver = ctx.saved_tensors
        gradients = Gradient.apply(ctx.kernels, x, y, w, g.contiguous(), sender, receiver)
        return None, *gradients, None, None


class Gradient(torch.autograd.Function):
    """The gradient of the convolution, differentiable once."""

    @staticmethod
    def forward(ctx, kernels, x, y, w, g, sender, receiver):
        ctx.kernels = kernels
        ctx.save_for_backward(x, y, w, g, sender, receiver)
        return tuple(kernels.gradient(x, y, w, g, sender, receiver))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, hx, hy, hw):
        *inputs, sender, receiver = ctx.saved_tensors
        changes = [h.contiguous() for h in (hx, hy, hw)]
        return None, *ctx.kernels.second(*inputs, *changes, sender, receiver), None, None


def _one(out: Any) -> Tensor:
    """A compiled function returns a list."""
    return out[0] if isinstance(out, list | tuple) else out
