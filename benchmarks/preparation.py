"""Measure time and memory of preparing a set as large as C-SYNTH-23M, and of its chunks.

    python benchmarks/preparation.py --folder /big/disk/bench --trajectories 546

A stand-in of the same size and format (546 files of 211 frames of 200 atoms in one archive) is
made in the folder, which needs 6 GB and keeps the archive. The set is prepared from the archive,
chunks are cut and labels joined, each step in its own process. Memory is the peak resident size of
the process (VmHWM); its anonymous (own) and file-backed (mapped) parts are those of the largest
sample, taken every 50 ms.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]

FRAMES, ATOMS = 211, 200
DATASET = {
    "load_atoms": "C-SYNTH-23M",
    "filters": [{"key": "time", "min": 10}],
    "keep": ["density", "time", "run_id"],
}
STEPS = ("prepare", "chunk", "join", "list")


def trajectory_text(run_id: int, rng: np.random.Generator) -> str:
    """Return one trajectory in the published format: a jittered lattice, energies and forces."""
    density = 1.0 + 0.1 * (run_id % 26)
    edge = (ATOMS * 12.011 / 0.602214 / density) ** (1 / 3)
    sites = np.stack(np.meshgrid(*[np.arange(6)] * 3), axis=-1).reshape(-1, 3) * edge / 6
    line = "C" + " %.5f" * 7 + "\n"
    text = []
    for frame in range(FRAMES):
        values = np.empty((ATOMS, 7))
        values[:, :3] = sites[rng.choice(216, ATOMS, replace=False)]
        values[:, :3] += rng.uniform(-0.3, 0.3, (ATOMS, 3))
        values[:, 3] = rng.normal(-157.0, 1.0, ATOMS)
        values[:, 4:] = rng.normal(0.0, 2.0, (ATOMS, 3))
        text.append(
            f'{ATOMS}\nLattice="{edge} 0.0 0.0 0.0 {edge} 0.0 0.0 0.0 {edge}" '
            "Properties=species:S:1:pos:R:3:gap17_energy:R:1:gap17_forces:R:3 "
            f"anneal_T={2000 + 100 * (run_id % 21)} density={density:.1f} run_id={run_id} "
            f'time={frame} pbc="T T T"\n'
        )
        text.append(line * ATOMS % tuple(values.ravel().tolist()))
    return "".join(text)


def make_archive(path: Path, trajectories: int) -> None:
    """Write the stand-in for the published archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    partial = path.with_suffix(".tmp")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for run_id in range(trajectories):
            archive.writestr(f"carbon/results/{run_id:04d}.extxyz", trajectory_text(run_id, rng))
    partial.rename(path)


def accept_stand_in(archive: Path) -> None:
    """Let load-atoms expect the stand-in."""
    from load_atoms.database.importers import c_synth_23m
    from load_atoms.database.internet import FileDownload
    from load_atoms.utils import generate_checksum

    file = FileDownload("http://localhost/carbon-data-v1.0.zip", generate_checksum(archive))
    c_synth_23m.Importer.files_to_download = classmethod(lambda cls: [file])


def paths(folder: Path) -> dict[str, Path]:
    """Files of the benchmark."""
    root = folder / "resources" / "load-atoms"
    return {
        "archive": root / "raw-downloads" / "C-SYNTH-23M" / "carbon-data-v1.0.zip",
        "entry": root / "database-entries" / "C-SYNTH-23M.yaml",
        "prepared": folder / "prepared.h5",
        "labelled": folder / "npre.h5",
    }


