"""Figures of several panels: a specialised target (as Fig. 4), another element (as Fig. 5).

Letters are those of the paper: the embedding of environments has its letter, and its place,
whether it is drawn or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from string import ascii_lowercase

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple

from pretraining.figures.bars import draw_bars, size_names
from pretraining.figures.panels import (
    LABELS,
    SIZES_LABEL,
    Extent,
    Options,
    draw_panel,
    handles_of,
    looks_of,
    note_below,
    reference_handles,
    reference_lines,
    reference_values,
)
from pretraining.figures.style import CYCLE, DIRECT_COLOUR, TEXT_WIDTH, house_style, ramp
from pretraining.results.runs_table import KEY
from pretraining.results.seed_statistics import FLAG_NOTE, common_seeds, curve_points, describe_runs
from pretraining.results.selection import Selected, nearest_size
from pretraining.study.titles import SourceStyle, title_of

# Turquoise and magenta, as published; further transforms take the colours of the cycle.
TRANSFORM_COLOURS = ("#1BA3A3", "#C2378F", *CYCLE)
HEIGHT = 2.35
Draw = Callable[[Axes], None]
Titles = Mapping[str, Mapping[str, str]]


def specialised(
    selections: Sequence[Selected],
    options: Options,
    styles: Mapping[str, SourceStyle] | None = None,
    titles: Titles | None = None,
    embedding: Draw | None = None,
) -> Figure:
    """Draw the errors of the same models on their target and on further test sets.

    Parameters
    ----------
    selections
        The same runs on each test set, the target's first.
    options
        The first of its metrics is drawn.
    titles
        Of the datasets.
    embedding
        Draws the panel between the target's and the others.
    """
    selections = comparable(selections, options)
    looks, names = looks_of([selected.runs for selected in selections], options, styles)
    tuned = [key for key in looks if key not in ("none", 0)]
    if options.compare == "source" and len(tuned) == 1:
        names = {"none": "direct", tuned[0]: f"fine-tuned\n({title_of(tuned[0], styles)})"}
    letters = letters_of(selections, specialised=True)
    order = [letters[0], *(["b"] if embedding else []), *letters[1:]]
    with house_style():
        # Three panels in a row leave no room for a legend beside them.
        beside = embedding is None
        size = (TEXT_WIDTH, HEIGHT + (0.35 if beside else 0.6))
        figure = plt.figure(figsize=size, layout="constrained")
        panels = figure.subplot_mosaic([order])
        for letter, selected in zip(letters, selections, strict=True):
            extent = Extent()
            _curves(panels[letter], selected, options, looks, extent)
            extent.apply(panels[letter])
            tested = selected.chosen.target
            _head(panels[letter], letter, f"tested on {_title(titles, 'datasets', tested)}")
        if embedding:
            embedding(panels["b"])
            _head(panels["b"], "b", "")
        handles = [*handles_of(looks, names), *reference_handles(options, selections)]
        _legend(figure, handles, _heading(options), beside)
        trained = _title(titles, "datasets", selections[0].chosen.target)
        _note(figure, selections, options, f"trained on {trained}")
    return figure


def alchemical(
    selections: Sequence[Selected],
    options: Options,
    styles: Mapping[str, SourceStyle] | None = None,
    titles: Titles | None = None,
    embedding: Draw | None = None,
    bars_at: int = 400,
) -> Figure:
    """Draw a panel of learning curves for each transform, and bars at one number of structures.

    Parameters
    ----------
    selections
        The runs, one comparison a transform.
    options
        The first of its metrics is drawn.
    titles
        Of the datasets and the transforms.
    embedding
        Draws the panel beside the bars.
    bars_at
        The bars are at the nearest number of structures that was run.
    """
    selections = comparable(selections, options)
    metric = options.metrics[0]
    looks, names = _looks_by_transform(selections, options, styles)
    letters = letters_of(selections)
    place, bars = ascii_lowercase[len(letters) : len(letters) + 2]
    columns = len(letters)
    below = [place] * columns + [bars] * columns if embedding else [bars] * (2 * columns)
    with house_style():
        size = (TEXT_WIDTH, 2 * HEIGHT + 0.35)
        figure = plt.figure(figsize=size, layout="constrained")
        panels = figure.subplot_mosaic([[letter for letter in letters for _ in "ab"], below])
        extent = Extent()
        for letter, selected, look in zip(letters, selections, looks, strict=True):
            _curves(panels[letter], selected, options, look, extent)
            transform = selected.chosen.transform or "none"
            _head(panels[letter], letter, _title(titles, "transforms", transform))
        for letter in letters:
            extent.apply(panels[letter])
        n = nearest_size(selections, bars_at)
        groups = size_names(list(names)) if options.compare == "npre" else names
        draw_bars(panels[bars], selections, looks, groups, n, metric, options.compare)
        if options.compare == "npre":
            panels[bars].set_xlabel("pre-training structures")
        _head(panels[bars], bars, f"{n:,} {SIZES_LABEL}")
        if embedding:
            embedding(panels[place])
            _head(panels[place], place, "")
        handles = [
            tuple(handles_of({key: look[key]}, names)[0] for look in looks if key in look)
            for key in names
        ]
        # Direct training looks the same in all.
        handles[:1] = [handle[:1] for handle in handles[:1]]
        handles += [(line,) for line in reference_handles(options, selections)]
        _legend(figure, handles, _heading(options))
        tested = f"tested on {_title(titles, 'datasets', selections[0].chosen.target)}"
        spread = "mean ± s.d. and " if options.aggregate == "best" else ""
        _note(figure, selections, options, tested, f" ({bars}: {spread}every run)")
    return figure


def comparable(selections: Sequence[Selected], options: Options) -> list[Selected]:
    """The selections, by pre-training size with the seeds that all sizes share."""
    if options.compare != "npre":
        return list(selections)
    return [replace(selected, runs=common_seeds(selected.runs)) for selected in selections]


def letters_of(selections: Sequence[Selected], *, specialised: bool = False) -> list[str]:
    """The letters of the panels with curves; with `specialised` the second is the embedding's."""
    if specialised:
        return ["a", *ascii_lowercase[2 : len(selections) + 1]]
    return list(ascii_lowercase[: len(selections)])


