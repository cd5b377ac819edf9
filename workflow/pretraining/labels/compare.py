"""Compare label sources on one dataset: errors of each pair, their page, a source's own error.

Energies are compared per atom after a shift: the median over the structures of their difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pretraining.data.sanity.units import comparison_warnings, rms
from pretraining.data.store import Store
from pretraining.labels.chunks import read_labelled
from pretraining.runtime.errors import UserError
from pretraining.runtime.tables import markdown
from pretraining.study.queries import FITTED
from pretraining.study.titles import SourceStyle, title_of

# Name of the labels that came with a dataset, beside the names of sources.
OWN = "labels"
ALL = "all"
TYPE = "config_type"
ENERGY, FORCE = "energy_rmse_mev_per_atom", "force_rmse_ev_per_angstrom"
RMSE = {ENERGY: ("Energy RMSE, meV/atom", ".1f"), FORCE: ("Force RMSE, eV/Å", ".3f")}
# Head and format of each column of the page.
COLUMNS = {
    "source": ("source", ""),
    "structures": ("structures", ",d"),
    "left_out": ("left out", ",d"),
    "shift_ev_per_atom": ("shift, eV/atom", "+.4f"),
    ENERGY: ("energy RMSE, meV/atom", ".1f"),
    "energy_mae_mev_per_atom": ("energy MAE, meV/atom", ".1f"),
    FORCE: ("force RMSE, eV/Å", ".3f"),
    "force_mae_ev_per_angstrom": ("force MAE, eV/Å", ".3f"),
}
HOW = (
    "The median over the structures of the energy difference per atom is subtracted for each pair "
    "(*shift*: second minus first). Forces are compared by component, over all atoms. A structure "
    "that one of the two could not label is left out of that pair."
)


@dataclass(frozen=True)
class Labels:
    """Labels of the structures of an ``eval`` chunk, in its order.

    Attributes
    ----------
    energy
        (n,), eV/atom; NaN where there is no label.
    forces
        n arrays (n_atoms, 3), eV/Å; None where there is no label.
    errors
        Reason for each structure without a label, by its raw index.
    """

    energy: np.ndarray
    forces: list[np.ndarray | None]
    errors: dict[int, str]

    def __len__(self) -> int:
        return len(self.energy)

    def rows(self, rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Energies per atom and all force components of labelled structures."""
        return self.energy[rows], np.concatenate([self.forces[i].ravel() for i in rows])


def own_labels(store: Store) -> Labels:
    """Labels that came with the validation and test structures of a prepared set."""
    rows = [store.arrays(row) for row in range(store.n_val + store.n_test)]
    energy = np.array([float(row["energy"]) / len(row["numbers"]) for row in rows])
    return Labels(energy, [row["forces"] for row in rows], {})


def source_labels(store: Store, source: str, chunk: Path) -> Labels:
    """A source's labels of the validation and test structures of a prepared set.

    Raises a `UserError` unless `chunk` is the set's whole ``eval`` chunk, labelled by the source.
    """
    n = store.n_val + store.n_test
    energy, forces, errors = np.full(n, np.nan), [None] * n, {}
    seen = 0
    for label in read_labelled(store, source, [chunk]):
        seen += 1
        if label.error is not None:
            errors[int(store.arrays(label.row)["index"])] = label.error
            continue
        energy[label.row] = label.energy / len(label.forces)
        forces[label.row] = label.forces
    if seen != n:
        raise UserError(f"{chunk} has {seen} of {n} validation and test structures; label again")
    return Labels(energy, forces, errors)


def types_of(store: Store) -> np.ndarray | None:
    """``config_type`` of each validation and test structure; None if the set has none."""
    if TYPE not in store.info_names:
        return None
    return store.column(TYPE)[: store.n_val + store.n_test].astype(str)


def both(first: Labels, second: Labels) -> np.ndarray:
    """Indices of the structures that both sources have labelled."""
    return np.flatnonzero(np.isfinite(first.energy) & np.isfinite(second.energy))


def median_shift(first: Labels, second: Labels) -> float:
    """Median over the structures of the energy difference, eV/atom; NaN without structures."""
    rows = both(first, second)
    return float(np.median(second.energy[rows] - first.energy[rows])) if len(rows) else np.nan


