"""Training times: what counts, how much faster fine-tuning is, and what is drawn."""

from __future__ import annotations

import pandas as pd
import pytest

from pretraining.figures.panels import Options
from pretraining.figures.training_time import training_time_figure
from pretraining.results.published import published_times
from pretraining.results.runs_table import COLUMNS, normalise
from pretraining.results.selection import select
from pretraining.results.training_time import SPEED_UPS, speed_ups, training_times


def study(times: dict[tuple[int, int], tuple], **columns) -> pd.DataFrame:
    """Runs of seeds 1, 2, … with the given times (s), by npre and n."""
    rows = [
        ("finetune" if npre else "direct", "C-GAP-17", "ace" if npre else "none")
        + (npre, n, seed, 100 / n, 10 / n, seconds)
        for (npre, n), values in times.items()
        for seed, seconds in enumerate(values, 1)
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "train_time_s"])
    return normalise(table.assign(**columns), "runs")


TIMES = {(0, 25): (90, 110), (0, 50): (150, 250), (300, 25): (20, 30), (300, 50): (40, 40)}


def test_the_published_speed_up_follows_from_the_published_times(root):
    times = published_times(root / "resources/published/timing.csv", "C-GAP-17")
    direct = times[(times["source"] == "none") & (times["n"] == 800)].iloc[0]
    assert (direct["fastest_s"], direct["slowest_s"]) == (890.1, 2651.1)
    ratios = speed_ups(times).set_index(["source", "npre"]).loc[("ace", 100_000)]
    assert ratios[list(SPEED_UPS)].tolist() == pytest.approx([4.1, 2.7, 6.8], abs=0.05)


def test_speed_ups_are_means_over_the_sizes():
    (row,) = speed_ups(training_times(study(TIMES))).to_dict("records")
    assert row["speed_up"] == pytest.approx((100 / 25 + 200 / 40) / 2)
    assert row["speed_up_min"] == pytest.approx((90 / 30 + 150 / 40) / 2)
    assert row["speed_up_max"] == pytest.approx((110 / 20 + 250 / 40) / 2)


def test_runs_on_another_device_than_most_are_left_out():
    times = training_times(study(TIMES, device=["cpu"] * 7 + ["cuda"]))
    assert set(times["device"]) == {"cpu"}
    assert sorted(times["seeds"]) == [1, 2, 2, 2]


@pytest.mark.parametrize("transforms", [("none",), ("none", "Si")])
def test_times_and_errors_are_drawn(root, transforms):
    runs = [study(TIMES, transform=name) for name in transforms]
    published = published_times(root / "resources/published/timing.csv", "C-GAP-17")
    figure, table = training_time_figure(
        [select(part) for part in runs], Options(compare="npre"), published=published
    )
    assert len(figure.axes) == 2 * len(transforms)
    left, right, *_ = figure.axes
    assert (left.get_xscale(), right.get_xscale(), right.get_yscale()) == ("log", "log", "log")
    assert left.containers[0].lines[0].get_ydata().tolist() == [100, 200]
    assert right.containers[0].lines[0].get_xdata().tolist() == [100, 200]
    note = figure.texts[-1].get_text()
    assert "speed-up of 300 at the same n, mean over n:" in note and "4.5 × (3.4–5.9)" in note
    # The published direct training; the paper has no pre-training on 300 structures.
    assert set(table.loc[table["kind"] == "published", "source"]) == {"none"}


def test_without_times_the_panels_say_so():
    runs = study({cell: (float("nan"),) for cell in TIMES})
    figure, table = training_time_figure([select(runs)], Options())
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["no results yet"] * 2
    assert table.empty
