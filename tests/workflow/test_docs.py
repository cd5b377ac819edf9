"""What the pages point to is there: files, headings, programs and targets of make."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
