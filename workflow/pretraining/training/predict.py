"""Predictions of a trained network: for files, as an ASE calculator, and against labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
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

from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_atomically
from pretraining.training.network.checkpoint import cutoff_of, load_model, type_names_of_model
from pretraining.training.network.graphs import (
    StructureDataset,
    TypeMapper,
    graph_of,
    make_loader,
)
from pretraining.training.predictions import Predictions


def predict(
    model: GraphModel,
    structures: Iterable[Atoms],
    *,
    batch_size: int = 20,
    device: str | torch.device = "cpu",
    elements_as: Mapping[str, str] | None = None,
) -> Iterator[Atoms]:
    """Yield copies of structures with the network's energy and forces.

    Parameters
    ----------
    model
        Network in evaluation mode, on `device`.
    structures
        Taken one batch at a time.
    batch_size
        Structures in a batch.
    elements_as
        Elements evaluated as another that the network knows: ``{"Si": "C"}``.

    Yields
    ------
    Atoms
        With ``energy`` (eV, total) and ``forces`` (eV/Å) in a `SinglePointCalculator`; ``info`` and
        ``arrays`` are kept, labels of an earlier calculator are not.

    Raises
    ------
    UserError
        If a structure has an element that the network does not know.
    """
    mapper = TypeMapper(type_names_of_model(model))
    rename = Transform(elements=elements_as or {})
    cutoff = cutoff_of(model)
    numbered = enumerate(structures)
    while batch := list(itertools.islice(numbered, batch_size)):
        frames = []
        for i, atoms in batch:
            types = mapper(rename.apply_to_numbers(atoms.numbers), f"structure {i}")
            frames.append(graph_of(atoms, types, cutoff))
        out = model(Key.to_(Key.batched_from_list(frames), device))
        energies = out[Key.TOTAL_ENERGY_KEY].detach().cpu().double().numpy().ravel()
        forces = out[Key.FORCE_KEY].detach().cpu().double().numpy()
        ends = np.cumsum([len(atoms) for _, atoms in batch])[:-1]
        for (_, atoms), energy, own in zip(batch, energies, np.split(forces, ends), strict=True):
            predicted = atoms.copy()
            predicted.calc = SinglePointCalculator(predicted, energy=float(energy), forces=own)
            yield predicted


def predict_file(model: GraphModel, source: Path, out: Path, **options: Any) -> int:
    """Predict all structures of a file and write them as extended XYZ; see :func:`predict`.

    Returns
    -------
    int
        Number of structures.
    """
    if not source.is_file():
        raise UserError(f"no structures at {source}")
    try:
        structures = ase.io.iread(source, index=":")
        first = next(structures, None)
    except Exception as error:
        raise UserError(f"{source} cannot be read as structures ({error})") from error
    if first is None:
        raise UserError(f"{source} holds no structures")
    count = 0

    def write(path: Path) -> None:
        nonlocal count
        with open(path, "w", encoding="utf-8") as handle:
            for atoms in predict(model, itertools.chain([first], structures), **options):
                ase.io.write(handle, atoms, format="extxyz")
                count += 1

    out.parent.mkdir(parents=True, exist_ok=True)
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
        A run's ``model.ckpt``, published weights, or a model that ``nequip-compile`` has compiled
        for ASE (``.nequip.pt2``).
    device
        Where it runs.
    elements_as
        Elements evaluated as another that the network knows: ``{"Si": "C"}``.
    options
        Of :func:`pretraining.training.network.checkpoint.load_model`.
    """
    if str(path).endswith(".nequip.pt2"):
        return NequIPCalculator.from_compiled_model(
            path,
            device=device,
            chemical_species_to_atom_type_map=dict(elements_as) if elements_as else True,
        )
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
    """Predict the structures of a part of a labelled set.

    Parameters
    ----------
    model
        Network in evaluation mode, on `device`.
    store
        Labelled set.
    part
        ``train``, ``val`` or ``test``.
    elements_as
        Elements evaluated as another that the network knows: ``{"Si": "C"}``.

    Raises
    ------
    UserError
        If the part is empty or has an element that the network does not know.
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