def compare(
    labels: Mapping[str, Labels], types: Sequence[str] | np.ndarray | None = None
) -> pd.DataFrame:
    """Errors of each pair of sources, over all structures and by ``config_type``.

    Returns
    -------
    pandas.DataFrame
        ``first``, ``second``, ``config_type`` (``all`` or one type; the shift is always that of
        all structures), ``structures``, ``left_out`` (without a label of one of the two),
        ``shift_ev_per_atom`` (second minus first), ``energy_rmse_mev_per_atom``,
        ``energy_mae_mev_per_atom``, ``force_rmse_ev_per_angstrom``, ``force_mae_ev_per_angstrom``.
    """
    table = []
    for (name, first), (other, second) in combinations(labels.items(), 2):
        rows, shift = both(first, second), median_shift(first, second)
        groups = {ALL: np.arange(len(first.energy))}
        if types is not None:
            groups |= {t: np.flatnonzero(np.asarray(types) == t) for t in sorted(set(types))}
        for config_type, members in groups.items():
            chosen = np.intersect1d(rows, members)
            pair = {"first": name, "second": other, "config_type": config_type}
            pair |= {"structures": len(chosen), "left_out": len(members) - len(chosen)}
            pair |= {"shift_ev_per_atom": shift} | _errors(first, second, shift, chosen)
            table.append(pair)
    return pd.DataFrame(table)


def _errors(first: Labels, second: Labels, shift: float, rows: np.ndarray) -> dict[str, float]:
    energy, forces = np.array([np.nan]), np.array([np.nan])
    if len(rows):
        energy = 1000 * (second.energy[rows] - first.energy[rows] - shift)
        forces = np.concatenate([(second.forces[i] - first.forces[i]).ravel() for i in rows])
    return {
        ENERGY: rms(energy),
        "energy_mae_mev_per_atom": float(np.mean(np.abs(energy))),
        FORCE: rms(forces),
        "force_mae_ev_per_angstrom": float(np.mean(np.abs(forces))),
    }


def source_error(
    store: Store, source: str, chunk: Path, labelled: Store | None = None
) -> dict[str, Any]:
    """Compare a source's labels with the target's.

    Both energies are relative to isolated atoms of their own method. They may still differ by a
    constant per atom. The second energy error therefore subtracts the median difference per atom
    *of these test structures*: a lower bound, which a user of the source does not reach. If the
    target's zero is fitted, the median difference of the validation structures is subtracted first.
    Raises a `UserError` if the target has no labels, the chunk is not its ``eval`` chunk, or
    nothing is labelled.

    Parameters
    ----------
    labelled
        The target as a source has labelled it; structures without a label may be missing. By
        default the prepared target's own labels are used.
    chunk
        The target's ``eval`` chunk, labelled by `source`.

    Returns
    -------
    dict
        Under ``test``: ``energy_rmse_mev_per_atom``, ``force_rmse_ev_per_angstrom``,
        ``energy_rmse_after_median_shift_mev_per_atom``, the same after a mean shift,
        ``median_shift_ev_per_atom`` and ``n_structures``. Under ``failed``: index and reason of
        structures without a label. Under ``warnings``: what is suspicious about units or zeros.
    """
    labelled = labelled or store
    if not labelled.has_labels:
        raise UserError(f"{labelled.path} has no labels to compare '{source}' with")
    theirs, own = source_labels(store, source, chunk), own_labels(labelled)
    place = {int(index): row for row, index in enumerate(labelled.column("index")[: len(own)])}
    indices = store.column("index")[: len(theirs)]
    known = np.flatnonzero(np.isfinite(theirs.energy))
    pairs = [(i, place[indices[i]]) for i in known if indices[i] in place]
    differences = np.array([theirs.energy[i] - own.energy[j] for i, j in pairs])
    forces = [(theirs.forces[i] - own.forces[j]).ravel() for i, j in pairs if i >= store.n_val]
    is_test = np.array([i >= store.n_val for i, _ in pairs], dtype=bool)
    energy, validation = differences[is_test], differences[~is_test]
    if not len(energy):
        raise UserError(f"{chunk}: the source '{source}' labelled no test structure")
    zeros = [labelled.provenance.get(key, {}) for key in ("energy_reference", "energy_zero")]
    fitted = any(zero.get("kind") in FITTED for zero in zeros)
    if fitted:
        energy -= np.median(validation)
    rows = [i for i, _ in pairs], [j for _, j in pairs]
    known = theirs.rows(rows[0]), own.rows(rows[1])
    shift = float(np.median(energy))
    return {
        "kind": "source",
        "source": source,
        "test": {
            "n_structures": len(energy),
            ENERGY: 1000 * rms(energy),
            FORCE: rms(np.concatenate(forces)),
            "energy_rmse_after_median_shift_mev_per_atom": 1000 * rms(energy - shift),
            "energy_rmse_after_mean_shift_mev_per_atom": 1000 * float(np.std(energy)),
            "median_shift_ev_per_atom": shift,
        },
        "warnings": comparison_warnings(*known, fitted),
        "failed": [{"index": index, "reason": why} for index, why in theirs.errors.items()],
    }


