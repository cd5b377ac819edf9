"""Predictions of a trained network: for files, against labels, and in calculators."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from nequip.data import AtomicDataDict as Key
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform
from nequip.integrations.ase import NequIPCalculator
from nequip.nn import GraphModel

from pretraining.data.readers import read_files
from pretraining.data.sanity.soundness import refuse_broken
from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_atomically
from pretraining.training.compiled.loss_and_gradient import INPUTS, PREDICTIONS, Evaluator
from pretraining.training.network.checkpoint import (
    cutoff_of,
    load_model,
    network_config_of,
    type_names_of_model,
)
from pretraining.training.network.graphs import StructureDataset, graph_of, make_loader, types_of
from pretraining.training.predictions import Predictions


def predict(
    model: GraphModel,
    structures: Iterable[Atoms],
    *,
    batch_size: int = 20,
    device: str | torch.device = "cpu",
    elements_as: Mapping[str, str] | None = None,
    zero: Mapping[str, float] | None = None,
) -> Iterator[Atoms]:
    """Yield copies of structures with the network's energy and forces.

    Raises a `UserError` if a structure is broken, or has an element that the network does not know.

    Parameters
    ----------
    model
        Network in evaluation mode, on `device`.
    structures
        Taken one batch at a time.
    elements_as
        Elements evaluated as another that the network knows: ``{"Si": "C"}``.
    zero
        Energy of an atom of each element that the network knows, eV, which is added.

    Yields
    ------
    Atoms
        With total energy (eV) and forces (eV/Å) in place of other labels.
    """
    type_names, cutoff = type_names_of_model(model), cutoff_of(model)
    zero = zero or dict.fromkeys(type_names, 0.0)
    zero_by_type = np.array([zero.get(name, np.nan) for name in type_names])
    rename = Transform(elements=elements_as or {})
    numbered = enumerate(structures)
    while batch := list(itertools.islice(numbered, batch_size)):
        frames, zeros = [], []
        for i, atoms in batch:
            refuse_broken([atoms], i)
            numbers = rename.apply_to_numbers(atoms.numbers)
            types = types_of(numbers, type_names, f"structure {i}")
            frames.append(graph_of(atoms, types, cutoff))
            zeros.append(float(zero_by_type[types].sum()))
            if not np.isfinite(zeros[-1]):
                raise UserError(
                    f"structure {i}: the model's energy zero has only {', '.join(zero)}: predict "
                    "relative energies (--relative)"
                )
        out = model(Key.to_(Key.batched_from_list(frames), device))
        # A sum in single precision would lose digits.
        per_atom = out[Key.PER_ATOM_ENERGY_KEY].detach().cpu().double().numpy().ravel()
        forces = out[Key.FORCE_KEY].detach().cpu().double().numpy()
        ends = np.cumsum([len(atoms) for _, atoms in batch])[:-1]
        energies = np.add(zeros, [own.sum() for own in np.split(per_atom, ends)])
        for (i, atoms), energy, own in zip(batch, energies, np.split(forces, ends), strict=True):
            if not (np.isfinite(energy) and np.isfinite(own).all()):
                raise UserError(f"structure {i}: the network's energy or forces are not finite")
            predicted = atoms.copy()
            predicted.calc = SinglePointCalculator(predicted, energy=float(energy), forces=own)
            yield predicted


def predict_file(model: GraphModel, source: Path, out: Path, **options: Any) -> int:
    """Write the structures of a file as :func:`predict` yields them; return their number."""
    if not source.is_file():
        raise UserError(f"no structures at {source}")
    structures = read_files([source])
    first = next(structures, None)
    if first is None:
        raise UserError(f"{source} holds no structures")
    count = 0

    def write(path: Path) -> None:
        nonlocal count
        with open(path, "w", encoding="utf-8") as handle:
            try:
                for atoms in predict(model, itertools.chain([first], structures), **options):
                    ase.io.write(handle, atoms, format="extxyz")
                    count += 1
            except UserError as error:
                named = str(error).startswith(str(source))
                raise UserError(error if named else f"{source}: {error}") from error

    write_atomically(out, write)
    return count


def load_calculator(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    elements_as: Mapping[str, str] | None = None,
    **options: Any,
) -> NequIPCalculator:
    """Return an ASE calculator of a trained network.

    Parameters
    ----------
    path
        A run's ``model.ckpt`` or published weights.
    elements_as
        As in :func:`predict`.
    options
        Of :func:`pretraining.training.network.checkpoint.load_model`.
    """
    model = load_model(path, device=device, **options)
    type_names = type_names_of_model(model)
    mapper = ChemicalSpeciesToAtomTypeMapper(
        model_type_names=type_names,
        chemical_species_to_atom_type_map={name: name for name in type_names}
        | dict(elements_as or {}),
    )
    neighbours = NeighborListTransform(cutoff_of(model))
    return NequIPCalculator(model=model, device=device, transforms=[mapper, neighbours])


def predict_part(
    model: GraphModel,
    store: Store,
    part: str = "test",
    *,
    batch_size: int = 20,
    device: str | torch.device = "cpu",
    elements_as: Mapping[str, str] | None = None,
) -> Predictions:
    """Predict a part (``train``, ``val`` or ``test``) of a labelled set, otherwise as `predict`.

    Raises a `UserError` if the part is empty or has an element that the network does not know.
    """
    rows = store.indices(part)
    if not rows:
        raise UserError(f"{store.path} has no {part} structures")
    transform = Transform(elements=elements_as or {})
    dataset = StructureDataset(store, rows, type_names_of_model(model), cutoff_of(model), transform)
    batches = []
    for batch in make_loader(dataset, batch_size):
        batch = Key.to_(batch, device)
        out = Key.detach_(model(batch))
        tensors = {
            "n_atoms": batch[Key.NUM_NODES_KEY].ravel(),
            "energy": batch[Key.TOTAL_ENERGY_KEY].ravel(),
            "predicted_energy": out[Key.TOTAL_ENERGY_KEY].double().ravel(),
            "forces": batch[Key.FORCE_KEY],
            "predicted_forces": out[Key.FORCE_KEY].double(),
        }
        batches.append({name: tensor.cpu().numpy() for name, tensor in tensors.items()})
    arrays = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    return Predictions(store.column("index", part), **arrays)


def parse_elements_as(pairs: Iterable[str]) -> dict[str, str]:
    """Read ``Si:C`` as ``{"Si": "C"}``."""
    mapping = {}
    for pair in pairs:
        old, colon, new = pair.partition(":")
        if not (old and colon and new):
            raise UserError(f"--elements-as: {pair!r} is not of the form Si:C (silicon as carbon)")
        mapping[old] = new
    return mapping


class CompiledNetwork(torch.nn.Module):
    """Energies and forces of one or more structures by the compiled `evaluator` of `model`."""

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
    model: GraphModel, path: Path, structure: Atoms, log: Callable[[str], None], wanted: bool = True
) -> torch.nn.Module:
    """Return a compiled network for a calculator; the network itself if it cannot be compiled.

    Parameters
    ----------
    path
        The network's file.
    structure
        Example of the structures to evaluate.
    log
        Called before long waits, and with the reason if nothing is compiled.
    wanted
        Whether to compile; if not, only what this machine has compiled before is used.
    """
    config = network_config_of(path)
    if config is None:
        log(f"not compiled: {path} does not hold the configuration of its network")
        return model
    device = next(model.parameters()).device
    types = types_of(structure.numbers, type_names_of_model(model), "the structure")
    one = graph_of(structure, types, cutoff_of(model))
    # A prediction needs no loss.
    evaluator = Evaluator(model, {"energy": 1.0, "forces": 1.0})
    if not wanted and not evaluator.cached(config, device, [PREDICTIONS]):
        log("not compiled: too few steps to be worth the minutes that compiling takes")
        return model
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
