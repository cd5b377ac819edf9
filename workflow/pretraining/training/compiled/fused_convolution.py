"""NequIP's convolution with its sums and gradients written out: same weights, same results.

For atom i, path p and output component c of it, NequIP's convolution is

    out[i, c, u] = Σ_j w[ij, p, u] Σ_ab C[a, b, c] x[j, a, u] Y[ij, b],

with features x, spherical harmonics Y of the bond, weights w of its length, and Clebsch-Gordan
coefficients C, most of which are zero (Batzner et al., Nature Communications 13, 2453, 2022).
Forces are a first derivative and training on them takes a second: all three are written out as one
expression per output component, which a compiler turns into a single loop over the edges. e3nn's
code is a hundred operations on arrays as long as the list of edges, and many more when
differentiated automatically. Without a compiler, both are equally fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from e3nn import o3
from nequip.nn import GraphModel
from nequip.nn._tp_scatter_base import TensorProductScatter
from nequip.nn.model_modifier_utils import replace_submodules
from torch import Tensor

# Compile cost. Time of a training step of a small network, s, and of one edge and term of its
# convolutions, s, both uncompiled and measured on one core of a 2023 server.
SECONDS_PER_STEP, SECONDS_PER_TERM = 0.03, 3.8e-8
# Time of a prediction relative to a training step on the same structures.
PREDICTION_SHARE = 0.25


def fuse(model: GraphModel) -> GraphModel:
    """Replace a network's convolutions, in place, except those with several multiplicities."""

    def replaced(old: TensorProductScatter) -> torch.nn.Module:
        product = TensorProduct.of(old.tp)
        return old if product is None else FusedConvolution(old, product)

    replace_submodules(model, TensorProductScatter, replaced)
    return model


def uncompiled_seconds(model: GraphModel, steps: float, edges: float) -> float:
    """Estimate the time of uncompiled training steps on one core, s; `edges`: of all together."""
    convolutions = [m.tp for m in model.modules() if isinstance(m, TensorProductScatter)]
    products = [TensorProduct.of(tp) for tp in convolutions]
    terms = sum(product.n_terms for product in products if product)
    return SECONDS_PER_STEP * steps + SECONDS_PER_TERM * terms * edges


class FusedConvolution(torch.nn.Module):
    """Replaces `old`, whose tensor product is `product`."""

    def __init__(self, old: TensorProductScatter, product: TensorProduct) -> None:
        super().__init__()
        # For the irreps, and for the names of its buffers.
        self.tp = old.tp
        self.product = product

    def forward(
        self,
        x: Tensor,
        edge_attr: Tensor,
        edge_weight: Tensor,
        edge_dst: Tensor,
        edge_src: Tensor,
    ) -> Tensor:
        """Return the convolved features; `x` and the result are (atoms, irreps), as in NequIP."""
        product = self.product
        weights = edge_weight.view(-1, product.n_paths, product.multiplicity)
        x = _by_component(x, self.tp.irreps_in1)
        out = Convolution.apply(product, x, edge_attr, weights, edge_src, edge_dst)
        return _by_irrep(out, self.tp.irreps_out)


def _by_component(x: Tensor, irreps: Any) -> Tensor:
    """Rearrange (atoms, irreps) to (atoms, components, multiplicity)."""
    parts = torch.split(x, [mul * ir.dim for mul, ir in irreps], dim=1)
    blocks = zip(parts, irreps, strict=True)
    return torch.cat([p.view(-1, mul, ir.dim).transpose(1, 2) for p, (mul, ir) in blocks], dim=1)


def _by_irrep(x: Tensor, irreps: Any) -> Tensor:
    """Rearrange (atoms, components, multiplicity) to (atoms, irreps)."""
    parts = torch.split(x, [ir.dim for _, ir in irreps], dim=1)
    return torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=1)


class Convolution(torch.autograd.Function):
    """The convolution, differentiable twice."""

    @staticmethod
    def forward(ctx, product, x, y, w, sender, receiver):
        ctx.product = product
        ctx.save_for_backward(x, y, w, sender, receiver)
        return product.forward(x, y, w, sender, receiver)

    @staticmethod
    def backward(ctx, g):
        x, y, w, sender, receiver = ctx.saved_tensors
        gradients = ConvolutionGradient.apply(ctx.product, x, y, w, g, sender, receiver)
        return None, *gradients, None, None


class ConvolutionGradient(torch.autograd.Function):
    """The gradient of the convolution, differentiable once."""

    @staticmethod
    def forward(ctx, product, x, y, w, g, sender, receiver):
        ctx.product = product
        ctx.save_for_backward(x, y, w, g, sender, receiver)
        return product.gradient(x, y, w, g, sender, receiver)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, hx, hy, hw):
        *inputs, sender, receiver = ctx.saved_tensors
        second = ctx.product.second(*inputs, hx, hy, hw, sender, receiver)
        return None, *second, None, None


