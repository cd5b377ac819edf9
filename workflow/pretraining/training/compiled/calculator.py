"""A trained network as a program, in the place of NequIP's module in a calculator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from ase import Atoms
from nequip.data import AtomicDataDict as Key
from nequip.nn import GraphModel

from pretraining.training.compiled.loss_and_gradient import INPUTS, PREDICTIONS, Functions
from pretraining.training.network.checkpoint import (
    cutoff_of,
    network_config_of,
    type_names_of_model,
)
from pretraining.training.network.graphs import TypeMapper, add_neighbours, to_data

# Of a prediction there is no loss.
NO_LOSS = {"energy": 1.0, "forces": 1.0}


class CompiledNetwork(torch.nn.Module):
    """Energies and forces of one or more structures.

    Parameters
    ----------
    functions
        Those of the network.
    model
        The network.
    """

    def __init__(self, functions: Functions, model: GraphModel) -> None:
        super().__init__()
        self._functions = functions
        self._weights = list(model.parameters())

    def forward(self, data: Key.Type) -> Key.Type:
        """Return what NequIP's module would, as far as molecular dynamics needs it."""
        data = Key.with_batch_(dict(data))
        n_structures, n_atoms = len(data[Key.NUM_NODES_KEY]), len(data[Key.POSITIONS_KEY])
        batch = {name: data[name] for name in INPUTS}
        if n_structures == 1:
            batch = _with_lone_atom(batch)
        energies, forces = self._functions.predict(batch, self._weights)
        data[Key.TOTAL_ENERGY_KEY] = energies[:n_structures]
        data[Key.FORCE_KEY] = forces[:n_atoms]
        return data


def compiled_network(
    model: GraphModel, path: Path, structure: Atoms, say: Callable[[str], None]
) -> torch.nn.Module:
    """Return what takes a network's place in a calculator; the network if it cannot be compiled.

    Parameters
    ----------
    model
        The network, where it will run.
    path
        Its file.
    structure
        Such as will be evaluated.
    say
        Is told what takes long, and why the network stays.
    """
    config = network_config_of(path)
    if config is None:
        say(f"not compiled: {path} does not tell how its network was built")
        return model
    device = next(model.parameters()).device
    arrays = {
        "positions": structure.positions,
        "cell": structure.cell.array,
        "pbc": structure.pbc,
    }
    types = TypeMapper(type_names_of_model(model))(structure.numbers, "the structure")
    one = add_neighbours(to_data(arrays, types), cutoff_of(model))
    functions = Functions(model, NO_LOSS)
    example = _with_lone_atom(Key.batched_from_list([one, one]))
    functions.compile(config, Key.to_(example, device), say, [PREDICTIONS])
    return CompiledNetwork(functions, model) if functions.compiled else model


def _with_lone_atom(batch: Key.Type) -> Key.Type:
    """Add a structure of one atom: programs are for two structures and more."""
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
