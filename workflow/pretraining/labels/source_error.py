"""Error of a label source against the target's labels, on the target's test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pretraining.data.store import Store
from pretraining.labels.compare import own_labels, source_labels
from pretraining.runtime.errors import UserError
from pretraining.study.queries import FITTED


def source_error(
    store: Store, source: str, chunk: Path, labelled: Store | None = None
) -> dict[str, Any]:
    """Compare a source's labels with the target's.

    Both energies are relative to isolated atoms of their own method. They may still differ by a
    constant per atom. The second energy error therefore subtracts the median difference per atom
    *of these test structures*: a lower bound, which a user of the source does not reach. If the
    target's zero is fitted, the median difference of the validation structures is subtracted first.

    Parameters
    ----------
    store
        Prepared target.
    labelled
        The target as a source has labelled it; structures without a label may be missing. By
        default the prepared target's own labels are used.
    chunk
        The target's ``eval`` chunk, labelled by `source`.

    Returns
    -------
    dict
        Under ``test``: ``energy_rmse_mev_per_atom``, ``force_rmse_ev_per_angstrom``,
        ``energy_rmse_after_median_shift_mev_per_atom``, ``median_shift_ev_per_atom`` and
        ``n_structures``. Under ``failed``: index and reason of structures without a label.

    Raises
    ------
    UserError
        If the target has no labels, the chunk is not its ``eval`` chunk, or nothing is labelled.
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
    if any(zero.get("kind") in FITTED for zero in zeros):
        energy -= np.median(validation)
    shift = float(np.median(energy))
    return {
        "kind": "source",
        "source": source,
        "test": {
            "n_structures": len(energy),
            "energy_rmse_mev_per_atom": 1000 * _rms(energy),
            "force_rmse_ev_per_angstrom": _rms(np.concatenate(forces)),
            "energy_rmse_after_median_shift_mev_per_atom": 1000 * _rms(energy - shift),
            "median_shift_ev_per_atom": shift,
        },
        "failed": [{"index": index, "reason": why} for index, why in theirs.errors.items()],
    }


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
