"""Select labelled structures, part them by trajectory, and write the manifest of the data."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write

DEMO = Path(__file__).resolve().parents[1]
MAX_FORCE = 25.0  # eV/Å, any component; hotter structures teach a small network little
SHIPPED = ("*.extxyz", "gap_demo.xml*")

MARKS = ("<!-- files: begin -->", "<!-- files: end -->")  # of the table in README.md


def select(frames: list[Atoms]) -> list[Atoms]:
    """Structures that have labels and no force component above `MAX_FORCE`, dimers excepted."""
    return [
        atoms
        for atoms in frames
        if "dft_force" in atoms.arrays
        and (
            atoms.info["config_type"] == "dimer"
            or np.abs(atoms.arrays["dft_force"]).max() <= MAX_FORCE
        )
    ]


def isolated_atom(element: str) -> Atoms:
    """One atom in a wide box: by the labels' definition, of no energy."""
    atoms = Atoms(element, cell=[20.0] * 3, pbc=True)
    atoms.info = {
        "density": 0.0,
        "run_id": "isolated",
        "time": 0.0,
        "config_type": "isolated_atom",
        "driver": "none",
        "dft_energy": 0.0,
    }
    atoms.arrays["dft_force"] = np.zeros((1, 3))
    return atoms


def split_trajectories(frames: list[Atoms], seed: int, n_test: int, n_val: int) -> None:
    """Set `info["split"]` to test, val or train, whole trajectories at a time.

    Trajectories are drawn in turn from each driver's, so that every part holds all kinds.
    """
    kinds: dict[str, list[str]] = {}
    for atoms in frames:
        runs = kinds.setdefault(atoms.info["driver"], [])
        if atoms.info["run_id"] not in runs:
            runs.append(atoms.info["run_id"])
    rng = np.random.default_rng(seed)
    # Position within its kind, 0 to 1, interleaves the kinds in proportion to their sizes.
    queue = sorted(
        (position / len(runs), kind, run)
        for kind, runs in kinds.items()
        for position, run in enumerate(rng.permutation(runs).tolist(), start=1)
    )
    sizes = {run: sum(atoms.info["run_id"] == run for atoms in frames) for _, _, run in queue}
    part, filled = {}, {"test": 0, "val": 0}
    for _, _, run in queue:
        if filled["test"] < n_test and filled["test"] * n_val <= filled["val"] * n_test:
            part[run] = "test"
        elif filled["val"] < n_val:
            part[run] = "val"
        elif filled["test"] < n_test:
            part[run] = "test"
        else:
            part[run] = "train"
        if part[run] != "train":
            filled[part[run]] += sizes[run]
    for atoms in frames:
        atoms.info["split"] = part[atoms.info["run_id"]]


def digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(folder: Path, how: dict) -> dict:
    """Size, sha256 and contents of every shipped file, and how the labels were made."""
    files = {}
    for path in sorted(path for pattern in SHIPPED for path in folder.glob(pattern)):
        entry: dict = {"bytes": path.stat().st_size, "sha256": digest(path)}
        if path.suffix == ".extxyz":
            frames = read(path, ":")
            entry["structures"] = len(frames)
            entry["atoms"] = sum(map(len, frames))
            entry["trajectories"] = len({atoms.info["run_id"] for atoms in frames})
        files[path.name] = entry
    return {"files": files, "labels": how}


def table(files: dict) -> str:
    """The manifest's files as a Markdown table."""
    lines = [
        "| file | structures | atoms | trajectories | bytes | sha256 |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in files.items():
        counts = [str(entry.get(key, "–")) for key in ("structures", "atoms", "trajectories")]
        lines.append(
            f"| `{name}` | {' | '.join(counts)} | {entry['bytes']} | `{entry['sha256']}` |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    choose = commands.add_parser("select")
    choose.add_argument("labelled", type=Path)
    choose.add_argument("out", type=Path)
    choose.add_argument("--split", nargs=3, type=int, metavar=("SEED", "TEST", "VAL"))
    choose.add_argument("--isolated", nargs="+", default=[], help="elements of lone atoms to add")
    listing = commands.add_parser("manifest")
    listing.add_argument("provenance", type=Path, nargs="+", help="JSON written by label.py")
    listing.add_argument("--folder", type=Path, default=DEMO)
    args = parser.parse_args()
    if args.command == "manifest":
        how = [json.loads(path.read_text()) for path in args.provenance]
        content = manifest(args.folder, how[0] if len(how) == 1 else how)
        text = json.dumps(content, indent=1, sort_keys=True)
        (args.folder / "manifest.json").write_text(text + "\n")
        readme = args.folder / "README.md"
        before, _, rest = readme.read_text().partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        listed = table(content["files"])
        readme.write_text(f"{before}{MARKS[0]}\n{listed}\n{MARKS[1]}{after}")
        return
    labelled = read(args.labelled, ":")
    frames = select(labelled)
    if args.split:
        split_trajectories(frames, *args.split)
    lone = [isolated_atom(element) for element in args.isolated]
    for atoms in lone if args.split else []:
        atoms.info["split"] = "train"
    frames += lone
    write(args.out, frames, format="extxyz")
    print(f"{args.out.name}: {len(frames)} of {len(labelled)} structures kept")


if __name__ == "__main__":
    main()
