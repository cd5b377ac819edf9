"""A network whose convolutions are written out: the same weights, the same results.

:func:`write_out` replaces NequIP's ``TensorProductScatter``. As they are, these convolutions are no
faster; a compiler makes much better programs of them, because their gradients are written out too.
"""

from __future__ import annotations

from typing import Any

import torch
from nequip.nn import GraphModel
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.model_modifier_utils import replace_submodules
from torch import Tensor

from pretraining.training.compiled.tensor_product import Contraction


def write_out(model: GraphModel) -> GraphModel:
    """Replace a network's convolutions, in place, but for those with several multiplicities."""

    def replaced(old: TensorProductScatter) -> torch.nn.Module:
        contraction = Contraction.of(old.tp)
        return old if contraction is None else WrittenOut(old, contraction)

    replace_submodules(model, TensorProductScatter, replaced)
    return model


class WrittenOut(torch.nn.Module):
    """Takes the place of a ``TensorProductScatter``.

    Parameters
    ----------
    old
        What it replaces; e3nn's tensor product stays in it, for the names of its buffers.
    contraction
        The same tensor product.
    """

    def __init__(self, old: TensorProductScatter, contraction: Contraction) -> None:
        super().__init__()
        self.tp = old.tp
        self.contraction = contraction

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
        x = _by_component(x, self.tp.irreps_in1)
        out = Convolution.apply(contraction, x, edge_attr, weights, edge_src, edge_dst)
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
    def forward(ctx, contraction, x, y, w, sender, receiver):
        ctx.contraction = contraction
        ctx.save_for_backward(x, y, w, sender, receiver)
        return contraction.forward(x, y, w, sender, receiver)

    @staticmethod
    def backward(ctx, g):
        x, y, w, sender, receiver = ctx.saved_tensors
        gradients = Gradient.apply(ctx.contraction, x, y, w, g, sender, receiver)
        return None, *gradients, None, None


class Gradient(torch.autograd.Function):
    """The gradient of the convolution, differentiable once."""

    @staticmethod
    def forward(ctx, contraction, x, y, w, g, sender, receiver):
        ctx.contraction = contraction
        ctx.save_for_backward(x, y, w, g, sender, receiver)
        return contraction.gradient(x, y, w, g, sender, receiver)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, hx, hy, hw):
        *inputs, sender, receiver = ctx.saved_tensors
        second = ctx.contraction.second(*inputs, hx, hy, hw, sender, receiver)
        return None, *second, None, None