# ------------------------------------------------------------------------------ the page


def name_of(source: str, styles: Mapping[str, SourceStyle] | None = None) -> str:
    """Title of a source or of the dataset's own labels."""
    return "dataset's labels" if source == OWN else title_of(source, styles)


def page(
    title: str,
    table: pd.DataFrame,
    labels: Mapping[str, Labels],
    reference: str | None,
    styles: Mapping[str, SourceStyle] | None = None,
) -> str:
    """Markdown page of one dataset, from its `table` of :func:`compare`.

    `labels` are by name, the reference first. `reference` is the name of the labels that the others
    are compared with; None if the dataset has none.
    """
    n = len(next(iter(labels.values())).energy)
    table = table.assign(source=[name_of(name, styles) for name in table["second"]])
    pairs = table[table["config_type"] == ALL]
    against = table[table["first"] == reference]
    parts = [f"# Label sources on {title}\n", f"{n:,} validation and test structures. {HOW}\n"]
    if reference is not None:
        parts += [
            f"## Against the {name_of(reference, styles)}\n",
            markdown(against[against["config_type"] == ALL], columns=COLUMNS),
            _spread(labels[reference]),
        ]
    if len(labels) > (1 if reference is None else 2):
        for column, (head, form) in RMSE.items():
            parts += [f"## {head}, of each pair\n", _matrix(pairs, column, form, styles)]
    by_type = against[against["config_type"] != ALL]
    if len(by_type):
        for column, (head, form) in RMSE.items():
            title = f"## {head}, against the {name_of(reference, styles)} by kind of structure\n"
            parts += [title, _by_type(by_type, column, form)]
    failures = []
    for name, part in labels.items():
        if part.errors:
            count = len(part.errors)
            index, reason = next(iter(part.errors.items()))
            some = "one structure" if count == 1 else f"{count} structures, the first"
            failures.append(f"- {name_of(name, styles)}: {some} with the index {index} ({reason})")
    if failures:
        parts += ["## Not labelled\n", "\n".join(failures) + "\n"]
    return "\n".join(parts)


def _spread(labels: Labels) -> str:
    known = [forces.ravel() for forces in labels.forces if forces is not None]
    force = rms(np.concatenate(known)) if known else np.nan
    return (
        f"Spread of these labels: energies have a standard deviation of "
        f"{1000 * np.nanstd(labels.energy):.0f} meV/atom, force components a root mean square of "
        f"{force:.2f} eV/Å.\n"
    )


def _matrix(pairs: pd.DataFrame, column: str, form: str, styles) -> str:
    names = list(dict.fromkeys([*pairs["first"], *pairs["second"]]))
    values = pairs.pivot(index="first", columns="second", values=column).reindex(
        index=names, columns=names
    )
    titles = [name_of(name, styles) for name in names]
    values = values.fillna(values.T).set_axis(titles, axis=1)
    values.insert(0, "", titles)
    return markdown(values, dict.fromkeys(titles, form))


def _by_type(table: pd.DataFrame, column: str, form: str) -> str:
    size = (table["structures"] + table["left_out"]).groupby(table["config_type"]).max()
    errors = table.pivot(index="config_type", columns="source", values=column)
    errors = errors[list(dict.fromkeys(table["source"]))]
    forms = {"structures": ",d"} | dict.fromkeys(errors.columns, form)
    errors.insert(0, "structures", size)
    return markdown(errors.reset_index(), forms)