def _looks_by_transform(
    selections: Sequence[Selected], options: Options, styles: Mapping[str, SourceStyle] | None
) -> tuple[list[dict], dict]:
    """Looks of every transform, by size in shades of its colour, and the names in their order."""
    looks, names = looks_of([selected.runs for selected in selections], options, styles)
    if options.compare != "npre":
        return [looks] * len(selections), names
    sizes = [size for size in looks if size]
    shaded = []
    for k in range(len(selections)):
        colours = ramp(TRANSFORM_COLOURS[k % len(TRANSFORM_COLOURS)], sizes) if sizes else {}
        colours[0] = DIRECT_COLOUR
        shaded.append({size: look | {"color": colours[size]} for size, look in looks.items()})
    return shaded, names


def _curves(
    axes: Axes, selected: Selected, options: Options, looks: Mapping, extent: Extent
) -> None:
    """Draw one panel of learning curves; its limits are set when all that share them are drawn."""
    metric = options.metrics[0]
    points = curve_points(selected.runs, metric, options.aggregate)
    values = reference_values(selected, options, metric)
    lines = reference_lines(values, options.compare, looks)
    draw_panel(axes, points, None, lines, looks, options.compare, extent)
    axes.set(ylabel=LABELS[metric], xlabel=SIZES_LABEL)


def _title(titles: Titles | None, section: str, name: str) -> str:
    return (titles or {}).get(section, {}).get(name, name)


def _head(axes: Axes, letter: str, text: str) -> None:
    """Set the letter of a panel, and its title beside it."""
    axes.set_title(f"{letter}", loc="left", fontweight="bold", fontsize=9, pad=4)
    if text:
        axes.annotate(
            text,
            (0, 1),
            xycoords="axes fraction",
            xytext=(11, 4.5),
            textcoords="offset points",
            fontsize=7.5,
        )


def _heading(options: Options) -> str:
    return "Pre-training\nstructures" if options.compare == "npre" else ""


def _legend(figure: Figure, handles: Sequence, title: str, beside: bool = True) -> None:
    """What the curves are: beside the panels, or above them."""
    labels = [
        (handle[0] if isinstance(handle, tuple) else handle).get_label() for handle in handles
    ]
    if not beside:
        labels = [label.replace("\n", " ") for label in labels]
    legend = figure.legend(
        handles,
        labels,
        title=title if beside else None,
        loc="outside right center" if beside else "outside upper center",
        ncols=1 if beside else len(handles),
        alignment="left",
        handlelength=2.6,
        labelspacing=0.55,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.3)},
    )
    legend.get_title().set_fontweight("bold")


def _note(
    figure: Figure, selections: Sequence[Selected], options: Options, first: str, last: str = ""
) -> None:
    """Say below the panels what is shown, and lay the figure out."""
    frames = [selected.runs for selected in selections]
    drawn = pd.concat(frames).drop_duplicates([c for c in (*KEY,) if c in frames[0]])
    # The test sets stand above the panels.
    said = describe_runs(selections, drawn, options.aggregate, options.metrics[:1])[1:]
    text = " · ".join([first, *said]) + last
    if any(curve_points(f, options.metrics[0], options.aggregate)["flagged"].any() for f in frames):
        text += f"\n{FLAG_NOTE}"
    note_below(figure, text)
    # Laid out once, here, so that a later save does not move anything.
    figure.draw_without_rendering()
