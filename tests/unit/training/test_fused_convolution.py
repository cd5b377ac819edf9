"""The convolution's tensor product against e3nn's, and its gradients."""

from __future__ import annotations

import pytest
import torch
from e3nn.o3 import Irreps
from nequip.nn._tp_scatter_base import TensorProductScatter

from pretraining.training.compiled.fused_convolution import (
    Convolution,
    FusedConvolution,
    TensorProduct,
)

N_ATOMS, N_EDGES = 4, 9


def nequip_product(features: str, harmonics: str) -> TensorProductScatter:
    """NequIP's tensor product with all paths between the given irreps, in double precision."""
    irreps, edges = Irreps(features), Irreps(harmonics)
    middle, steps = [], []
    for i, (mul, ir) in enumerate(irreps):
        for j, (_, edge) in enumerate(edges):
            for out in ir * edge:
                if out in irreps:
                    steps.append((i, j, len(middle), "uvu", True))
                    middle.append((mul, out))
    middle, order, _ = Irreps(middle).sort()
    steps = [(i, j, order[k], mode, train) for i, j, k, mode, train in steps]
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return TensorProductScatter(irreps, edges, middle, steps)
    finally:
        torch.set_default_dtype(default)


def fused(product: TensorProductScatter) -> FusedConvolution:
    return FusedConvolution(product, TensorProduct.of(product.tp))


def inputs(product: TensorProductScatter) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    ends = torch.randint(0, N_ATOMS, (2, N_EDGES), generator=generator)
    tp = product.tp
    return [
        numbers(N_ATOMS, tp.irreps_in1.dim),
        numbers(N_EDGES, tp.irreps_in2.dim),
        numbers(N_EDGES, tp.weight_numel),
        *ends,
    ]


@pytest.mark.parametrize(
    ("features", "harmonics"),
    [
        ("3x0e", "0e + 1o"),
        ("3x0e + 3x0o + 3x1o + 3x1e", "0e + 1o"),
        ("2x0e + 2x1o + 2x2e", "0e + 1o + 2e"),
    ],
)
def test_it_is_the_tensor_product_of_e3nn(features, harmonics):
    product = nequip_product(features, harmonics)
    given = inputs(product)
    theirs, own = product(*given), fused(product)(*given)
    torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)
    for mine, other in zip(
        torch.autograd.grad(own.sin().sum(), given[:3]),
        torch.autograd.grad(theirs.sin().sum(), given[:3]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_both_gradients_are_those_of_finite_differences():
    convolution = nequip_product("2x0e + 2x1o + 2x1e", "0e + 1o")
    product = TensorProduct.of(convolution.tp)
    x, y, w, receiver, sender = inputs(convolution)
    features = torch.randn(N_ATOMS, product.n_in, 2, dtype=torch.float64, requires_grad=True)
    weights = w.detach().view(N_EDGES, product.n_paths, 2).requires_grad_()

    def convolve(*arrays):
        return Convolution.apply(product, *arrays, sender, receiver)

    assert torch.autograd.gradcheck(convolve, (features, y, weights))
    assert torch.autograd.gradgradcheck(convolve, (features, y, weights))


def test_other_products_are_left_alone():
    assert TensorProduct.of(nequip_product("3x0e + 2x1o", "0e + 1o").tp) is None
