"""Worker processes: what codes can do to them, and what becomes of a labelling job then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import read, write

from pretraining.labels import label as labelling
from pretraining.labels import pool
from pretraining.labels.evaluate import Evaluator, fingerprint
from pretraining.labels.label import HOPELESS, Journal, label
from pretraining.labels.pool import evaluate_all
from pretraining.runtime.errors import UserError
from pretraining.study.sources import Source

ROOT = Path(__file__).resolve().parents[3]
TESTS = ROOT / "tests"
SCRIPT = ROOT / "workflow" / "scripts" / "label.py"
ELEMENTS = ["Ar", "Ne", "He", "Kr", "Xe", "Rn", "H", "Li"]
ZERO = dict.fromkeys(ELEMENTS, 0.0)


def source(time_limit: float = 60.0, on_error: str = "skip", **kwargs) -> Source:
    """A source whose calculator makes trouble."""
    return Source(
        "bad",
        calculator="troublemakers.Troublemaker",
        neutral_kwargs=kwargs,
        time_limit=time_limit,
        on_error=on_error,
    )


def structures(symbols: str) -> list[Atoms]:
    """Pairs of atoms of these elements, each pair at a place of its own."""
    pairs = enumerate(symbols.split())
    return [Atoms([s, s], [[0.1 * i, 0, 0], [2, 0.01 * i, 0]]) for i, s in pairs]


def evaluations(log: Path) -> list[str]:
    """Elements of the structures that were evaluated, in order, from a log."""
    words = [line.split()[1] for line in log.read_text().splitlines()]
    return [word for word in words if word not in ("start", "child")]


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(condition, seconds: float = 20.0) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return bool(condition())


# ---------------------------------------------------------------- outcomes


@pytest.mark.parametrize("processes", [1, 2])
def test_trouble_costs_one_structure_its_label(tmp_path, processes, capfd):
    bad = source(time_limit=1.5, log=str(tmp_path / "log"))
    frames = structures("Ar He Ar Kr Xe Ar Rn H Ne Li Ar")
    outcomes = dict(evaluate_all(bad, frames, processes))
    assert sorted(outcomes) == list(range(len(frames)))
    errors = {i: outcome.error for i, outcome in outcomes.items() if outcome.error}
    assert errors == {
        1: "killed its process (signal 11, segmentation fault)",
        3: "took longer than the time_limit of 1.5 s",
        4: "RuntimeError: no convergence",
        6: "SystemExit: this program is not licensed",
        7: "forces are not finite",
        9: "energy is inf",
    }
    assert outcomes[3].timed_out and not outcomes[1].timed_out
    evaluate = Evaluator(bad)
    for i in set(range(len(frames))) - set(errors):
        energy, forces = evaluate(frames[i])
        assert outcomes[i].energy == energy
        np.testing.assert_array_equal(outcomes[i].forces, forces)
    # What crashes is tried again, what hangs is not; what a code prints stays out of the way.
    log = evaluations(tmp_path / "log")
    assert log.count("He") == 2 and log.count("Kr") == 1
    assert capfd.readouterr().out.count("noise") >= len(frames)
    # The hung code's own processes are gone, too.
    (child,) = [
        int(line.split()[2]) for line in (tmp_path / "log").read_text().splitlines()
        if line.split()[1] == "child"
    ]  # fmt: skip
    assert not is_running(child)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_crash_that_was_not_the_structures_fault(tmp_path, processes):
    """A structure that crashed once has its label from another process, new or idle by then."""
    bad = source(once=str(tmp_path / "once"), log=str(tmp_path / "log"))
    outcomes = dict(evaluate_all(bad, structures("Ar He Ar"), processes))
    assert [outcomes[i].error for i in range(3)] == [None, None, None]
    assert (tmp_path / "once").exists()
    assert (tmp_path / "log").read_text().count("start") == 2


def test_a_slow_start_is_no_slow_structure(tmp_path):
    """Nor is a calculator that is made again for other periodic directions."""
    bad = source(time_limit=1.0, start=1.2, log=str(tmp_path / "log"))
    frames = structures("Ar Ar Ar")
    frames[2].pbc, frames[2].cell = True, [9, 9, 9]
    outcomes = dict(evaluate_all(bad, frames))
    assert [outcomes[i].error for i in range(3)] == [None, None, None]
    assert (tmp_path / "log").read_text().count("start") == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_a_code_that_crashes_at_its_start_is_not_started_again(tmp_path, processes):
    bad = source(start="crash", log=str(tmp_path / "log"))
    message = (
        r"source 'bad': its process ended before troublemakers.Troublemaker was made "
        r"\(exit status 3\)"
    )
    with pytest.raises(UserError, match=message):
        list(evaluate_all(bad, structures("Ar " * 9), processes))
    assert (tmp_path / "log").read_text().count("start") <= processes


def test_a_start_that_hangs(monkeypatch):
    monkeypatch.setattr(pool, "START_LIMIT", 1.0)
    with pytest.raises(UserError, match="troublemakers.Troublemaker was not made within 1 s"):
        list(evaluate_all(source(start=60), structures("Ar")))


def test_a_source_that_refuses_says_why_at_once(tmp_path):
    bad = source(start="refuse", log=str(tmp_path / "log"))
    with pytest.raises(UserError, match="^source 'bad': this code wants a licence$"):
        list(evaluate_all(bad, structures("Ar Ar Ar")))
    assert (tmp_path / "log").read_text().count("start") == 1
    missing = Source("gone", calculator="no_such_package.Code", install="pip install code")
    with pytest.raises(UserError, match="cannot import .*; to get it: pip install code"):
        list(evaluate_all(missing, structures("Ar")))


def test_several_workers_have_a_thread_each(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    # An MPI launcher's, whose other processes a worker is none of.
    monkeypatch.setenv("PMI_FD", "9")
    for processes, threads in [(2, "1"), (1, "8")]:
        log = tmp_path / f"log{processes}"
        list(evaluate_all(source(log=str(log), pause=0.05), structures("Ar " * 8), processes))
        starts = [line.split() for line in log.read_text().splitlines() if "start" in line]
        assert [start[2:] for start in starts] == [[threads, "None"]] * processes


def test_workers_end_with_the_iterator(tmp_path):
    log = tmp_path / "log"
    outcomes = evaluate_all(source(log=str(log)), structures("Ar Ar Kr Kr"), 2)
    next(outcomes)
    outcomes.close()
    pids = {int(line.split()[0]) for line in log.read_text().splitlines()}
    assert pids and not any(map(is_running, pids))


def test_how_a_process_ended():
    assert pool.exit_text(3) == "exit status 3"
    assert pool.exit_text(-11) == "signal 11, segmentation fault"
    assert pool.exit_text(-9) == "signal 9, killed, perhaps out of memory"


def test_nothing_to_do_starts_nothing(tmp_path):
    assert list(evaluate_all(source(start="crash"), [])) == []


# ---------------------------------------------------------------- jobs


def start_job(folder: Path, entry: dict, *arguments, **kwargs) -> subprocess.Popen:
    """Start label.py on ``in.extxyz`` with a source called bad."""
    config = folder / "sources.yaml"
    entry = {"calculator": "troublemakers.Troublemaker", **entry}
    config.write_text(yaml.safe_dump({"sources": {"bad": entry}}))
    (folder / "zero.json").write_text(json.dumps(ZERO))
    command = [
        sys.executable, SCRIPT, "--config", config, "--source", "bad",
        "--structures", folder / "in.extxyz", "--reference", folder / "zero.json",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}:{ROOT / 'workflow'}"}
    return subprocess.Popen(
        [*map(str, [*command, *arguments])],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def journalled(out: Path) -> int:
    """Number of structures in the journal of an output."""
    with suppress(FileNotFoundError):
        return Path(f"{out}.part").read_text().count('"i"')
    return 0


def test_a_job_goes_on_with_another_number_of_processes(tmp_path):
    """It is killed with SIGKILL, which its workers do not survive, and gives the same file."""
    write(tmp_path / "in.extxyz", structures("Ar Ne " * 40))
    entry = {"neutral_kwargs": {"log": str(tmp_path / "log"), "pause": 0.02}}
    out = tmp_path / "out.extxyz"
    job = start_job(tmp_path, entry, "--out", out, "--processes", 2)
    assert wait_until(lambda: journalled(out) > 10)
    job.kill()
    job.communicate()
    pids = {int(line.split()[0]) for line in (tmp_path / "log").read_text().splitlines()}
    assert len(pids) == 2
    assert wait_until(lambda: not any(map(is_running, pids)), 5)
    done = journalled(out)
    assert 10 < done < 80 and not out.exists()
    (tmp_path / "log").unlink()
    job = start_job(tmp_path, entry, "--out", out, "--processes", 1)
    errors = job.communicate()[1]
    assert job.returncode == 0 and f"{done} of 80 structures were done before" in errors
    assert len(evaluations(tmp_path / "log")) == 80 - done
    fresh = tmp_path / "fresh.extxyz"
    job = start_job(tmp_path, entry, "--out", fresh, "--processes", 2)
    job.communicate()
    assert fresh.read_bytes() == out.read_bytes()


def test_an_orphan_that_hangs_is_ended(tmp_path):
    """A worker that never comes to read its parent's messages does not outlive it."""
    write(tmp_path / "in.extxyz", structures("Kr"))
    job = start_job(
        tmp_path, {"neutral_kwargs": {"log": str(tmp_path / "log")}}, "--out", tmp_path / "out"
    )
    assert wait_until(lambda: (tmp_path / "log").exists() and "child" in read_log(tmp_path))
    job.kill()
    job.communicate()
    pids = [int(line.split()[0]) for line in read_log(tmp_path).splitlines()]
    pids.append(int(read_log(tmp_path).split("child ")[1]))
    assert wait_until(lambda: not any(map(is_running, pids)), 5)


