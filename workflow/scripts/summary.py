"""Write the page of results: what a study's tables and figures show, in one file."""

from __future__ import annotations

from pathlib import Path

from pretraining.results.page import headline, page, part
from pretraining.results.table1 import read_table1
from pretraining.runtime import cli
from pretraining.runtime.files import write_text
from pretraining.study.titles import printed, read_styles, read_titles


def main() -> None:
    parser = cli.Parser(description=__doc__)
    parser.add_argument("--styles", type=Path, required=True, help="titles of sources and datasets")
    parser.add_argument("--targets", nargs="+", required=True, help="datasets with DFT labels")
    parser.add_argument("--table1", type=Path, required=True)
    parser.add_argument(
        "--parts", type=Path, nargs="*", default=[], help="tables (.md) and pictures (.png, .svg)"
    )
    parser.add_argument(
        "--captions", nargs="*", default=[], help="of the parts, from workflow/report; - for none"
    )
    parser.add_argument("--out", type=cli.Output, required=True, help=".html")
    args = parser.parse_args()

    styles, titles = read_styles(args.styles), read_titles(args.styles)
    targets = [printed(titles, "datasets", name) for name in args.targets]
    captions = ["" if caption == "-" else caption for caption in args.captions]
    parts = [part(*pair) for pair in zip(captions, args.parts, strict=True)]
    words = headline(read_table1(args.table1), styles)
    title = f"Synthetic pre-training for {', '.join(targets)}"
    write_text(args.out, page(title, words, parts))
    print("\n".join(words))


if __name__ == "__main__":
    cli.run(main)
