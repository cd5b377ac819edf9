"""The printed names of label sources, datasets and transforms, the sources' order, and units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from pretraining.runtime.errors import UserError
from pretraining.runtime.files import read_yaml

KINDS = ("empirical", "ml", "dft")
UNITS = {"energy": "meV/atom", "force": "eV/Å"}

Titles = Mapping[str, Mapping[str, str]]  # section -> name -> title


@dataclass(frozen=True)
class SourceStyle:
    """How a label source is drawn; None takes the next colour or marker."""

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

    The YAML or JSON file maps a source to ``{title, kind, colour, marker}``, or is a configuration
    with this under ``sources``. None gives the paper's sources; an unknown kind is a `UserError`.
    """
    if path is None:
        return dict(PAPER_SOURCES)
    content = read_yaml(path)
    if isinstance(content.get("sources"), Mapping):
        content = content["sources"]
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


def style_problems(root: Path, style: str | None) -> Iterator[str]:
    """Yield why matplotlib cannot draw in the style of that name, or of that file."""
    if style is None or find_spec("matplotlib") is None:
        return  # another environment draws
    from matplotlib import rc_params_from_file, rcParams
    from matplotlib.style import available

    file = root / style
    if not file.is_file():
        if style not in available:
            near = ", ".join(get_close_matches(style, available, n=3)) or "ggplot"
            yield f"figures.style: '{style}' is no file and no style of matplotlib, such as {near}"
        return
    try:
        rc_params_from_file(file, fail_on_error=True, use_default_template=False)
    except ValueError as error:
        yield f"figures.style: {style}: {error}"
    for line in file.read_text(encoding="utf-8").splitlines():
        key = line.partition("#")[0].partition(":")[0].strip()
        if key and key not in rcParams:
            yield f"figures.style: {style}: matplotlib has no setting '{key}'"


def read_titles(path: str | Path | None) -> Titles:
    """Read the titles of ``datasets`` and describe the ``transforms`` of a YAML file, if any."""
    content = read_yaml(path) if path else {}
    datasets, transforms = (content.get(section) or {} for section in ("datasets", "transforms"))
    return {
        "datasets": {name: str(entry.get("title", name)) for name, entry in datasets.items()},
        "transforms": {name: transform_title(entry) for name, entry in transforms.items()},
    }


def published_names(path: str | Path | None) -> dict[str, str] | None:
    """Return the published name of each dataset that has one; None without a file on datasets."""
    datasets = read_yaml(path).get("datasets") if path else None
    if datasets is None:
        return None
    return {n: entry["published_as"] for n, entry in datasets.items() if "published_as" in entry}


def printed(titles: Titles | None, section: str, name: str) -> str:
    """The title of a dataset or transform, or its name."""
    return (titles or {}).get(section, {}).get(name, name)


def transform_title(options: Mapping) -> str:
    """A transform in a few words: ``C as Si, scaled 1.5 ×``."""
    parts = [f"{old} as {new}" for old, new in (options.get("elements") or {}).items()]
    scale = float(options.get("scale", 1.0))
    parts.append("unscaled" if scale == 1 else f"scaled {scale:g} ×")
    if "cutoff" in options:
        parts.append(f"cut-off {options['cutoff']:g} Å")
    return ", ".join(parts)


def title_of(source: str, styles: Mapping[str, SourceStyle] | None = None) -> str:
    """The title of a label source, or its name."""
    if source == "none":
        return "Direct"
    style = (PAPER_SOURCES | dict(styles or {})).get(source)
    return style.title if style else source


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


def run_title(config: Mapping, run: Mapping, tested: str) -> str:
    """Return the title of a plot of one run's model (a row of the grid) on `tested`'s test set."""
    titles = {name: dataset.get("title", name) for name, dataset in config["datasets"].items()}
    seed = f"seed {run['seed']}"
    if run["kind"] == "direct":
        made = f"direct, {run['n']:,} structures of {titles[run['target']]}, {seed}"
    else:
        source = config["sources"][run["source"]]["title"]
        made = f"pre-trained on {run['npre']:,} structures with labels of {source}"
        if run["transform"] != "none":
            made += f" ({run['transform']})"
        if run["kind"] == "finetune":
            made += f", fine-tuned on {run['n']:,} of {titles[run['target']]}, {seed}"
    return f"{made}; tested on {titles[tested]}"
