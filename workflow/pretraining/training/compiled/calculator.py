"""A trained network as a compiled function, in place of NequIP's module in a calculator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from ase import Atoms
from nequip.data import AtomicDataDict as Key
from nequip.nn import GraphModel

from pretraining.training.compiled.loss_and_gradient import INPUTS, PREDICTIONS, Evaluator
from pretraining.training.network.checkpoint import (
    cutoff_of,
    network_config_of,
    type_names_of_model,
)
from pretraining.training.network.graphs import TypeMapper, graph_of


class CompiledNetwork(torch.nn.Module):
    """Energies and forces of one or more structures.

    Parameters
    ----------
    evaluator
        Evaluator of the network, compiled.
    model
        The network.
    """

    def __init__(self, evaluator: Evaluator, model: GraphModel) -> None:
        super().__init__()
        self._evaluator = evaluator
        self._weights = list(model.parameters())

    def forward(self, data: Key.Type) -> Key.Type:
        """Add energies and forces to structures in NequIP's form; no stress."""
        data = Key.with_batch_(dict(data))
        n_structures, n_atoms = len(data[Key.NUM_NODES_KEY]), len(data[Key.POSITIONS_KEY])
        batch = {name: data[name] for name in INPUTS}
        if n_structures == 1:
            batch = _with_lone_atom(batch)
        energies, forces = self._evaluator.predict(batch, self._weights)
        data[Key.TOTAL_ENERGY_KEY] = energies[:n_structures]
        data[Key.FORCE_KEY] = forces[:n_atoms]
        return data


def compiled_network(
    model: GraphModel, path: Path, structure: Atoms, log: Callable[[str], None]
) -> torch.nn.Module:
    """Return a compiled network for a calculator; the network itself if it cannot be compiled.

    Parameters
    ----------
    model
        The network, on its device.
    path
        Its file.
    structure
        Example of the structures to evaluate.
    log
        Called before long waits, and with the reason if nothing is compiled.
    """
    config = network_config_of(path)
    if config is None:
        log(f"not compiled: {path} does not hold the configuration of its network")
        return model
    device = next(model.parameters()).device
    types = TypeMapper(type_names_of_model(model))(structure.numbers, "the structure")
    one = graph_of(structure, types, cutoff_of(model))
    # A prediction needs no loss.
    evaluator = Evaluator(model, {"energy": 1.0, "forces": 1.0})
    example = _with_lone_atom(Key.batched_from_list([one, one]))
    evaluator.compile(config, Key.to_(example, device), log, [PREDICTIONS])
    return CompiledNetwork(evaluator, model) if evaluator.compiled else model


def _with_lone_atom(batch: Key.Type) -> Key.Type:
    """Add a structure of one atom: compiled functions need two structures."""
    n_structures = len(batch[Key.NUM_NODES_KEY])
    cell = batch[Key.CELL_KEY].view(-1, 3, 3)
    more = {
        Key.POSITIONS_KEY: batch[Key.POSITIONS_KEY].new_zeros(1, 3),
        Key.CELL_KEY: torch.eye(3, dtype=cell.dtype, device=cell.device)[None],
        Key.ATOM_TYPE_KEY: batch[Key.ATOM_TYPE_KEY].new_zeros(1),
        Key.BATCH_KEY: batch[Key.BATCH_KEY].new_full((1,), n_structures),
        Key.NUM_NODES_KEY: batch[Key.NUM_NODES_KEY].new_ones(1),
    }
    batch = batch | {Key.CELL_KEY: cell}
    return batch | {name: torch.cat([batch[name], tensor]) for name, tensor in more.items()}
