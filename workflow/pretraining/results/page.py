"""The page of results: a study's tables and figures in one file for any browser, and on paper."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from docutils.core import publish_parts
from jinja2 import Environment, select_autoescape
from markdown_it import MarkdownIt

from pretraining.runtime.errors import UserError
from pretraining.study.titles import SourceStyle, title_of

REPORT = Path(__file__).resolve().parents[2] / "report"
IMAGES = {".png": "image/png", ".svg": "image/svg+xml"}


def headline(table: pd.DataFrame, styles: Mapping[str, SourceStyle]) -> list[str]:
    """Say in sentences what Table 1 shows at its smallest size.

    Parameters
    ----------
    table
        As :func:`.read_table1`: ``n``, ``source``, ``mean`` (meV/atom), ``flagged`` and
        ``unconverged``.
    styles
        Titles of the sources.

    Returns
    -------
    list of str
        The best source beside direct training, and the size at which direct training is as
        accurate. Empty without direct training or without a source.
    """
    means = table.pivot(index="n", columns="source", values="mean")
    sources = [name for name in means if name != "none"]
    if "none" not in means or means[sources].dropna(how="all").empty:
        return []
    direct = means["none"].dropna()
    n = int(means[means["none"].notna() & means[sources].notna().any(axis=1)].index.min())
    best = means.loc[n, sources].idxmin()
    error = means.loc[n, best]
    cells = table.set_index(["n", "source"])
    flagged = cells["flagged"].get((n, "none"), False)
    words = [
        f"With {n} DFT-labelled structures the energy error on the test set is {error:.0f} "
        f"meV/atom after pre-training on labels of {title_of(best, styles)}, and {direct[n]:.0f} "
        f"meV/atom with direct training{' (not all of its runs converged)' * bool(flagged)}."
    ]
    if error >= direct[n]:
        return [*words, "Pre-training does not help there."]
    equal = direct.index[direct <= error]
    if len(equal):
        last = int(equal.min())
        words.append(f"Direct training needs {last} structures for as small an error.")
    else:
        last = int(direct.index.max())
        words.append(f"Direct training with {last} has not yet reached it.")
    if cells["unconverged"].loc[[(n, "none"), (n, best), (last, "none")]].any():
        words.append("Some of these runs were still improving at max_epochs: train longer.")
    return words


def part(caption: str, path: Path) -> dict[str, str]:
    """Return a table (Markdown) or a picture as HTML, with its caption and its name.

    Parameters
    ----------
    caption
        Name of a caption in ``workflow/report``, or nothing.
    path
        ``.md``, ``.png`` or ``.svg``.
    """
    words = (REPORT / f"{caption}.rst").read_text("utf-8") if caption else ""
    if path.suffix == ".md":
        body = (
            MarkdownIt("commonmark", {"html": False})
            .enable("table")
            .render(path.read_text("utf-8"))
        )
    elif path.suffix in IMAGES:
        content = base64.b64encode(path.read_bytes()).decode()
        body = f'<img alt="{path.stem}" src="data:{IMAGES[path.suffix]};base64,{content}">'
    else:
        raise UserError(f"{path}: the page takes .md, {', '.join(IMAGES)}")
    return {
        "name": path.stem,
        "body": body,
        "caption": publish_parts(words, writer="html5")["body"],
    }


def page(title: str, words: Sequence[str], parts: Sequence[Mapping[str, str]]) -> str:
    """Return the page, which needs no other file.

    Parameters
    ----------
    title
        What was studied.
    words
        The first sentences: what came out.
    parts
        Of :func:`part`, in the page's order.
    """
    environment = Environment(autoescape=select_autoescape(default=True))
    template = environment.from_string((REPORT / "summary.html").read_text("utf-8"))
    sketch = (REPORT / "method.svg").read_text("utf-8")
    return template.render(title=title, words=words, parts=parts, sketch=sketch)
