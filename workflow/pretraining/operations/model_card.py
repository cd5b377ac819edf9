"""The page that goes with an exported potential: what it is made of, and how far to trust it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pretraining.operations.archive import commit_of
from pretraining.runtime.errors import whole
from pretraining.runtime.tables import markdown
from pretraining.study.queries import label_source

CARD = Path(__file__).resolve().parents[2] / "report" / "export" / "model_card.md"


def model_card(
    config: Mapping[str, Any],
    results: Path,
    runs: pd.DataFrame,
    members: Mapping[str, Mapping[str, Any]],
    zero: Mapping[str, float],
    device: str,
) -> str:
    """Return the page of an exported cell.

    Parameters
    ----------
    runs
        All finished runs, for the errors by size.
    members
        The exported ones by name, the best first.
    zero
        Energy of an atom by element, eV, that was added.
    """
    (name, run), *_ = members.items()
    metrics, dataset = run["metrics"], run["target"] or run["structures"]
    summaries = {n: _summary(results, n) for n in (dataset, run["structures"]) if n}
    commit, clean = commit_of(CARD.parents[3])
    synthetic = f"{run['npre']} structures of `{run['structures']}`, labelled by `{run['source']}`"
    if run["transform"] != "none":
        synthetic += f", transformed by {config['transforms'][run['transform']]}"
    facts = {
        "network": f"{config['network']['model']}, {metrics['n_parameters']:,} parameters, cut-off "
        f"{metrics['cutoff']:g} Å",
        "pre-trained on": "nothing" if run["kind"] == "direct" else synthetic,
        "trained on": f"{run['n']} structures of `{dataset}`" if run["target"] else "nothing else",
        "models": f"{', '.join(members)} (their seeds; {name} has the lowest validation error)",
        "made with": ", ".join(f"{k} {v}" for k, v in metrics["versions"].items()),
    }
    seen = [_seen(name, summary) for name, summary in summaries.items()]
    values = {
        "title": config["datasets"][dataset].get("title", dataset),
        "elements": ", ".join(metrics["elements"]),
        "facts": markdown(pd.DataFrame(facts.items(), columns=["what", "value"])),
        "device": {"cuda": "a GPU"}.get(device, "a CPU"),
        "zero": _zero(summaries[dataset], zero, metrics["elements"]),
        "errors": _errors(runs, run),
        "target": dataset,
        "seen": markdown(pd.DataFrame(seen), {"shortest distance, Å": ".2f"}),
        "labels": markdown(pd.DataFrame(_labels(config, run, summaries))),
        "commit": f"commit `{commit}`" if commit else "the version that wrote this",
        "edited": "" if clean in (True, None) else " (its files had been edited)",
        "path": f"{config['results']}/{run['path']}",
    }
    return CARD.read_text(encoding="utf-8").format(**values)


def _summary(results: Path, dataset: str) -> dict[str, Any]:
    """Return the summary of a prepared set; empty for one that is not read."""
    path = results / "data" / dataset / "summary.json"
    with whole(path):
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _zero(summary: Mapping[str, Any], zero: Mapping[str, float], elements: list[str]) -> str:
    """Return what the energies are relative to."""
    if not zero:
        return "In eV, as the labels were given: training subtracted nothing from them."
    kind = summary.get("energy_reference", {}).get("kind", "none").replace("_", " ")
    how = "isolated atoms of the label source" if kind == "none" else kind
    energies = ", ".join(f"{element} {energy:.6f} eV" for element, energy in zero.items())
    text = f"In eV and absolute. Training subtracted an energy of each atom ({how}: {energies}), "
    text += "which the models add again."
    if unknown := sorted(set(elements) - set(zero)):
        text += f" **None is known of {', '.join(unknown)}: energies with it are relative.**"
    return text


def _errors(runs: pd.DataFrame, run: Mapping[str, Any]) -> str:
    """Return the errors by size of the runs that differ from `run` in size and seeds only."""
    size = "n" if run["target"] else "npre"
    for field in {"kind", "target", "structures", "transform", "source", "npre"} - {size}:
        runs = runs[runs[field] == run[field]]
    errors = runs.groupby(size)[["test_energy", "test_force"]].agg(["mean", "std"])
    errors.columns = ["energy, meV/atom", "± ", "force, eV/Å", "±"]
    errors["seeds"] = runs.groupby(size).size()
    forms = dict(zip(errors, (".1f", ".1f", ".3f", ".3f"), strict=False))
    return markdown(errors.reset_index(), forms)


def _seen(name: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ranges of a set's training pool."""
    pool = summary.get("groups", {}).get("train", {})
    density = pool.get("density_g_cm3")
    return {
        "training pool of": name,
        "structures": f"{pool['structures']:,}" if pool else None,
        "elements": ", ".join(pool.get("composition", {})) or None,
        "density, g/cm³": density and f"{density['min']:.2f} to {density['max']:.2f}",
        "shortest distance, Å": pool.get("min_distance_angstrom"),
    }


def _labels(
    config: Mapping[str, Any], run: Mapping[str, Any], summaries: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each set of structures and each label source."""
    sources = [label_source(config["datasets"].get(run["target"], {})), run["source"]]
    named = [("datasets", name) for name in summaries]
    named += [("sources", name) for name in dict.fromkeys(sources) if name not in (None, "none")]
    for section, name in named:
        entry = config[section].get(name, {})
        files = summaries.get(name, {}).get("origin", {}).get("files", [])
        yield {
            "what": f"{section[:-1]} `{name}`",
            "title": entry.get("title", name),
            "from": entry.get("calculator") or ", ".join(Path(f["path"]).name for f in files),
            **{key: entry.get("about", {}).get(key) for key in ("theory", "licence", "cite")},
        }
