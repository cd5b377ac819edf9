"""Runs that ended at max_epochs while still improving are marked wherever they are compared."""

from __future__ import annotations

import pandas as pd
import pytest

from pretraining.figures.learning_curves import learning_curves
from pretraining.figures.panels import Options
from pretraining.results.efficiency import as_markdown as efficiency_page
from pretraining.results.efficiency import efficiency
from pretraining.results.runs_table import COLUMNS, normalise
from pretraining.results.selection import on_test_set, select
from pretraining.results.table1 import as_latex, as_markdown, table1

LATE = ("150", "143", "max_epochs")
NOTE = "† a seed was still improving at max_epochs: {} of 6 runs"
ENDS = ("epochs", "best_epoch", "stopped_because")


def study(direct=LATE, tuned=("90", "30", "patience")) -> pd.DataFrame:
    """Two sizes, two seeds of direct training and one of fine-tuning, and a further test set."""
    rows = []
    for n in (8, 16):
        for seed in (1, 2):
            rows.append(("direct", "T", "none", 0, n, seed, 800 / n, 8 / n, "", *direct))
        rows.append(("finetune", "T", "ace", 100, n, 1, 300 / n, 3 / n, "", *tuned))
        rows.append(("transfer", "U", "none", 0, n, 1, 900 / n, 9 / n, "T", "", "", ""))
    return normalise(pd.DataFrame(rows, columns=[*COLUMNS, "trained_on", *ENDS]), "runs")


@pytest.mark.parametrize(
    ("end", "late"),
    [
        (LATE, True),
        (("150", "150", "max_epochs"), True),
        (("150", "136", "max_epochs"), True),
        (("150", "135", "max_epochs"), False),
        (("150", "149", "patience"), False),
        (("150", "150", "diverged"), False),
        (("1", "1", "max_epochs"), True),
        (("1", "0", "max_epochs"), False),
        # A table of others may lack them, or have other words.
        (("", "", ""), False),
        (("150", "", "max_epochs"), False),
        (("nan", "last", "max_epochs"), False),
    ],
)
def test_a_run_is_unconverged_if_its_best_epoch_is_among_the_last(end, late):
    runs = study(end)
    direct = runs["source"] == "none"
    assert (runs.loc[direct, "unconverged"] == late).all(), "also on a further test set"
    assert not runs.loc[~direct, "unconverged"].any()


def test_a_table_without_epochs_has_no_marks():
    runs = study().drop(columns=[*ENDS, "unconverged"])
    assert not normalise(runs, "runs")["unconverged"].any()


@pytest.mark.parametrize(("end", "sign"), [(LATE, "†"), (("9", "1", "patience"), "")])
def test_tables_figures_and_sentences_say_so(end, sign):
    runs = study(end)
    selected = select(runs)
    page = as_markdown(table1(selected))
    assert f"100.0 ± 0.0{sign} |" in page and "37.5 |" in page
    assert (NOTE.format(4) in page) == bool(sign)
    assert (r"$^\dagger$" in as_latex(table1(selected))) == bool(sign)
    figure = learning_curves([selected], Options())
    signs = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert [text for text in signs if text] == 4 * ["†"] * bool(sign)
    assert (NOTE.format(4) in figure.texts[0].get_text()) == bool(sign)
    page = efficiency_page(efficiency(runs, "T"))
    sentences = [line for line in page.splitlines() if "instead of" in line and line[0] == "-"]
    said = "(† not converged: 2 of 2 direct runs were still improving at max_epochs)"
    assert sentences and all((said in line) == bool(sign) for line in sentences)


def test_a_further_test_set_shows_the_marks_of_its_models():
    runs = on_test_set(study(), "T", "U")
    assert runs.loc[runs["kind"] == "direct", "unconverged"].all()
