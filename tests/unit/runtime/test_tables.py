"""Tables as Markdown."""

from __future__ import annotations

import pandas as pd

from pretraining.runtime.tables import markdown


def test_text_is_aligned_left_and_numbers_right():
    table = pd.DataFrame(
        {"source": ["ACE", None], "error": [12.345, float("nan")], "ratio": ["≥ 2", "3"]}
    )
    assert markdown(table, {"error": ".1f", "ratio": ">"}).splitlines() == [
        "| source   |   error |   ratio |",
        "|:---------|--------:|--------:|",
        "| ACE      |    12.3 |     ≥ 2 |",
        "| –        |       – |       3 |",
    ]
    assert "| source" in markdown(table[:0])
    assert markdown(table, columns={"error": ("RMSE", ".0f")}).splitlines()[2:] == [
        "|     12 |",
        "|      – |",
    ]
