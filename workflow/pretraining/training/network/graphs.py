"""Structures in NequIP's form: dictionaries of tensors with neighbour lists.

NequIP rebuilds a neighbour list at each access. Here it is built once and kept in 11 bytes per
pair; only lists beyond a memory limit are rebuilt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from nequip.data import AtomicDataDict as Key
from nequip.data import compute_neighborlist_
from torch.utils.data import DataLoader, Dataset, Sampler

from pretraining.data.store import Store
from pretraining.data.transforms import Transform
from pretraining.runtime.errors import UserError

# Edges in a batch of an evaluation on a GPU: about 2 GB with the paper's network.
EDGES_AT_ONCE = 200_000
# Neighbour lists that may stay on a GPU, or in the form of batches.
RESIDENT_BYTES = 1e9


def type_names_of(store: Store, transform: Transform) -> list[str]:
    """Return the chemical symbols in a set after a transform, sorted."""
    with h5py.File(store.path, "r", locking=False) as file:
        present = np.flatnonzero(np.bincount(file["numbers"][:]))
    return sorted({chemical_symbols[z] for z in transform.apply_to_numbers(present)})


def types_of(numbers: np.ndarray, type_names: Sequence[str], what: str) -> np.ndarray:
    """Return the network's atom types, shape (N,), for the atomic numbers of the structure `what`.

    Raises a `UserError` if the network does not know an element.
    """
    types = np.full(len(chemical_symbols), -1, dtype=np.int64)
    types[[atomic_numbers[name] for name in type_names]] = np.arange(len(type_names))
    found = types[numbers]
    if (found < 0).any():
        unknown = sorted({chemical_symbols[z] for z in numbers[found < 0]})
        raise UserError(
            f"{what} has atoms of {', '.join(unknown)}, but the network knows only "
            f"{', '.join(type_names)}"
        )
    return found


def to_data(arrays: dict[str, np.ndarray], types: np.ndarray) -> Key.Type:
    """Turn the arrays of a structure into NequIP's dictionary, without neighbours.

    Lengths are in double precision, as in NequIP.
    """
    data = {
        Key.POSITIONS_KEY: torch.as_tensor(arrays["positions"], dtype=torch.float64),
        Key.CELL_KEY: torch.as_tensor(arrays["cell"], dtype=torch.float64).view(1, 3, 3),
        Key.PBC_KEY: torch.as_tensor(arrays["pbc"]).view(1, 3),
        Key.ATOM_TYPE_KEY: torch.as_tensor(types),
    }
    if "energy" in arrays:
        energy = torch.as_tensor(arrays["energy"], dtype=torch.float64)
        data[Key.TOTAL_ENERGY_KEY] = energy.view(1, 1)
        data[Key.FORCE_KEY] = torch.as_tensor(arrays["forces"], dtype=torch.float64)
    return data


def graph_of(atoms: Atoms, types: np.ndarray, cutoff: float) -> Key.Type:
    """Return an unlabelled structure in NequIP's form, with all pairs within `cutoff` (Å)."""
    arrays = {"positions": atoms.positions, "cell": atoms.cell.array, "pbc": atoms.pbc}
    data = compute_neighborlist_(to_data(arrays, types), cutoff)
    # Needed only for the neighbour list.
    del data[Key.PBC_KEY]
    return data


