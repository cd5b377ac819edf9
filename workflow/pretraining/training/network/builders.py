"""Networks from their configuration: the paper's, NequIP's own, or any other NequIP builder."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from hydra.utils import get_method
from nequip.model.nequip_models import FullNequIPGNNModel
from nequip.model.utils import model_builder
from nequip.nn import GraphModel
from nequip.utils.global_state import set_global_state

from pretraining.runtime.errors import UserError
from pretraining.study.network import RUN_ARGUMENTS
from pretraining.training.network.layers import EnergyZero

BUILDERS = {
    "paper": "pretraining.training.network.paper.PaperNetwork",
    "stock": "nequip.model.NequIPGNNModel",
}
DEFAULT_CUTOFF = 4.0
# What NequIP gives only to the outermost of nested builders.
OUTER_ARGUMENTS = ("seed", "model_dtype", "compile_mode")


def network_config(
    network: dict[str, Any],
    *,
    type_names: Sequence[str],
    avg_num_neighbors: float,
    seed: int,
    cutoff: float | None = None,
) -> dict[str, Any]:
    """Return ``model`` of NequIP's Lightning modules: a builder's ``_target_`` and arguments.

    Parameters
    ----------
    network
        ``model`` (``paper``, ``stock`` or the import path of a builder), ``cutoff`` in Å, and
        hyperparameters under the names that the builder gives them.
    type_names
        Chemical symbols of the atom types.
    avg_num_neighbors
        Average number of neighbours in the run's own training set.
    cutoff
        Replaces the network's cut-off, Å.
    """
    options = dict(network)
    model = options.pop("model", "paper")
    own_cutoff = options.pop("cutoff", DEFAULT_CUTOFF)
    taken = [name for name in RUN_ARGUMENTS if name in options]
    if taken:
        raise UserError(f"network: {taken[0]!r} is decided by each run; remove it from `network`")
    config = {
        "_target_": BUILDERS.get(model, model),
        "seed": int(seed),
        "model_dtype": "float32",
        "type_names": list(type_names),
        "r_max": float(cutoff if cutoff is not None else own_cutoff),
        "avg_num_neighbors": float(avg_num_neighbors),
        **options,
    }
    if config["_target_"] == BUILDERS["stock"]:
        # As in the paper's network: no scale and shift of each species.
        config = {"per_type_energy_scales": 1.0, "per_type_energy_shifts": 0.0} | config
    return config


def build_network(config: dict[str, Any]) -> GraphModel:
    """Build a network of :func:`network_config`; errors as in :func:`building`."""
    options = dict(config)
    target = options.pop("_target_")
    with building(config):
        return get_method(target)(**options)


@model_builder
def AbsoluteNetwork(network: dict[str, Any], zero: Sequence[float], **_: Any) -> GraphModel:
    """Build a network of :func:`network_config` with an energy zero, eV by atom type.

    NequIP reads the further arguments: those of `network` that describe its input.
    """
    options = {k: v for k, v in network.items() if k not in OUTER_ARGUMENTS}
    return EnergyZero(get_method(options.pop("_target_"))(**options), zero)


def absolute_config(config: dict[str, Any], zero: Mapping[str, float]) -> dict[str, Any]:
    """Return the configuration of the same network with an energy zero, eV by element."""
    shared = ("seed", "model_dtype", "type_names", "r_max", "per_edge_type_cutoff")
    return {
        "_target_": f"{__name__}.{AbsoluteNetwork.__name__}",
        **{key: config[key] for key in shared if key in config},
        "network": config,
        "zero": [zero[name] for name in config["type_names"]],
    }


@contextlib.contextmanager
def building(config: dict[str, Any]) -> Iterator[None]:
    """Prepare NequIP to build a network of :func:`network_config`.

    Raises a `UserError` if there is no such builder, or a hyperparameter is unknown or invalid.
    """
    set_global_state(allow_tf32=False)
    target = config["_target_"]
    _check_hyperparameters(target, config)
    try:
        yield
    except (AssertionError, TypeError, ValueError) as error:
        raise UserError(
            f"network: {target} cannot be built with these hyperparameters "
            f"({type(error).__name__}: {error})"
        ) from error


def _check_hyperparameters(target: str, config: dict[str, Any]) -> None:
    try:
        builder = get_method(target)
    except Exception as error:
        raise UserError(
            f"network.model: {target!r} cannot be imported as a model builder; give "
            f"{', '.join(BUILDERS)} or the import path of a NequIP model builder"
        ) from error
    parameters = inspect.signature(builder).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        # NequIP's builders pass further arguments on to this one, which names all.
        if target != BUILDERS["stock"]:
            return
        parameters = {**parameters, **inspect.signature(FullNequIPGNNModel).parameters}
    known = [name for name in parameters if name not in (*RUN_ARGUMENTS, "kwargs")]
    for name in config:
        if name not in (*parameters, *RUN_ARGUMENTS, "_target_", "compile_mode"):
            raise UserError(
                f"network.{name}: {target} has no such hyperparameter; known are {', '.join(known)}"
            )


def count_parameters(model: torch.nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def copy_parameters(weights: dict[str, torch.Tensor], model: torch.nn.Module, source: str) -> None:
    """Copy trained parameters, by name, into a network; `source` names their file in messages.

    Buffers, such as the cut-off and the average number of neighbours, stay those of `model`. Raises
    a `UserError` if the names or shapes of `weights` are not those of `model`.
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
