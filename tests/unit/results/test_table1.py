"""Table 1: statistics of a cell, marks, selection, rendering, comparison with published values."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pretraining.results.runs_table import COLUMNS, normalise
from pretraining.results.seed_statistics import cell_of
from pretraining.results.selection import Selection, select
from pretraining.results.table1 import (
    as_latex,
    as_markdown,
    compare,
    compare_markdown,
    read_table1,
    table1,
)
from pretraining.runtime.errors import UserError

SEEDS = (1, 2, 3, 4, 42)


def runs_of(rows: list[tuple]) -> pd.DataFrame:
    """A runs table of rows (target, source, npre, n, seed, energy)."""
    table = pd.DataFrame(
        [
            ("direct" if source == "none" else "finetune", target, source, npre, n, seed, energy, 1)
            for target, source, npre, n, seed, energy in rows
        ],
        columns=list(COLUMNS),
    )
    return normalise(table, "runs")


def cell(values: list[float], n: int = 25, source: str = "none", npre: int = 0) -> list[tuple]:
    return [("T", source, npre, n, s, v) for s, v in zip(SEEDS, values, strict=False)]


def row_of(rows: list[tuple]) -> pd.Series:
    return table1(select(runs_of(rows))).iloc[0]


def test_mean_and_sample_standard_deviation():
    values = [166.5, 210.0, 190.0, 180.0, 215.0]
    row = row_of(cell(values))
    assert row["mean"] == pytest.approx(statistics.mean(values))
    assert row["std"] == pytest.approx(statistics.stdev(values))
    assert row["count"] == 5
    assert not row["flagged"]


@pytest.mark.parametrize(
    ("values", "flagged"),
    [
        ([60.0, 61.0, 62.0, 63.0, 77.4], False),  # 1.248 times the median
        ([60.0, 61.0, 62.0, 63.0, 77.6], True),  # 1.252 times
        ([62.0, 62.5, 62.0, 62.7, 105.5], True),
        ([10.0, 62.0, 62.0, 62.0, 62.0], False),  # a run that is better than the others
        ([50.0], False),
        ([50.0, float("nan")], True),
        ([50.0, float("inf")], True),
        ([float("nan"), float("nan")], True),
    ],
)
def test_a_cell_is_marked_above_a_quarter_more_than_its_median(values, flagged):
    assert row_of(cell(values))["flagged"] == flagged


def test_a_lost_run_stays_out_of_the_mean_and_shows_in_the_count():
    row = row_of(cell([60.0, 64.0, float("nan")]))
    assert (row["mean"], row["count"]) == (62.0, 2)
    assert row["std"] == pytest.approx(math.sqrt(8))


def test_a_single_seed_has_no_standard_deviation():
    row = row_of(cell([60.0]))
    assert (row["mean"], row["count"]) == (60.0, 1)
    assert math.isnan(row["std"])


def test_a_diverged_run_with_a_finite_error_is_marked_and_kept():
    runs = runs_of(cell([60.0, 64.0]))
    runs["diverged"] = [True, False]
    found = cell_of(runs)
    assert (found.mean, found.count, found.flagged) == (62.0, 2, True)


def test_a_missing_run_is_neither_counted_nor_marked():
    runs = runs_of(cell([60.0, 64.0, float("nan")]))
    runs.loc[2, "status"] = "missing"
    found = cell_of(runs)
    assert (found.count, found.missing, found.flagged) == (2, 1, False)


def test_defaults_choose_the_target_and_size_that_most_sources_share():
    rows = [("big", s, p, 25, k, 70.0) for s, p in (("none", 0), ("ace", 100)) for k in range(50)]
    for source, npre in (("none", 0), ("edip", 1000), ("ace", 1000), ("ace", 100), ("ace", 9000)):
        rows += [("T", source, npre, 25, k, 50.0 + npre) for k in SEEDS]
    selected = select(runs_of(rows))
    assert (selected.chosen.target, selected.chosen.npre) == ("T", 1000)
    table = table1(selected)
    assert list(table["source"]) == ["none", "edip", "ace"]
    assert list(table["mean"]) == [50.0, 1050.0, 1050.0]
    assert table1(select(runs_of(rows), Selection(npre=9000)))["mean"].iloc[-1] == 9050.0


def test_ties_between_sizes_go_to_the_larger():
    rows = cell([50.0]) + [("T", "ace", npre, 25, 1, 40.0) for npre in (100, 100_000, 1000)]
    rows += [("T", "ace", 1000, 25, 2, 40.0)]
    assert select(runs_of(rows)).chosen.npre == 100_000


def test_sources_without_the_chosen_size_are_named():
    rows = cell([50.0]) + cell([40.0], source="ace", npre=500)
    rows += cell([40.0], source="edip", npre=500) + cell([40.0], source="lcbop", npre=100)
    assert "source lcbop left out" in select(runs_of(rows)).notes[0]


def test_rows_of_other_targets_may_clash_in_eight_columns():
    # Two transforms of the silicon experiment differ by no column of the eight.
    rows = cell([50.0]) + cell([40.0], source="ace", npre=100) + cell([45.0], source="x", npre=100)
    rows += [("Si", "ace", 100, 25, 1, energy) for energy in (1.0, 2.0)]
    assert len(table1(select(runs_of(rows)))) == 3
    with pytest.raises(UserError, match="listed twice with different results"):
        select(runs_of(rows), Selection(target="Si"))


def test_unknown_wishes_are_answered_with_what_there_is():
    with pytest.raises(UserError, match="no runs with target 'X'; there are: T"):
        select(runs_of(cell([50.0])), Selection(target="X"))
    rows = cell([50.0]) + cell([40.0], source="ace", npre=100)
    with pytest.raises(UserError, match="no runs with npre 7; there are: 100"):
        select(runs_of(rows), Selection(npre=7))


def published_like(root: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs with exactly the published mean and spread of every cell."""
    published = read_table1(root / "resources/published/table1.csv")
    rows = []
    for _, want in published.iterrows():
        # One run far off in a marked cell, an even spread in the others.
        shape = np.array([-1, -1, -1, -1, 4.0] if want["flagged"] else [-1, -0.5, 0, 0.5, 1.0])
        values = shape / shape.std(ddof=1) * want["std"] + want["mean"]
        npre = 0 if want["source"] == "none" else 10_000
        rows += cell(list(values), want["n"], want["source"], npre)
    return runs_of(rows), published


