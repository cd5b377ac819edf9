"""Label sources against models: errors of each source and of the models trained on its labels.

A source has its own zero of energy, and so has a model trained only on its labels: their energy
errors are those after a median shift. A fine-tuned model has the target's zero.
"""

from __future__ import annotations

import pandas as pd

from pretraining.results.runs_table import RMSE, SHIFTED
from pretraining.results.seed_statistics import cell_of
from pretraining.results.selection import Selection, nearest_size, select
from pretraining.runtime.errors import UserError

FREE = {"energy": SHIFTED, "force": RMSE["force"]}
COLUMNS = ("target", "structures", "source", "npre", "n", "metric", "aggregate")
COLUMNS = (*COLUMNS, "source_error", "pretrained", "finetuned")


def source_vs_model(runs: pd.DataFrame, aggregate: str = "best", at: int = 400) -> pd.DataFrame:
    """The errors of each label source, of its pre-trained model, and of the fine-tuned one.

    Parameters
    ----------
    runs
        As :func:`pretraining.results.runs_table.read_runs` returns them.
    aggregate
        ``best`` or ``mean`` of the seeds.
    at
        The models fine-tuned on the nearest number of structures are taken.

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
        chosen = {"structures": selected.chosen.structures, "npre": selected.chosen.npre}
        for source in dict.fromkeys(fine["source"]):
            for metric in RMSE:
                row = {"target": target, **chosen, "source": source, "n": n, "metric": metric}
                for name, frame, column in (
                    ("source_error", selected.sources, FREE[metric]),
                    ("pretrained", selected.untuned, FREE[metric]),
                    ("finetuned", fine, RMSE[metric]),
                ):
                    row[name] = getattr(
                        cell_of(frame[frame["source"] == source], column), aggregate
                    )
                rows.append({**row, "aggregate": aggregate})
    table = pd.DataFrame(rows, columns=list(COLUMNS)).dropna(subset="source_error")
    if table.empty:
        raise UserError("no label source was tested on a target: nothing to compare models with")
    return table.reset_index(drop=True)