def read_log(folder: Path) -> str:
    return (folder / "log").read_text()


def test_a_job_that_is_asked_to_end_keeps_its_journal(tmp_path):
    write(tmp_path / "in.extxyz", structures("Ar " * 80))
    entry = {"neutral_kwargs": {"log": str(tmp_path / "log"), "pause": 0.02}, "on_error": "skip"}
    out = tmp_path / "out.extxyz"
    # As a batch system does: the signal goes to the job and to its workers.
    job = start_job(tmp_path, entry, "--out", out, "--processes", 2)
    assert wait_until(lambda: journalled(out) > 10)
    pids = {int(line.split()[0]) for line in (tmp_path / "log").read_text().splitlines()}
    for pid in [*pids, job.pid]:
        os.kill(pid, signal.SIGTERM)
    errors = job.communicate(timeout=10)[1]
    assert job.returncode != 0 and "Traceback" not in errors
    assert not out.exists() and journalled(out) > 10
    assert '"error"' not in Path(f"{out}.part").read_text()
    assert not any(map(is_running, pids))


def test_repeated_structures_are_evaluated_once(tmp_path, capsys):
    frames = structures("Ar Ne Xe")
    frames += [frames[0].copy(), frames[2].copy(), *structures("Ar Ne")]
    frames[3].info["mine"] = 7
    log = tmp_path / "log"
    out = tmp_path / "out.extxyz"
    assert label(source(log=str(log)), frames, ZERO, out, first=100) == [102, 104]
    assert sorted(evaluations(log)) == ["Ar", "Ne", "Xe"]
    assert "4 of 7 structures are repeated: labelled once" in capsys.readouterr().err
    labelled = read(out, ":")
    assert [atoms.info.get("bad_energy") for atoms in labelled] == [-2, -2, None, -2, None, -2, -2]
    assert labelled[3].info["mine"] == 7
    assert labelled[4].info["bad_error"] == labelled[2].info["bad_error"]
    np.testing.assert_array_equal(labelled[3].arrays["bad_force"], labelled[0].arrays["bad_force"])


