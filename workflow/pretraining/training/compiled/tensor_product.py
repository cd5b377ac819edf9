"""The sum over neighbours in NequIP's convolution, and its first and second gradients, by paths.

For atom i, path p and output component c of it, NequIP's convolution is

    out[i, c, u] = Σ_j w[ij, p, u] Σ_ab C[a, b, c] x[j, a, u] Y[ij, b],

with features x, spherical harmonics Y of the bond, weights w of its length, and Clebsch-Gordan
coefficients C, most of which are zero (Batzner et al., Nature Communications 13, 2453, 2022). It is
linear in each of x, Y and w. Forces are a first derivative and training on them takes a second, so
that all three are written out here as one expression an output component. A compiler turns each
into a single loop over the edges; e3nn's own code is some hundred operations on arrays as long as
the list of edges, and many more when it is differentiated automatically.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from e3nn import o3
from torch import Tensor


@dataclass(frozen=True)
class Contraction:
    """One convolution's paths.

    Arrays are laid out with the multiplicity last: features (atoms, components, multiplicity) and
    weights (edges, paths, multiplicity).

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
    def of(cls, tp: o3.TensorProduct) -> Contraction | None:
        """Read the paths of e3nn's tensor product; None if it is not of NequIP's form."""
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
        """Number of products of three numbers an edge: what the work is in proportion to."""
        return self.multiplicity * sum(len(terms) for _, _, terms in self.products)

    def forward(self, x: Tensor, y: Tensor, w: Tensor, sender: Tensor, receiver: Tensor) -> Tensor:
        """Sum over the neighbours.

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

        Returns
        -------
        Tensor
            (atoms, n_out, multiplicity).
        """
        x_j = x[sender]
        out: list[Tensor | None] = [None] * self.n_out
        for path, c, terms in self.products:
            out[c] = w[:, path] * _products(terms, x_j, y)
        return _sum_to_atoms(out, receiver, x)

    def gradient(
        self, x: Tensor, y: Tensor, w: Tensor, g: Tensor, sender: Tensor, receiver: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients in x, y and w where `g` is that in the output."""
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
        """Return the gradients in x, y, w and g where hx, hy, hw are those in `gradient`'s."""
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
    """Sum of a path's products of features and harmonics, (edges, multiplicity)."""
    return sum(k * x[:, a] * y[:, b, None] for a, b, k in terms)


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


def _sum_to_atoms(values: Sequence[Tensor | None], index: Tensor, like: Tensor) -> Tensor:
    """Add up what edges bring to their atoms, component by component.

    One array of all components would be written and read again: a compiler keeps a component in
    its registers.
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
