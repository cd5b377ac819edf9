"""How far label sources are from each other, and from a dataset's own labels.

Two sources may differ in their zero of energy. For structures i with n_i atoms that both have
labelled, d_i = (E_i of the second - E_i of the first) / n_i is the difference an atom, and its
median over those structures is the shift of this pair. Energy errors are those of d_i - shift;
force errors are those of all Cartesian components of all atoms of these structures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from pretraining.data.store import Store
from pretraining.labels.chunks import read_labelled
from pretraining.runtime.errors import UserError

# Stands for the labels that came with a dataset where others have the name of a source.
OWN = "labels"
ALL = "all"
TYPE = "config_type"


@dataclass(frozen=True)
class Labels:
    """Labels of the structures of an ``eval`` chunk, in its order.

    Attributes
    ----------
    energy
        (n,), eV an atom; NaN where there is no label.
    forces
        n arrays (n_atoms, 3), eV/Å; None where there is no label.
    errors
        Reason for each structure without a label, by its raw index.
    """

    energy: np.ndarray
    forces: list[np.ndarray | None]
    errors: dict[int, str]


def own_labels(store: Store) -> Labels:
    """The labels that came with a prepared set, of its validation and test structures."""
    rows = [store.arrays(row) for row in range(store.n_val + store.n_test)]
    energy = np.array([float(row["energy"]) / len(row["numbers"]) for row in rows])
    return Labels(energy, [row["forces"] for row in rows], {})


def source_labels(store: Store, source: str, chunk: Path) -> Labels:
    """A source's labels of a prepared set's validation and test structures.

    Raises
    ------
    UserError
        If the chunk is not the set's whole ``eval`` chunk, labelled by the source.
    """
    n = store.n_val + store.n_test
    energy, forces, errors = np.full(n, np.nan), [None] * n, {}
    seen = 0
    for label in read_labelled(store, source, [chunk]):
        seen += 1
        if label.row >= n:
            continue
        if label.error is not None:
            errors[int(store.arrays(label.row)["index"])] = label.error
            continue
        energy[label.row] = label.energy / len(label.forces)
        forces[label.row] = label.forces
    if seen != n:
        raise UserError(f"{chunk} has {seen} of {n} validation and test structures; label again")
    return Labels(energy, forces, errors)


def types_of(store: Store) -> np.ndarray | None:
    """Kind of each validation and test structure; None if the set keeps none."""
    if TYPE not in store.info_names:
        return None
    return store.column(TYPE)[: store.n_val + store.n_test].astype(str)


def both(first: Labels, second: Labels) -> np.ndarray:
    """Indices of the structures that two have labelled."""
    return np.flatnonzero(np.isfinite(first.energy) & np.isfinite(second.energy))


def median_shift(first: Labels, second: Labels) -> float:
    """Median over the structures of the energy difference an atom, eV; NaN if there are none."""
    rows = both(first, second)
    return float(np.median(second.energy[rows] - first.energy[rows])) if len(rows) else np.nan


def compare(
    labels: Mapping[str, Labels], types: Sequence[str] | np.ndarray | None = None
) -> pd.DataFrame:
    """Errors of each pair, over all structures and by their kind.

    Parameters
    ----------
    labels
        Labels by name; the first one of a pair is the earlier one here.
    types
        Kind of each structure.

    Returns
    -------
    pandas.DataFrame
        ``first``, ``second``, ``config_type`` (``all``, or a kind; the shift is that of all
        structures nevertheless), ``structures``, ``left_out`` (that one of the two could not
        label), ``shift_ev_per_atom`` (second minus first), ``energy_rmse_mev_per_atom``,
        ``energy_mae_mev_per_atom``, ``force_rmse_ev_per_angstrom``, ``force_mae_ev_per_angstrom``.
    """
    return pd.DataFrame(_rows(labels, types))


def _rows(labels: Mapping[str, Labels], types: Sequence[str] | None) -> Iterator[dict]:
    for (name, first), (other, second) in combinations(labels.items(), 2):
        rows = both(first, second)
        shift = median_shift(first, second)
        groups = {ALL: np.arange(len(first.energy))}
        if types is not None:
            kinds = np.asarray(types)
            groups |= {kind: np.flatnonzero(kinds == kind) for kind in sorted(set(types))}
        for kind, members in groups.items():
            chosen = np.intersect1d(rows, members)
            pair = {"first": name, "second": other, "config_type": kind}
            pair |= {"structures": len(chosen), "left_out": len(members) - len(chosen)}
            yield pair | {"shift_ev_per_atom": shift} | _errors(first, second, shift, chosen)


def _errors(first: Labels, second: Labels, shift: float, rows: np.ndarray) -> dict[str, float]:
    energy, forces = np.array([np.nan]), np.array([np.nan])
    if len(rows):
        energy = 1000 * (second.energy[rows] - first.energy[rows] - shift)
        forces = np.concatenate([(second.forces[i] - first.forces[i]).ravel() for i in rows])
    return {
        "energy_rmse_mev_per_atom": float(np.sqrt(np.mean(energy**2))),
        "energy_mae_mev_per_atom": float(np.mean(np.abs(energy))),
        "force_rmse_ev_per_angstrom": float(np.sqrt(np.mean(forces**2))),
        "force_mae_ev_per_angstrom": float(np.mean(np.abs(forces))),
    }


def spread(labels: Labels) -> dict[str, float]:
    """The size of the labels themselves, in whose units errors can be seen.

    Returns
    -------
    dict
        ``energy`` (standard deviation of the energy an atom, meV) and ``force`` (root mean square
        of the components, eV/Å).
    """
    known = [forces for forces in labels.forces if forces is not None]
    components = np.concatenate([forces.ravel() for forces in known]) if known else np.array([])
    return {
        "energy": float(1000 * np.nanstd(labels.energy)) if known else np.nan,
        "force": float(np.sqrt(np.mean(components**2))) if known else np.nan,
    }
