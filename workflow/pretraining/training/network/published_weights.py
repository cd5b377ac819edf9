"""Weights from one network into another, and from NequIP 0.5.6 into the paper's network here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nequip.nn import GraphModel

from pretraining.runtime.errors import UserError
from pretraining.training.network.builders import build_network, network_config

PUBLISHED_SUFFIX = ".pth"


def copy_parameters(weights: dict[str, torch.Tensor], model: torch.nn.Module, source: str) -> None:
    """Copy trained parameters, by name, into a freshly built network.

    Only parameters are copied: buffers, such as the cut-off and the average number of neighbours,
    stay those of `model`.

    Parameters
    ----------
    weights
        Tensors by parameter name; names that are not parameters of `model` must not occur.
    model
        Receives the weights.
    source
        Where the weights come from, for the message.

    Raises
    ------
    UserError
        If the names or shapes do not fit.
    """
    parameters = dict(model.named_parameters())
    missing = sorted(parameters.keys() - weights.keys())
    extra = sorted(weights.keys() - parameters.keys())
    shapes = [
        n for n in parameters.keys() & weights.keys() if parameters[n].shape != weights[n].shape
    ]
    if missing or extra or shapes:
        example = (missing + extra + sorted(shapes))[0]
        raise UserError(
            f"{source}: its weights do not fit the configured network ({len(missing)} missing, "
            f"{len(extra)} unknown, {len(shapes)} of another shape; first {example!r}); use the "
            "network that they were trained with"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def convert_published_weights(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the state dict of a NequIP 0.5.6 network to the parameters of :func:`PaperNetwork`.

    Parameters
    ----------
    state
        Content of a published ``.pth`` file.

    Returns
    -------
    dict
        Parameters by name. No value changes; the roots of the Bessel basis become double precision.
    """
    weights = {}
    for name, value in state.items():
        # All else are constants, which the network makes itself.
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
    """Read the parameters of published weights, which come from the network: tensors only."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return convert_published_weights(state)
    except Exception as error:
        raise UserError(
            f"{path} is not a NequIP 0.5.6 state dict ({type(error).__name__})"
        ) from error


def load_published(
    path: Path,
    avg_num_neighbors: float | None,
    network: dict[str, Any],
    type_names: Sequence[str],
) -> GraphModel:
    """Load published weights into the network that is configured; see :func:`load_model`."""
    if avg_num_neighbors is None:
        raise UserError(
            f"{path} does not hold the average number of neighbours that it was trained with: give "
            "it with --avg-num-neighbors (C-SYNTH-23M at 4 Å: about 31)"
        )
    config = network_config(
        network, type_names=type_names, avg_num_neighbors=avg_num_neighbors, seed=0
    )
    model = build_network(config)
    copy_parameters(read_published(path), model, str(path))
    return model
