"""The network of the paper, built from NequIP's own modules, and its published weights.

The paper trained the default network of NequIP 0.5.6. Today's default network has six times as many
parameters, so :func:`PaperNetwork` composes the old one from today's modules. Parameters keep their
shapes and scales: published weights load unchanged, and an optimiser's step has the same effect.

Unlike in :func:`nequip.model.NequIPGNNModel`, atoms enter as one-hot types, every layer has a
self-connection, the last layer keeps all its irreps, the readout has a hidden layer, and the
nonlinearities are the shifted softplus, tanh and the absolute value.

Sources: NequIP 0.5.6 (github.com/mir-group/nequip, tag v0.5.6, MIT licence) for the architecture;
S. Batzner et al., Nature Communications 13, 2453 (2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from e3nn.o3 import Irreps
from nequip.data import AtomicDataDict as Key
from nequip.model.utils import model_builder
from nequip.nn import (
    ApplyFactor,
    AtomwiseLinear,
    AtomwiseReduce,
    ConvNetLayer,
    ForceStressOutput,
    GraphModel,
    SequentialGraphNetwork,
)
from nequip.nn._graph_mixin import GraphModuleMixin
from nequip.nn.embedding import (
    EdgeLengthNormalizer,
    PolynomialCutoff,
    SphericalHarmonicEdgeAttrs,
)

from pretraining.runtime.errors import UserError
from pretraining.training.network.layers import BesselInRadians, OneHotTypes, RadialNonlinearity

PUBLISHED_SUFFIX = ".pth"


def _use_old_radial_network(layer: ConvNetLayer) -> None:
    """Give a layer the radial nonlinearity and the normal initial weights of NequIP 0.5.6."""
    mlp = layer.conv.edge_mlp.mlp
    for i, module in enumerate(mlp):
        if isinstance(module, torch.nn.SiLU):  # hard-coded in NequIP's InteractionBlock
            mlp[i] = RadialNonlinearity()
        else:
            torch.nn.init.normal_(module.weight)


@model_builder
def PaperNetwork(
    r_max: float,
    type_names: Sequence[str],
    avg_num_neighbors: float,
    num_layers: int = 4,
    num_features: int = 32,
    l_max: int = 1,
    parity: bool = True,
    num_bessels: int = 8,
    bessel_trainable: bool = True,
    polynomial_cutoff_p: float = 6,
    radial_mlp_depth: int = 1,
    radial_mlp_width: int = 8,
) -> GraphModel:
    """Build the paper's network: 73,784 parameters with the defaults and one atom type.

    Energies have no scale and shift of each species: weights mean the same on any labels. NequIP's
    decorator adds the arguments ``seed`` and ``model_dtype``, which the caller must give.

    Parameters
    ----------
    r_max
        Cut-off, Å.
    avg_num_neighbors
        Average number of neighbours: its square root divides sums over neighbours.
    num_layers, num_features, l_max, parity
        Interaction blocks; features per irrep; highest rotation order; whether odd and even.
    num_bessels, bessel_trainable, polynomial_cutoff_p
        Radial basis, and the exponent of its envelope.
    radial_mlp_depth, radial_mlp_width
        Hidden layers of the radial networks and their width.
    """
    modules: dict[str, GraphModuleMixin] = {}

    def add(name: str, module_type: type, **kwargs: Any) -> GraphModuleMixin:
        """Append a module that takes the output of the one before."""
        previous = next(reversed(modules.values()), None)
        if previous is not None:
            kwargs["irreps_in"] = previous.irreps_out
        modules[name] = module_type(**kwargs)
        return modules[name]

    parities = (1, -1) if parity else (1,)
    hidden = Irreps([(num_features, (ell, p)) for p in parities for ell in range(l_max + 1)])

    add("one_hot", OneHotTypes, num_types=len(type_names))
    add(
        "spharm_edges",
        SphericalHarmonicEdgeAttrs,
        irreps_edge_sh=str(Irreps.spherical_harmonics(l_max, p=-1 if parity else 1)),
    )
    add("edge_length", EdgeLengthNormalizer, r_max=r_max, type_names=list(type_names))
    add(
        "radial_basis",
        BesselInRadians,
        num_bessels=num_bessels,
        trainable=bessel_trainable,
        cutoff=PolynomialCutoff(polynomial_cutoff_p),
    )
    # NequIP 0.5.6 wrote the basis as (2 / r_max) sin(n π r / r_max) / r.
    add(
        "radial_factor", ApplyFactor, in_field=Key.EDGE_EMBEDDING_KEY, factor=2 * math.pi / r_max**2
    )
    add(
        "chemical_embedding",
        AtomwiseLinear,
        field=Key.NODE_ATTRS_KEY,
        out_field=Key.NODE_FEATURES_KEY,
        irreps_out=Irreps([(num_features, (0, 1))]),
    )
    for i in range(num_layers):
        layer = add(
            f"layer{i}_convnet",
            ConvNetLayer,
            feature_irreps_hidden=str(hidden),
            convolution_kwargs={
                "radial_mlp_depth": radial_mlp_depth,
                "radial_mlp_width": radial_mlp_width,
                "use_sc": True,
                "is_first_layer": i == 0,
                "avg_num_neighbors": avg_num_neighbors,
                "type_names": type_names,
            },
            nonlinearity_scalars={"e": "ssp", "o": "tanh"},
            nonlinearity_gates={"e": "ssp", "o": "abs"},
        )
        _use_old_radial_network(layer)
    add(
        "conv_to_output_hidden",
        AtomwiseLinear,
        irreps_out=Irreps([(max(1, num_features // 2), (0, 1))]),
    )
    add(
        "output_hidden_to_scalar",
        AtomwiseLinear,
        irreps_out="1x0e",
        out_field=Key.PER_ATOM_ENERGY_KEY,
    )
    add(
        "total_energy_sum",
        AtomwiseReduce,
        field=Key.PER_ATOM_ENERGY_KEY,
        out_field=Key.TOTAL_ENERGY_KEY,
    )
    return ForceStressOutput(SequentialGraphNetwork(modules))


def convert_published_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the state dict of a NequIP 0.5.6 network to the parameters of :func:`PaperNetwork`.

    Values are unchanged; the roots of the Bessel basis become double precision.
    """
    weights = {}
    for name, value in state.items():
        # All others are constants, which the network makes itself.
        if not name.endswith((".weight", "bessel_weights")) or not value.numel():
            continue
        prefix, radial, layer = name.partition(".fc.layer")
        if radial:
            index = int(layer.removesuffix(".weight"))
            name = f"{prefix}.edge_mlp.mlp.{2 * index}.weight"  # a nonlinearity stands between two
        elif name.endswith("bessel_weights"):
            name, value = name.replace(".basis.", "."), value.double().view(1, -1)
        weights[name] = value
    return weights


def read_published(path: Path) -> dict[str, torch.Tensor]:
    """Read the parameters in published weights, as tensors only: the file is a download."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return convert_published_weights(state)
    except Exception as error:
        raise UserError(
            f"{path} is not a NequIP 0.5.6 state dict ({type(error).__name__})"
        ) from error
