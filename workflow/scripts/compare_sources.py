"""Compare label sources with each other and with a dataset's own labels."""

from __future__ import annotations

from pathlib import Path

from pretraining.data.store import Store
from pretraining.figures.parity import source_matrix, source_parity
from pretraining.figures.style import Parser, save
from pretraining.labels.compare import OWN, compare, own_labels, page, source_labels, types_of
from pretraining.runtime.cli import Output, run
from pretraining.runtime.errors import UserError
from pretraining.runtime.files import write_text
from pretraining.study.titles import order_sources, read_styles


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared dataset (HDF5)")
    parser.add_argument("--sources", nargs="+", required=True, help="names of the label sources")
    parser.add_argument(
        "--chunks", type=Path, nargs="+", required=True, help="their labelled eval chunks"
    )
    parser.add_argument("--reference", help="source whose labels are the dataset's, if it has none")
    parser.add_argument("--title", default="the dataset", help="name of the dataset for people")
    parser.add_argument("--out", type=Output, required=True, help="table to write (CSV)")
    parser.add_argument("--markdown", type=Output, required=True, help="page to write")
    parser.add_argument("--parity", type=Output, nargs="+", default=[], help="figures to write")
    parser.add_argument("--matrix", type=Output, nargs="+", default=[], help="figures to write")
    args = parser.parse_args()
    if len(args.sources) != len(args.chunks):
        raise UserError("--sources and --chunks: give as many of the one as of the other")
    chunks = dict(zip(args.sources, args.chunks, strict=True))
    styles = read_styles(args.styles)
    with Store(args.data) as store:
        reference = OWN if store.has_labels else args.reference
        order = order_sources(chunks, styles)
        if reference in order:
            order = [reference, *(name for name in order if name != reference)]
        labels = {OWN: own_labels(store)} if store.has_labels else {}
        labels |= {name: source_labels(store, name, chunks[name]) for name in order}
        types = types_of(store)
    if len(labels) < 2:
        raise UserError(f"{args.data}: there is nothing to compare {order[0]} with")
    table = compare(labels, types)
    write_text(args.out, table.to_csv(index=False, float_format="%.6g"))
    write_text(args.markdown, page(args.title, table, labels, reference, styles))
    save(source_parity(labels, reference or order[0], styles), *args.parity)
    save(source_matrix(labels, styles), *args.matrix)
    print(args.markdown.read_text(encoding="utf-8"))


if __name__ == "__main__":
    run(main)