def test_a_source_that_can_do_nothing_is_at_fault(tmp_path):
    frames = structures("Xe " * (HOPELESS + 5) + "Ar")
    out = tmp_path / "out.extxyz"
    message = f"any of the first {HOPELESS} structures .*no convergence.*: look for the fault"
    with pytest.raises(UserError, match=message):
        label(source(), frames, ZERO, out)
    # Its failures are not remembered.
    assert journalled(out) == 0
    # One that can do something is not, and neither is a small job's.
    several = structures("Ar" + " Xe" * (HOPELESS + 5))
    assert len(label(source(), several, ZERO, out)) == HOPELESS + 5
    assert label(source(), structures("Xe Xe"), ZERO, out) == [0, 1]


def test_failures_count_only_as_long_as_they_would_be_skipped(tmp_path):
    """A structure is tried again when it is given more time, or must not fail any more."""
    frames = structures("Ar Ne Xe Ar")
    out, log = tmp_path / "out.extxyz", tmp_path / "log"
    bad = source(time_limit=1.0, log=str(log))

    def interrupted() -> None:
        journal = Journal(Path(f"{out}.part"), fingerprint(bad, ZERO, frames))
        journal.add({"i": 0, "energy": -2.0, "forces": [[0, 0, 0]] * 2})
        journal.add({"i": 1, "error": "took longer", "time_limit": 1.0})
        journal.add({"i": 2, "error": "RuntimeError: no convergence"})
        journal.close()
        log.unlink(missing_ok=True)

    for change, again in [({}, ["Ar"]), ({"time_limit": 2.0}, ["Ne", "Ar"])]:
        interrupted()
        label(replace(bad, **change), frames, ZERO, out)
        assert evaluations(log) == again
    interrupted()
    with pytest.raises(UserError, match="cannot evaluate structure 2"):
        label(replace(bad, on_error="stop"), frames, ZERO, out)
    Path(f"{out}.part").unlink()


