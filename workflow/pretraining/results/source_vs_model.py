"""Is the student as good as its teacher? Label sources beside the models that learned from them.

The zero of energy of a label source is its own, and so is that of a model that has seen nothing but
its labels: their energy errors are those after a median shift. A fine-tuned model has the target's
zero, and its error is taken as it is.
"""

from __future__ import annotations

import pandas as pd

from pretraining.results.runs_table import RMSE, SHIFTED
from pretraining.results.selection import Selection, nearest_size, select
from pretraining.results.table1 import cell_of
from pretraining.runtime.errors import UserError

FREE = {"energy": SHIFTED, "force": RMSE["force"]}
COLUMNS = ("target", "structures", "source", "npre", "n", "metric", "aggregate")
COLUMNS = (*COLUMNS, "source_error", "pretrained", "finetuned")


def students(runs: pd.DataFrame, aggregate: str = "best", at: int = 400) -> pd.DataFrame:
    """The errors of each label source, of its pre-trained model, and of that fine-tuned.

    Parameters
    ----------
    runs
        As :func:`pretraining.results.runs_table.read_runs` returns them.
    aggregate
        ``best`` of the seeds, or their ``mean``.
    at
        The fine-tuning is that at the nearest number of structures.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`COLUMNS`, for every target that a source was tested on, at the pre-training
        size that most sources share.

    Raises
    ------
    UserError
        If no label source was tested.
    """
    tested = runs[runs["kind"] == "source"]
    tuned = runs[(runs["kind"] == "finetune") & (runs["transform"] == "none")]
    rows = []
    for target in sorted(set(tested["target"]) & set(tuned["target"])):
        selected = select(runs, Selection(target=target, transform="none"))
        n = nearest_size([selected], at)
        fine = selected.runs[(selected.runs["kind"] == "finetune") & (selected.runs["n"] == n)]
        for source in dict.fromkeys(fine["source"]):
            for metric in RMSE:
                parts = {
                    "source_error": (selected.sources, FREE[metric]),
                    "pretrained": (selected.untuned, FREE[metric]),
                    "finetuned": (fine, RMSE[metric]),
                }
                row = {"target": target, "structures": selected.chosen.structures}
                row |= {"source": source, "npre": selected.chosen.npre, "n": n}
                row |= {"metric": metric, "aggregate": aggregate}
                for name, (frame, column) in parts.items():
                    cell = cell_of(frame[frame["source"] == source], column)
                    row[name] = getattr(cell, aggregate)
                rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).dropna(subset="source_error")
    if table.empty:
        raise UserError("no label source was tested on a target: nothing to compare students with")
    return table.reset_index(drop=True)
