"""Error of a label source against the target's labels, on the target's test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pretraining.data.store import Store
from pretraining.labels.chunks import read_labelled
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
    n_eval = labelled.n_val + labelled.n_test
    rows = {int(labelled.arrays(row)["index"]): row for row in range(n_eval)}
    differences, validation, force_differences, failed, seen = [], [], [], [], 0
    test = store.indices("test")
    for label in read_labelled(store, source, [chunk]):
        seen += 1
        row = store.arrays(label.row)
        if label.error is not None:
            failed.append({"index": int(row["index"]), "reason": label.error})
            continue
        if int(row["index"]) not in rows:
            continue
        own = labelled.arrays(rows[int(row["index"])])
        difference = (label.energy - float(own["energy"])) / len(own["numbers"])
        if label.row not in test:
            validation.append(difference)
            continue
        differences.append(difference)
        force_differences.append((label.forces - own["forces"]).ravel())
    if seen < test.stop:
        raise UserError(f"{chunk} has {seen} of {test.stop} validation and test structures")
    if not differences:
        raise UserError(f"{chunk}: the source '{source}' labelled no test structure")
    energy = np.array(differences)
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
            "force_rmse_ev_per_angstrom": _rms(np.concatenate(force_differences)),
            "energy_rmse_after_median_shift_mev_per_atom": 1000 * _rms(energy - shift),
            "median_shift_ev_per_atom": shift,
        },
        "failed": failed,
    }


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
