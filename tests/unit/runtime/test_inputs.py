"""Files to read: every program names the one that is none of its kind, in one line."""

from __future__ import annotations

import io

import pytest

from scripts import SCRIPTS, run_script

SECTIONS = ("sources", "datasets", "experiments", "network", "training", "transforms", "generate")
SECTIONS += ("dynamics", "start", "descriptor", "seed", "sample", "check_sources", "samples")
CONTENTS = {
    "empty": b"",
    "binary": bytes(range(256)) * 4,
    "utf16": "a: 1\n".encode("utf-16"),
    "word": b"hello",
    "list": b"[1, 2]",
    "table": b"a,b\n1,2\n3\n",
    "mapping": b'{"a": {"b": 1}}',
    "lists": b"".join(b"%s: [1]\n" % name.encode() for name in SECTIONS),
    "mappings": b"".join(b"%s: {a: {}}\n" % name.encode() for name in SECTIONS),
}
# They have nothing to retrieve.
IDLE = [("retrieve", "empty"), ("retrieve", "mapping")]
CONFIGURED = ("accept", "archive", "export", "status")


@pytest.mark.parametrize("program", sorted(path.stem for path in SCRIPTS.glob("*.py")))
def test_files_of_another_kind(tmp_path, monkeypatch, given, program):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("no JSON"))
    for name, content in CONTENTS.items():
        (tmp_path / name).write_bytes(content)
    for name in ("absent", ".", *CONTENTS):
        given.read = name
        if program in ("check", *CONFIGURED):
            given.words = [name] if program == "check" else ["--config", name]
        done = run_script(program)
        if (program, name) not in IDLE:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            assert done.returncode == 1 and len(errors) == 1, (name, done.stderr)
            assert done.stderr.splitlines()[-1] == errors[0], name