class StructureDataset(Dataset):
    """Labelled structures of a store in NequIP's form.

    Raises a `UserError` if the set has no labels, or a structure has a value that is not finite or
    an element that the network does not know.

    Parameters
    ----------
    store
        Labelled set.
    rows
        Rows of the store.
    type_names, cutoff
        The network's: chemical symbols of its atom types, and Å.
    transform
        Applied to each structure as it is read.
    memory
        Memory limit of the neighbour lists, bytes.
    """

    def __init__(
        self,
        store: Store,
        rows: Sequence[int],
        type_names: Sequence[str],
        cutoff: float,
        transform: Transform,
        memory: float = 8e9,
    ) -> None:
        if not store.has_labels:
            raise UserError(f"{store.path} has no labels to train on or to compare with")
        self.cutoff = cutoff
        self.device = torch.device("cpu")
        self.n_atoms = 0
        self.n_pairs = 0
        self._n_bonded = 0
        self._structures: list[Key.Type] = []
        self._pairs: list[tuple[torch.Tensor, torch.Tensor] | None] = []
        self._bytes = 0
        for row in rows:
            arrays = transform.apply(store.arrays(row))
            what = f"{store.path}: structure {row}"
            for name in ("positions", "cell", "energy", "forces"):
                if not np.isfinite(arrays[name]).all():
                    raise UserError(f"{what} has a value in its {name} that is not finite")
            data = to_data(arrays, types_of(arrays["numbers"], type_names, what))
            pairs = self._find_pairs(data)
            self.n_atoms += len(arrays["numbers"])
            self.n_pairs += pairs[0].shape[1]
            self._n_bonded += len(np.unique(pairs[0][0].numpy()))
            self._bytes += sum(tensor.nbytes for tensor in pairs)
            self._structures.append(data)
            self._pairs.append(pairs if self._bytes <= memory else None)

    def _find_pairs(self, data: Key.Type) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the neighbour list: indices, shape (2, pairs), and cell shifts, (pairs, 3)."""
        found = compute_neighborlist_(dict(data), self.cutoff)
        shifts = found[Key.EDGE_CELL_SHIFT_KEY]
        small = not shifts.numel() or shifts.abs().max() <= 127
        shifts = shifts.to(torch.int8 if small else torch.int32)
        return found[Key.EDGE_INDEX_KEY].to(torch.int32), shifts

    def __len__(self) -> int:
        return len(self._structures)

    def __getitem__(self, i: int) -> Key.Type:
        data = dict(self._structures[i])
        pairs = self._pairs[i] or self._find_pairs(data)
        data[Key.EDGE_INDEX_KEY], data[Key.EDGE_CELL_SHIFT_KEY] = pairs
        del data[Key.PBC_KEY]
        return data

    def to(self, device: torch.device) -> None:
        """Keep the structures on a GPU if they take little of its memory."""
        if self.n_cached < len(self) or self._bytes > RESIDENT_BYTES:
            return
        self.device = device
        self._structures = [to_device(data, device) for data in self._structures]
        self._pairs = [
            (indices.to(device), shifts.to(device)) for indices, shifts in filter(None, self._pairs)
        ]

    @property
    def n_cached(self) -> int:
        """Number of structures whose neighbour lists are kept."""
        return sum(pairs is not None for pairs in self._pairs)

    @property
    def avg_num_neighbors(self) -> float:
        """Mean number of neighbours of the atoms that have any, as in NequIP 0.5.6."""
        if not self._n_bonded:
            raise UserError(f"no two atoms of the training structures are within {self.cutoff} Å")
        return self.n_pairs / self._n_bonded


class EpochSampler(Sampler[int]):
    """The order of an epoch, which depends only on the seed and the epoch.

    ``nequip-train`` can use it too: Lightning's trainer calls :meth:`set_epoch`.
    """

    def __init__(self, n: int, seed: int) -> None:
        self.n = n
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int, done: int = 0) -> None:
        """Set the epoch of the next iteration, which begins after `done` structures."""
        self.epoch, self.done = epoch, done

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.n)
        return iter(order[self.done :].tolist())


def to_device(batch: Key.Type, device: torch.device) -> Key.Type:
    """Move a batch without waiting for the device."""
    return {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}


def collate(structures: list[Key.Type]) -> Key.Type:
    """Join structures with compact neighbour lists to a batch in NequIP's form."""
    batch = Key.batched_from_list(structures)
    batch[Key.EDGE_INDEX_KEY] = batch[Key.EDGE_INDEX_KEY].long()
    batch[Key.EDGE_CELL_SHIFT_KEY] = batch[Key.EDGE_CELL_SHIFT_KEY].double()
    # A single structure has an expanded tensor, which cannot be copied to pinned memory.
    batch[Key.BATCH_KEY] = batch[Key.BATCH_KEY].contiguous()
    return batch


def evaluation_batch(dataset: StructureDataset, size: int, device: torch.device) -> int:
    """Return the batch size of an evaluation: `size` on a CPU; on a GPU enough to keep it busy."""
    if device.type == "cpu" or not dataset.n_pairs:
        return size
    return max(size, EDGES_AT_ONCE * len(dataset) // dataset.n_pairs)


def make_loader(
    dataset: Dataset, batch_size: int, *, workers: int = 0, **kwargs: Any
) -> DataLoader:
    """Return a loader of batches in NequIP's form, on the device of the structures."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        collate_fn=collate,
        num_workers=workers,
        persistent_workers=workers > 0,
        # Its own: an iteration must not draw from the run's generator, whose state is saved.
        generator=torch.Generator(),
        **kwargs,
    )
