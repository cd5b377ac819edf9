"""The look that all figures share, and the names and colours of label sources."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import yaml
from matplotlib.colors import LinearSegmentedColormap, to_hex, to_rgb
from matplotlib.figure import Figure

from pretraining.errors import UserError
from pretraining.interruption import write_atomically

TEXT_WIDTH = 6.75  # inches, both columns of a journal's page
COLUMN_WIDTH = 3.35
DIRECT_COLOUR = "#000000"
KINDS = ("empirical", "ml", "dft")
# Okabe and Ito's colours, told apart by colour-blind readers; black is kept for direct training.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8F8F8F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "mathtext.fontset": "dejavusans",
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.labelsize": 6.7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "xtick.minor.width": 0.5,
    "ytick.minor.width": 0.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 1.6,
    "ytick.minor.size": 1.6,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "svg.hashsalt": "pretraining",
}


@dataclass(frozen=True)
class SourceStyle:
    """How a label source is named and drawn; None leaves the colour or marker to the cycle."""

    title: str
    kind: str = "ml"
    colour: str | None = None
    marker: str | None = None


# The paper's sources, in the paper's order.
PAPER_SOURCES = {
    "edip": SourceStyle("EDIP", "empirical", "#E69F00", "s"),
    "lcbop": SourceStyle("LCBOP", "empirical", "#CC79A7", "D"),
    "gap20u": SourceStyle("GAP-20U", "ml", "#009E73", "^"),
    "ace": SourceStyle("C-ACE", "ml", "#0072B2", "o"),
    "gap17": SourceStyle("C-GAP-17", "ml", "#56B4E9", "v"),
}


def read_styles(path: str | Path | None) -> dict[str, SourceStyle]:
    """Read titles, kinds and (optionally) colours and markers of the label sources.

    Parameters
    ----------
    path
        JSON or YAML: a mapping of source to ``{title, kind, colour, marker}``, or a configuration
        that has one under ``sources``; other keys are ignored. None gives the paper's sources.

    Raises
    ------
    UserError
        If the file is no such mapping or names an unknown kind.
    """
    if path is None:
        return dict(PAPER_SOURCES)
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file (titles of the label sources)") from None
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: neither JSON nor YAML ({error})") from None
    if isinstance(content, Mapping) and isinstance(content.get("sources"), Mapping):
        content = content["sources"]
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: not a mapping of label sources to their titles")
    styles = {}
    for name, entry in content.items():
        if not isinstance(entry, Mapping):
            raise UserError(f"{path}: source {name}: not a mapping with title and kind")
        known = PAPER_SOURCES.get(name, SourceStyle(name))
        kind = entry.get("kind", known.kind)
        if kind not in KINDS:
            raise UserError(f"{path}: source {name}: kind {kind!r} is none of {', '.join(KINDS)}")
        styles[name] = SourceStyle(
            title=str(entry.get("title", known.title)),
            kind=kind,
            colour=entry.get("colour", known.colour),
            marker=entry.get("marker", known.marker),
        )
    return styles


def read_titles(path: str | Path | None) -> dict[str, dict[str, str]]:
    """Read the printed names of ``datasets``, and say what ``transforms`` do.

    Parameters
    ----------
    path
        YAML with these sections: `title` of a dataset, entries of a transform. None gives no names.
    """
    content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) if path else {}
    datasets, transforms = (content.get(section) or {} for section in ("datasets", "transforms"))
    return {
        "datasets": {name: str(entry["title"]) for name, entry in datasets.items()},
        "transforms": {name: transform_title(entry) for name, entry in transforms.items()},
    }


def transform_title(options: Mapping) -> str:
    """What a transform does in a few words: ``C as Si, scaled 1.5 ×``."""
    parts = [f"{old} as {new}" for old, new in (options.get("elements") or {}).items()]
    scale = float(options.get("scale", 1.0))
    parts.append("unscaled" if scale == 1 else f"scaled {scale:g} ×")
    if "cutoff" in options:
        parts.append(f"cut-off {options['cutoff']:g} Å")
    return ", ".join(parts)


def title_of(source: str, styles: Mapping[str, SourceStyle] | None = None) -> str:
    """The printed name of a label source."""
    if source == "none":
        return "Direct"
    for table in (styles or {}, PAPER_SOURCES):
        if source in table:
            return table[source].title
    return source


def order_sources(
    sources: Iterable[str], styles: Mapping[str, SourceStyle] | None = None
) -> list[str]:
    """Direct first, then by kind (empirical, ML, DFT), then as in the styles, then by name."""
    styles = PAPER_SOURCES if styles is None else styles
    position = {source: i for i, source in enumerate(styles)}

    def rank(source: str):
        kind = styles[source].kind if source in styles else KINDS[-1]
        return (source != "none", KINDS.index(kind), position.get(source, len(styles)), source)

    return sorted(set(sources), key=rank)


def source_looks(
    sources: Iterable[str], styles: Mapping[str, SourceStyle] | None = None
) -> dict[str, dict]:
    """Colour, marker and line style of each label source, as keywords of ``Axes.plot``."""
    styles = PAPER_SOURCES if styles is None else styles
    order = [source for source in order_sources(sources, styles) if source != "none"]
    own = {s: styles.get(s, SourceStyle(s)) for s in order}
    colours = [c for c in CYCLE if c not in {style.colour for style in own.values()}] or list(CYCLE)
    markers = [m for m in MARKERS if m not in {s.marker for s in own.values()}] or list(MARKERS)
    looks = {"none": {"color": DIRECT_COLOUR, "marker": "o", "linestyle": "-"}}
    free = 0
    for source, style in own.items():
        looks[source] = {
            "color": style.colour or colours[free % len(colours)],
            "marker": style.marker or markers[free % len(markers)],
            "linestyle": (0, (4, 1.6)) if style.kind == "empirical" else "-",
        }
        free += style.colour is None or style.marker is None
    return looks


def shades(values: Sequence[float], colormap: str = "plasma") -> dict[float, str]:
    """A colour for each value, evenly spaced: pale and warm for the smallest, dark for the largest.

    The colour map is perceptually even and its palest end is left out, so that every curve stays
    readable on white and in greyscale.
    """
    ordered = sorted(set(values))
    places = np.linspace(0.12, 0.88, len(ordered)) if len(ordered) != 1 else [0.5]
    ramp = matplotlib.colormaps[colormap]
    return {value: to_hex(ramp(1 - place)) for value, place in zip(ordered, places, strict=True)}


def ramp(colour: str, values: Sequence[float]) -> dict[float, str]:
    """A shade of one colour for each value: pale for the smallest, dark for the largest."""
    ordered = sorted(set(values))
    places = np.linspace(0.0, 1.0, len(ordered)) if len(ordered) != 1 else [0.6]
    ends = [_mixed(colour, "#FFFFFF", 0.62), colour, _mixed(colour, "#000000", 0.6)]
    scale = LinearSegmentedColormap.from_list("ramp", list(zip((0.0, 0.5, 1.0), ends, strict=True)))
    return {value: to_hex(scale(place)) for value, place in zip(ordered, places, strict=True)}


def _mixed(colour: str, other: str, share: float) -> str:
    """A colour with so much of another in it."""
    first, second = np.array(to_rgb(colour)), np.array(to_rgb(other))
    return to_hex((1 - share) * first + share * second)


@contextmanager
def house_style() -> Iterator[None]:
    """Draw with the project's settings, whatever the user's own matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        try:
            yield
        finally:
            plt.close("all")


def save(figure: Figure, *paths: str | Path) -> None:
    """Write a figure, atomically, in the formats of the paths.

    The same figure gives the same bytes.

    Raises
    ------
    UserError
        If the format is not one of pdf, png and svg.
    """
    # Times and versions in the file would change it without a change of the figure.
    stable = {
        ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
        ".png": {"Software": None},
        ".svg": {"Date": None, "Creator": None},
    }
    for path in map(Path, paths):
        if path.suffix not in stable:
            raise UserError(f"{path}: figures are written as {', '.join(stable)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        options = {"format": path.suffix[1:], "metadata": stable[path.suffix]}
        with house_style():
            write_atomically(path, partial(figure.savefig, **options))
