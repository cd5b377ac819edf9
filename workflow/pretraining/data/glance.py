"""Facts of a file of structures, for a study that leaves values to the workflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from math import gcd
from pathlib import Path
from typing import Any

from pretraining.runtime.errors import UserError
from pretraining.study.config import read_config, validate_study
from pretraining.study.decisions import Facts
from pretraining.study.plan import complete

# Shares of structures that are less dense: surfaces and molecules have vacuum.
LOW, DENSE, HIGH = 0.1, 0.75, 0.9


def read_study(files: Sequence[str | Path], results: str | None = None) -> dict[str, Any]:
    """Return the validated configuration of a study, given its files; - is standard input.

    `results` takes the place of its folder of results.
    """
    found = ["/dev/stdin" if str(file) == "-" else file for file in files]
    config = complete(read_config(*found), files, glance)[0]
    config = validate_study(config, " + ".join(map(str, files)))
    return config | {"results": results or config["results"]}


def glance(name: str, dataset: Mapping[str, Any]) -> Facts:
    """Read the files of a dataset of the configuration, one structure at a time.

    Raises a `UserError` if there is no file, or one cannot be read.
    """
    # Every job imports this module, and ASE takes a second.
    from pretraining.data.geometry import density, is_isolated
    from pretraining.data.readers import open_raw
    from pretraining.data.sanity.soundness import broken_geometry
    from pretraining.data.screening import Filter

    filters = [Filter(entry) for entry in dataset.get("filters", [])]
    split = dataset.get("split", {})
    formulas, parts, packings = Counter(), Counter(), []
    names: dict[str, set[str]] = {"energy": set(), "forces": set()}
    isolated: set[str] = set()
    if not dataset.keys() & {"path", "load_atoms"}:
        raise UserError(f"datasets.{name}: 'defaults: data' decides from files: name them in path")
    try:
        raw = open_raw(dict(dataset), Path("."))
    except UserError as error:
        cure = f" (download {dataset['url']})" if "url" in dataset else ""
        raise UserError(f"datasets.{name}: {error}{cure}: 'defaults: data' needs it now") from None
    for index, atoms in enumerate(raw.frames):
        if index in dataset.get("exclude", []) or broken_geometry(atoms) is not None:
            continue  # broken structures are named when the set is prepared
        try:
            if not all(entry.keeps(atoms) for entry in filters):
                continue
        except UserError as error:
            raise UserError(f"datasets.{name}: {raw.name(index)} {error}") from None
        if is_isolated(atoms):
            isolated.add(str(atoms.symbols[0]))
            continue
        counts = Counter(atoms.get_chemical_symbols())
        unit = reduce(gcd, counts.values())
        formulas[tuple(sorted((element, n // unit) for element, n in counts.items()))] += 1
        own = atoms.info.get(split.get("key", "split"))
        parts[raw.part(index) if "test_path" in split else str(own)] += 1
        read = {} if atoms.calc is None else atoms.calc.results
        names["energy"] |= {k for k, v in (read | atoms.info).items() if _is(k, v, "energy", 0)}
        names["forces"] |= {k for k, v in (read | atoms.arrays).items() if _is(k, v, "force", 2)}
        if (rho := density(atoms.numbers, atoms.cell.array, atoms.pbc)) is not None:
            packings.append((rho, atoms.get_volume() / len(atoms)))
    if not formulas:
        raise UserError(f"datasets.{name}: filters and exclude leave no structure")
    packings.sort()
    low, dense, high = (
        (packings[int(share * len(packings))] for share in (LOW, DENSE, HIGH))
        if packings
        else 3 * [(None, None)]
    )
    return Facts(
        structures=formulas.total(),
        elements=frozenset(element for formula in formulas for element, _ in formula),
        formula=dict(formulas.most_common(1)[0][0]),
        densities=(low[0], high[0]) if packings else None,
        volume=dense[1],
        labels={quantity: sorted(found) for quantity, found in names.items()},
        isolated=frozenset(isolated),
        parts={} if "None" in parts else dict(parts),
    )


def _is(key: Any, value: Any, word: str, dimensions: int) -> bool:
    """Whether an entry may hold energies or forces."""
    if key == "free_energy" or isinstance(value, str):
        return False
    return word in str(key).lower() and getattr(value, "ndim", 0) == dimensions