def test_published_cells_stand_below_the_computed_ones(root):
    computed = table1(select(runs_of(cell([160.0]) + cell([70.0], 40, "ace", 100))))
    published = read_table1(root / "resources/published/table1.csv")
    rows = as_markdown(computed, None, "", published).splitlines()
    cells = [[text.strip() for text in row.strip("|").split("|")] for row in rows[2:5]]
    # Nothing is published at 40 structures.
    assert cells == [["25", "160.0", ""], ["published", "192.3 ± 21.2", ""], ["40", "", "70.0"]]
    assert "* a seed diverged" not in "".join(rows)


def test_published_table_is_reproduced_with_its_marks(root):
    runs, published = published_like(root)
    table = table1(select(runs))
    pd.testing.assert_frame_equal(
        table[["n", "source", "flagged"]], published[["n", "source", "flagged"]]
    )
    assert np.allclose(table[["mean", "std"]], published[["mean", "std"]])
    differences = compare(table, published)
    assert len(differences) == 40
    assert (differences["difference"].abs() < 1e-9).all()
    assert differences["source"].iloc[:5].tolist() == ["none", "edip", "lcbop", "gap20u", "ace"]


def test_differences_list_every_cell_of_both_tables(root):
    published = read_table1(root / "resources/published/table1.csv")
    computed = table1(select(runs_of(cell([200.0, 210.0]) + cell([5.0], n=7))))
    found = compare(computed, published)
    assert len(found) == 41
    row = found[(found["n"] == 25) & (found["source"] == "none")].iloc[0]
    assert row["difference"] == pytest.approx(205.0 - 192.3)
    assert row["ratio"] == pytest.approx(205.0 / 192.3)
    assert row["z"] == pytest.approx(12.7 / math.sqrt(50 / 2 + 21.2**2 / 5))
    assert math.isnan(found[found["n"] == 7]["difference"].iloc[0])
    assert "1 cells in common, 1 only computed, 39 only published" in compare_markdown(found)


def test_rendered_tables(root):
    runs, _ = published_like(root)
    table = table1(select(runs))
    text = " ".join(as_markdown(table, heading="Table 1.").split())
    assert "| n | Direct | EDIP | LCBOP | GAP-20U | C-ACE |" in text
    assert "| 3200 | 51.0 ± 6.2* | 88.2 ± 72.3* | 48.2 ± 0.9 | 45.9 ± 0.5 | 45.4 ± 0.4 |" in text
    latex = as_latex(table)
    assert r"800 & 69.1 $\pm$ 2.8 & 71.1 $\pm$ 19.2* &" in latex
    lost = as_markdown(table1(select(runs_of(cell([60.0, float("nan")])))))
    assert "| 60.0 (1/2)* |" in lost


def test_the_script_writes_the_columns(tmp_path, root, script):
    runs, _ = published_like(root)
    runs[list(COLUMNS)].to_csv(tmp_path / "runs.csv", index=False)
    options = ["--runs", tmp_path / "runs.csv", "--out", tmp_path / "t.csv"]
    assert script("table1", *options) == (0, "")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "n,source,mean,std,count,flagged,unconverged"
    assert lines[1].startswith("25,none,192.3,21.2,5,false")
    assert len(lines) == 41
    (tmp_path / "runs.csv").write_text("kind,target\n")
    status, message = script("table1", *options)
    assert status == 1 and message.count("\n") == 1
    assert "runs.csv: no column source" in message


ENERGIES = st.one_of(st.floats(1.0, 1e3), st.just(float("nan")), st.just(float("inf")))


@st.composite
def shuffled(draw):
    rows = []
    for source in ("none", "ace", "edip"):
        for n in draw(st.sets(st.sampled_from([25, 50, 100]), min_size=1)):
            values = draw(st.lists(ENERGIES, min_size=1, max_size=5))
            rows += cell(values, n, source, 0 if source == "none" else 10)
    return rows, draw(st.permutations(rows)), draw(st.permutations(SEEDS))


@settings(max_examples=20, deadline=None)
@given(shuffled())
def test_order_of_rows_and_names_of_seeds_do_not_matter(case):
    rows, mixed, names = case
    new = dict(zip(SEEDS, names, strict=True))
    renamed = [(*row[:4], new[row[4]], row[5]) for row in mixed]
    expected = table1(select(runs_of(rows)))
    for other in (mixed, mixed + mixed[:3], renamed):
        pd.testing.assert_frame_equal(table1(select(runs_of(other))), expected)
