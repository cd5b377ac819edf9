"""Arguments of all programs: numbers have a range, and nothing that is read is overwritten."""

from __future__ import annotations

import os
import re

import pytest

from pretraining.runtime.cli import refuse_overwriting
from pretraining.runtime.errors import UserError
from scripts import SCRIPTS, run_script

PROGRAMS = sorted(path.stem for path in SCRIPTS.glob("*.py"))
# Options of each program, and words for those that it needs.
OPTION = re.compile(r'add_argument\(\s*"(--[\w-]+)"([^#]*?)\n?    (?=parser|what|args|arguments)')


def options(program):
    """Return the options of a program with the text that defines them."""
    text = (SCRIPTS / f"{program}.py").read_text(encoding="utf-8")
    return dict(OPTION.findall(text))


def numbers():
    """Return every option with a number, by program."""
    for program in PROGRAMS:
        for option, definition in options(program).items():
            found = re.search(r"type=(?:cli\.)?(whole|number|int|float)\(?", definition)
            if found:
                yield program, option, found[1]


NUMBERS = list(numbers())


def test_every_kind_of_number_is_found():
    assert len(NUMBERS) > 25 and {kind for *_, kind in NUMBERS} == {"whole", "number"}


@pytest.mark.parametrize("program, option, kind", NUMBERS)
def test_a_number_out_of_range_ends_in_one_line(program, option, kind):
    for wrong in ("-1", "nan", "inf", "x", "1e400", *(["2.5", "9" * 30] * (kind == "whole"))):
        done = run_script(program, f"{option}={wrong}")
        assert done.returncode == 1, wrong
        assert done.stderr.startswith(f"error: {option}: '{wrong}' is not a "), done.stderr
        assert done.stderr.count("\n") == 1


READ_AND_WRITTEN = [
    ("table1", "--runs", "--out", ""),
    ("table1", "--runs", "--latex", "--out x"),
    ("predict", "--structures", "--out", "--model m"),
    ("predict", "--model", "--out", "--structures s"),
    ("label", "--structures", "--out", "--config c --source s"),
    ("label", "--config", "--out", "--structures x --source s"),
    ("label", "--reference", "--provenance", "--structures x --out y --config c --source s"),
    ("evaluate", "--model", "--predictions", "--data d"),
    ("cost", "--runs", "--markdown", "--out x"),
    ("efficiency", "--runs", "--gains", "--out x"),
    ("forgetting", "--runs", "--out", ""),
    ("learning_curves", "--runs", "--table", "--figure fig2 --out x"),
    ("composed_figure", "--runs", "--out", "--figure specialised --target t"),
    ("students", "--runs", "--table", "--out x"),
    ("collect_runs", "--grid", "--out", ""),
    ("differences", "--table", "--out", "--published p --markdown m"),
    ("prepare", "--config", "--summary", "--dataset d --out x"),
    ("join_labels", "--chunks", "--out", "--data d --source s"),
    ("own_labels", "--data", "--out", "--n 1"),
    ("cut_chunk", "--data", "--out", "--chunk eval"),
    ("generate", "--reference", "--log", "--config c --density 1 --out x"),
    ("md_table", "--outcomes", "--survival", "--out x --markdown y"),
    ("embed", "--base", "--out", "--settings s"),
]


@pytest.mark.parametrize("program, read, written, others", READ_AND_WRITTEN)
def test_no_program_overwrites_what_it_reads(tmp_path, monkeypatch, program, read, written, others):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.write_text("precious")
    (tmp_path / "symbolic").symlink_to(file)
    os.link(file, tmp_path / "hard")
    (tmp_path / "sub").mkdir()
    for other in ("file", "symbolic", "hard", "sub/../file"):
        done = run_script(program, read, file, written, other, *others.split())
        message = f"error: {written}: {other.replace('sub/../', 'sub/../')} would overwrite {read}"
        assert done.returncode == 1 and done.stderr.startswith(message), done.stderr
        assert file.read_text() == "precious"


@pytest.mark.parametrize("program, read, written, others", READ_AND_WRITTEN)
def test_the_table_names_real_options(program, read, written, others):
    known = options(program)
    assert {read, written} <= known.keys()


def test_two_outputs_have_two_paths(tmp_path):
    runs = tmp_path / "runs.csv"
    done = run_script("table1", "--runs", runs, "--out", tmp_path / "t", "--latex", tmp_path / "t")
    assert done.returncode == 1 and "--out and --latex: both are" in done.stderr


def test_a_folder_to_write_holds_nothing_that_is_read(tmp_path):
    model = tmp_path / "run" / "model.ckpt"
    model.parent.mkdir()
    model.write_text("precious")
    with pytest.raises(UserError, match="--out: .*run would overwrite --initial .*model.ckpt"):
        refuse_overwriting([("--out", model.parent)], [("--initial", model)])
    refuse_overwriting([("--out", tmp_path / "other")], [("--initial", model)])


TRAINING = "--kind direct --data d --n 1 --seed 1 --settings s --out o"
# Programs with runtime options: the argument, what else they need, and a wrong value of a key.
RUNTIME = [
    ("train", "--machine", TRAINING, "{device: tpu}", "device: 'tpu' is not one of"),
    ("train", "--machine", TRAINING, "{threads: 0}", "training.threads: 0 is less than"),
    ("evaluate", "--machine", "--model m --data d --out o", "{device: tpu}", "'tpu' is not one of"),
    ("evaluate", "--machine", "--model m --data d --out o", "{threads: 2}", "'threads' is not one"),
    ("dynamics", "--machine", "--model m --start s --settings {} --out o", "{device: 1}", "device"),
    ("label", "--runtime", "--config {} --source a --structures s --out o", "{args: 1}", "'args'"),
    (
        "label",
        "--runtime",
        "--config {} --source a --structures s --out o",
        "{neutral_kwargs: [1]}",
        "neutral_kwargs must be a mapping",
    ),
    (
        "generate",
        "--runtime",
        "--config {} --density 1 --reference r --out o --log l",
        "{time_limit: soon}",
        "time_limit is soon",
    ),
]


@pytest.mark.parametrize("program, option, others, wrong, words", RUNTIME)
def test_runtime_options(tmp_path, monkeypatch, program, option, others, wrong, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(
        "generate: {source: a}\ndynamics: {}\nsources: {a: {calculator: ase.calculators.emt.EMT}}"
    )
    others = others.format("c.yaml").split()
    for value in ("7", "[device]", "word", "{a: [", "{a: 1, a: 2}", "@", ""):
        done = run_script(program, *others, option, value)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert re.match(rf"error: .*{option}.* is no mapping in YAML, as ", done.stderr)
    for value, reason in [(wrong, words), ("{nonsense: 1}", "'nonsense' is not one of")]:
        done = run_script(program, *others, option, value)
        assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
        assert reason in done.stderr