@dataclass(frozen=True)
class TensorProduct:
    """The paths of one convolution.

    Attributes
    ----------
    multiplicity
        Features of each irrep.
    n_in, n_harmonics, n_paths, n_out
        Components of a feature, of the harmonics, number of paths, components of the output.
    products
        For each output component its path, its number, and its terms (component of the feature,
        of the harmonics, coefficient).
    """

    multiplicity: int
    n_in: int
    n_harmonics: int
    n_paths: int
    n_out: int
    products: tuple[tuple[int, int, tuple[tuple[int, int, float], ...]], ...]

    @classmethod
    def of(cls, tp: o3.TensorProduct) -> TensorProduct | None:
        """Read the paths of e3nn's tensor product; None unless it has NequIP's form."""
        multiplicities = {mul for mul, _ in [*tp.irreps_in1, *tp.irreps_out]}
        if len(multiplicities) != 1 or any(mul != 1 for mul, _ in tp.irreps_in2):
            return None
        if any(i.connection_mode != "uvu" or not i.has_weight for i in tp.instructions):
            return None
        sides = (tp.irreps_in1, tp.irreps_in2, tp.irreps_out)
        starts = [list(accumulate((ir.dim for _, ir in side), initial=0)) for side in sides]
        products = []
        for path, step in enumerate(tp.instructions):
            places = (step.i_in1, step.i_in2, step.i_out)
            orders = [side[i].ir.l for side, i in zip(sides, places, strict=True)]
            first = [start[i] for start, i in zip(starts, places, strict=True)]
            coefficients = step.path_weight * o3.wigner_3j(*orders, dtype=torch.float64)
            for c in range(coefficients.shape[2]):
                terms = tuple(
                    (first[0] + a, first[1] + b, float(coefficients[a, b, c]))
                    for a, b in coefficients[:, :, c].abs().gt(1e-12).nonzero().tolist()
                )
                products.append((path, first[2] + c, terms))
        ends = [start[-1] for start in starts]
        return cls(
            multiplicities.pop(), ends[0], ends[1], len(tp.instructions), ends[2], tuple(products)
        )

    @property
    def n_terms(self) -> int:
        """Number of products of three numbers per edge, which the work is proportional to."""
        return self.multiplicity * sum(len(terms) for _, _, terms in self.products)

    def forward(self, x: Tensor, y: Tensor, w: Tensor, sender: Tensor, receiver: Tensor) -> Tensor:
        """Sum over the neighbours; return (atoms, n_out, multiplicity).

        Parameters
        ----------
        x
            Features, (atoms, n_in, multiplicity).
        y
            Spherical harmonics, (edges, n_harmonics).
        w
            Weights, (edges, n_paths, multiplicity).
        sender, receiver
            Atoms at the ends of an edge, (edges,).
        """
        x_j = x[sender]
        out: list[Tensor | None] = [None] * self.n_out
        for path, c, terms in self.products:
            out[c] = w[:, path] * _products(terms, x_j, y)
        return _sum_to_atoms(out, receiver, x)

    def gradient(
        self, x: Tensor, y: Tensor, w: Tensor, g: Tensor, sender: Tensor, receiver: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients in x, y and w for the gradient `g` in the output."""
        x_j, g_i = x[sender], g[receiver]
        dx: list[Tensor | None] = [None] * self.n_in
        dy: list[Tensor | None] = [None] * self.n_harmonics
        dw: list[Tensor | None] = [None] * self.n_paths
        for path, c, terms in self.products:
            wg = w[:, path] * g_i[:, c]
            for a, b, k in terms:
                dx[a] = _plus(dx[a], k * wg * y[:, b, None])
                dy[b] = _plus(dy[b], k * wg * x_j[:, a])
            dw[path] = _plus(dw[path], _products(terms, x_j, y) * g_i[:, c])
        return _sum_to_atoms(dx, sender, x), _sum_channels(dy, y), _stack(dw, w)

    def second(
        self,
        x: Tensor,
        y: Tensor,
        w: Tensor,
        g: Tensor,
        hx: Tensor,
        hy: Tensor,
        hw: Tensor,
        sender: Tensor,
        receiver: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the gradients in x, y, w and g for those in the output of `gradient`."""
        x_j, g_i, hx_j = x[sender], g[receiver], hx[sender]
        dx: list[Tensor | None] = [None] * self.n_in
        dy: list[Tensor | None] = [None] * self.n_harmonics
        dw: list[Tensor | None] = [None] * self.n_paths
        dg: list[Tensor | None] = [None] * self.n_out
        for path, c, terms in self.products:
            wg, hg = w[:, path] * g_i[:, c], hw[:, path] * g_i[:, c]
            for a, b, k in terms:
                dx[a] = _plus(dx[a], k * (wg * hy[:, b, None] + hg * y[:, b, None]))
                dy[b] = _plus(dy[b], k * (wg * hx_j[:, a] + hg * x_j[:, a]))
            change = _products(terms, hx_j, y) + _products(terms, x_j, hy)
            dw[path] = _plus(dw[path], change * g_i[:, c])
            dg[c] = w[:, path] * change + hw[:, path] * _products(terms, x_j, y)
        return (
            _sum_to_atoms(dx, sender, x),
            _sum_channels(dy, y),
            _stack(dw, w),
            _sum_to_atoms(dg, receiver, g),
        )


def _products(terms: Sequence[tuple[int, int, float]], x: Tensor, y: Tensor) -> Tensor:
    """Sum of products of features and harmonics of one path, (edges, multiplicity)."""
    return sum(k * x[:, a] * y[:, b, None] for a, b, k in terms)


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


def _sum_to_atoms(values: Sequence[Tensor | None], index: Tensor, like: Tensor) -> Tensor:
    """Sum over the edges of each atom, component by component.

    The compiler keeps one component in registers; an array of all would pass through memory.
    """
    zeros = like.new_zeros(like.shape[0], like.shape[2])
    return torch.stack(
        [zeros if v is None else zeros.index_add(0, index, v) for v in values], dim=1
    )


def _sum_channels(values: Sequence[Tensor | None], like: Tensor) -> Tensor:
    zeros = like.new_zeros(like.shape[0])
    return torch.stack([zeros if v is None else v.sum(-1) for v in values], dim=1)


def _stack(values: Sequence[Tensor | None], like: Tensor) -> Tensor:
    zeros = torch.zeros_like(like[:, 0])
    return torch.stack([zeros if v is None else v for v in values], dim=1)