def test_an_argument_that_names_an_output_is_refused(tmp_path):
    """A log that the code writes would change the labels' fingerprint."""
    bad = replace(source(), kwargs={"log": str(tmp_path / "log")})
    message = "source 'bad' changes log, which its arguments name: .* neutral_kwargs"
    for _ in range(2):  # the file is new, then it grows
        with pytest.raises(UserError, match=message):
            label(bad, structures("Ar Ar"), ZERO, tmp_path / "out.extxyz")


def test_a_job_tells_the_versions_of_all_its_starts(tmp_path):
    frames, out, made = structures("Ar Ne Ar"), tmp_path / "out.extxyz", tmp_path / "made.json"
    journal = Journal(Path(f"{out}.part"), fingerprint(source(), ZERO, frames))
    old = {"code": {"package": "troublemakers", "version": "0.1"}, "ase": "3.0"}
    journal.add_versions(old)
    journal.add({"i": 0, "energy": -2.0, "forces": [[0, 0, 0]] * 2})
    journal.close()
    label(source(), frames, ZERO, out, processes=2, made=made)
    how = json.loads(made.read_text())
    assert how["earlier"] == [old]
    assert how["code"] == {"package": "troublemakers", "version": None}
    assert how["python"] == sys.version.split()[0]
    assert how["isolated_atoms_ev"] == ZERO


def test_an_empty_chunk_is_labelled(tmp_path):
    (tmp_path / "in.extxyz").touch()
    out, made = tmp_path / "out.extxyz", tmp_path / "made.json"
    job = start_job(tmp_path, {"neutral_kwargs": {"start": "crash"}}, "--out", out)
    assert "the file is empty" in job.communicate()[1] and job.returncode == 1
    options = ("--out", out, "--allow-empty", "--provenance", made)
    job = start_job(tmp_path, {"neutral_kwargs": {"start": "crash"}}, *options)
    assert job.communicate()[1] == "" and job.returncode == 0
    assert out.read_bytes() == b""
    assert "code" not in json.loads(made.read_text())


def test_compressed_structures(tmp_path):
    frames = structures("Ar Ne")
    write(tmp_path / "in.extxyz.gz", frames, format="extxyz")
    assert labelling.read_structures(tmp_path / "in.extxyz.gz") == frames
    assert labelling.read_structures(tmp_path / "in.extxyz.gz", "1:") == frames[1:]