def step(name: str, folder: Path, n: int) -> None:
    """Carry out one step, in the process that is measured."""
    files = paths(folder)
    if name in ("prepare", "list"):
        accept_stand_in(files["archive"])
    if name == "prepare":
        from pretraining.data.prepare import prepare

        config = {"datasets": {"C-SYNTH-23M": DATASET}}
        prepare(config, "C-SYNTH-23M", folder, files["prepared"], folder / "summary.json")
    elif name == "list":
        from pretraining.data.readers import open_raw

        # For comparison, without a store: all structures as ASE objects.
        frames = list(open_raw(DATASET, folder).frames)
        print(f"{len(frames)} structures in a list")
    else:
        from pretraining.data.store import Store
        from pretraining.labels.chunks import chunk_rows, join, write_chunk

        with Store(files["prepared"]) as store:
            chunks = ["eval", *(f"{number:05d}" for number in range(n // 1000))]
            written = [folder / f"{chunk}.extxyz" for chunk in chunks]
            if name == "chunk":
                for chunk, path in zip(chunks, written, strict=True):
                    write_chunk(store, chunk_rows(store, chunk, 1000, store.n_train), path)
            else:
                join(store, "zero", written, files["labelled"], n)


def memory(pid: int) -> tuple[int, int, int]:
    """Resident memory of a process, bytes: highest so far, anonymous and file-backed now."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    return tuple(int(values[key].split()[0]) * 1024 for key in ("VmHWM", "RssAnon", "RssFile"))


def measure(name: str, folder: Path, n: int) -> dict[str, float]:
    """Run one step and return its time (s), memory (bytes) and bytes read and written."""
    command = [sys.executable, __file__, "--folder", str(folder), "--step", name, "--n", str(n)]
    began = time.perf_counter()
    process = subprocess.Popen(command)
    peak, highest, read, written = 0, (0, 0), 0, 0
    while process.poll() is None:
        try:
            peak, *now = memory(process.pid)
            io = dict(
                line.split(": ")
                for line in Path(f"/proc/{process.pid}/io").read_text().splitlines()
            )
            read, written = int(io["rchar"]), int(io["wchar"])
        except (KeyError, FileNotFoundError, ProcessLookupError):
            break
        highest = max(highest, tuple(now), key=sum)
        time.sleep(0.05)
    if process.wait():
        sys.exit(f"error: step {name} failed")
    seconds = time.perf_counter() - began
    anon, file = highest
    return dict(seconds=seconds, peak=peak, anon=anon, file=file, read=read, written=written)


def row(what: str, found: dict[str, float]) -> str:
    """Write a line of the table."""
    keys = ("peak", "anon", "file", "read", "written")
    return " | ".join(
        [f"| {what}", f"{found['seconds']:.0f}", *(f"{found[key] / 1e6:,.0f}" for key in keys), ""]
    ).rstrip()


def label_with_zero(folder: Path, n: int) -> None:
    """Give the chunks labels of zero, of a source called `zero`."""
    for chunk in ["eval", *(f"{number:05d}" for number in range(n // 1000))]:
        path = folder / f"{chunk}.extxyz"
        with open(path) as source, open(path.with_suffix(".tmp"), "w") as target:
            for line in source:
                if line.startswith("Lattice"):
                    line = line.replace("pos:R:3", "pos:R:3:zero_force:R:3", 1)
                    target.write(line.rstrip("\n") + " zero_energy=0.0\n")
                elif line.startswith("C "):
                    target.write(line.rstrip("\n") + " 0 0 0\n")
                else:
                    target.write(line)
        path.with_suffix(".tmp").rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="folder for the stand-in")
    parser.add_argument("--trajectories", type=int, default=546)
    parser.add_argument("--n", type=int, default=10_000, help="structures to cut and to join")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    folder = args.folder.resolve()
    if args.step:
        step(args.step, folder, args.n)
        return
    files = paths(folder)
    if not files["archive"].exists():
        began = time.perf_counter()
        make_archive(files["archive"], args.trajectories)
        print(f"stand-in made in {time.perf_counter() - began:.0f} s", flush=True)
    print(f"archive: {files['archive'].stat().st_size / 1e6:,.0f} MB", flush=True)
    files["entry"].parent.mkdir(parents=True, exist_ok=True)
    files["entry"].write_text(
        "name: C-SYNTH-23M\nyear: 2022\ndescription: stand-in\ncategory: Synthetic Data\n"
        "license: MIT\n"
    )
    print("| step | s | memory, MB | own, MB | mapped, MB | read, MB | written, MB |")
    print("|---|---|---|---|---|---|---|")

    def report(what: str, name: str) -> None:
        print(row(what, measure(name, folder, args.n)), flush=True)

    report("prepare, from the archive", "prepare")
    print(f"prepared set: {files['prepared'].stat().st_size / 1e6:,.0f} MB", file=sys.stderr)
    report(f"cut the evaluation and {args.n:,} structures", "chunk")
    label_with_zero(folder, args.n)
    report(f"join the labels of {args.n:,}", "join")
    report("a list of all structures, for comparison", "list")


if __name__ == "__main__":
    main()
