"""The page of results."""

from __future__ import annotations

import io
from html.parser import HTMLParser

import pandas as pd
import pytest

from pretraining.results.page import headline, page, part
from pretraining.runtime.errors import UserError

HEAD = "n,source,mean,flagged,unconverged\n"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            ["8,none,500,true,0", "8,gap,170,false,0", "8,edip,300,false,2", "64,none,160,false,0"],
            ["is 170 meV/atom", "of gap", "500 meV/atom", "not all", "needs 64 structures"],
        ),
        (
            ["8,none,500,false,1", "8,gap,170,false,0"],
            ["with 8 has not yet reached it", "train longer"],
        ),
        (["8,none,100,false,0", "8,gap,170,false,0"], ["does not help"]),
        # The smallest size that both have.
        (["4,none,900,false,1", "8,none,500,false,0", "8,gap,170,false,0"], ["With 8", "170"]),
        (["8,none,500,false,0"], []),
        (["8,gap,170,false,0"], []),
    ],
)
def test_the_first_sentences_say_what_table_1_shows(rows, expected):
    words = headline(pd.read_csv(io.StringIO(HEAD + "\n".join(rows))), {})
    assert bool(words) == bool(expected)
    assert all(phrase in " ".join(words) for phrase in expected)
    assert ("train longer" in " ".join(words)) == ("train longer" in expected)


class Links(HTMLParser):
    """Collects what a page loads."""

    def __init__(self, text):
        super().__init__()
        self.loaded = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag in ("img", "script", "link", "iframe"):
            self.loaded.append(found.get("src") or found.get("href"))


def test_the_page_needs_no_other_file(tmp_path):
    (tmp_path / "table1.md").write_text("| n | a |\n|---|---|\n| 8 | <b>1</b> |\n")
    (tmp_path / "fig2.png").write_bytes(b"picture")
    parts = [part("table1", tmp_path / "table1.md"), part("", tmp_path / "fig2.png")]
    text = page("Carbon <script>", ["It helps & more."], parts)
    assert "<td>8</td>" in text and "Per-atom energy RMSE" in text
    assert "Carbon &lt;script&gt;" in text and "It helps &amp; more." in text
    loaded = Links(text).loaded
    assert loaded and all(address.startswith("data:image/png;base64,") for address in loaded)


def test_a_page_takes_tables_and_pictures(tmp_path):
    with pytest.raises(UserError, match="fig2.pdf: the page takes"):
        part("", tmp_path / "fig2.pdf")
