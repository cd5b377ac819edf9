"""What the pages point to is there: files, headings, programs and targets of make."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
from snakemake.cli import get_argument_parser

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("config", "docs", "profiles", "resources", "results", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(p for name in FOLDERS for p in (ROOT / name).rglob("*.md"))])
# Results of studies are not part of the repository.
PAGES = [page for page in PAGES if page.parent == ROOT / "results" or "results" not in page.parts]


def anchors(page: Path) -> set[str]:
    """Return the anchors that a page's headings have on code hosts and in MkDocs."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} is not there"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_programs_and_configurations_are_there(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"python (workflow/scripts/\w+\.py)", text):
        assert (ROOT / name).is_file(), name
    for name in re.findall(r"\bconfig/[\w-]+\.yaml", text):
        assert name == "config/mine.yaml" or (ROOT / name).is_file(), name
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, flags=re.MULTILINE):
        assert f"\n{name}:" in make, f"make {name}"


def commands(text: str) -> list[list[str]]:
    """Return the words of each Snakemake command in a text's code, without what stands for more."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
    code = [block for language, block in fence.findall(text) if language in ("bash", "console", "")]
    inline = re.findall(r"(?<!`)`([^`]+)`(?!`)", fence.sub("", text))
    lines = "\n".join(code).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?:^|\s)(snakemake\s.+)", line) for line in [*lines, *inline]]
    every = [shlex.split(match[1], comments=True)[1:] for match in found if match]
    ends = {"|", ">", ";", "&", "&&", "2>&1"}
    every = [list(itertools.takewhile(lambda word: word not in ends, words)) for words in every]
    return [words for words in every if not re.search(r"[…\[]", " ".join(words))]


# Options that take every word behind them, and the form of their values.
GREEDY = {"config": r"\w+=.+", "configfile": r".+\.ya?ml|FILE"}


def misread(words: list[str]) -> list[str]:
    """Return what Snakemake would not read as it is meant: a target behind an open option."""
    try:
        args = get_argument_parser().parse_args(words)
    except (SystemExit, ValueError):
        return words
    values = {name: map(str, getattr(args, name) or []) for name in GREEDY}
    return [v for name, form in GREEDY.items() for v in values[name] if not re.fullmatch(form, v)]


@pytest.mark.parametrize(
    "page",
    [*PAGES, *sorted((ROOT / "config").glob("*.yaml")), *sorted(ROOT.glob("profiles/*/*.yaml"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_snakemake_reads_documented_commands_as_they_are_meant(page):
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".yaml":
        # The indented lines of comments.
        text = "```\n" + "\n".join(re.findall(r"^ *#\s+(.+)$", text, flags=re.MULTILINE)) + "\n```"
        text = re.sub(r"^(?!```|snakemake ).*\n", "", text, flags=re.MULTILINE)
    for words in commands(text):
        assert not misread(words), f"snakemake {' '.join(words)}"


@pytest.mark.parametrize(
    "command",
    ["-n --quiet fig3", "--cores 1 --quiet rules fig3", "--configfile a.yaml fig3", "--coers 1"],
)
def test_a_command_that_swallows_its_target_is_found(command):
    assert misread(command.split())
