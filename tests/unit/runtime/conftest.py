"""Programs that fill in the arguments that a test does not give."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest

from pretraining.runtime.cli import Folder, Output, Parser


@pytest.fixture
def given(monkeypatch):
    """Arguments of the next program: ``words``, and ``read``, the file that it reads for all."""
    parse = argparse.ArgumentParser.parse_known_args
    given = SimpleNamespace(words=[], read="1")

    def value(action):
        if action.type in (Output, Folder):
            return f"{action.dest}.png"
        return given.read if action.type is Path else str([*(action.choices or "1")][0])

    def parse_all(parser, args=None, namespace=None):
        needed = [a for a in parser._actions if a.required and a.option_strings]
        needed += [group._group_actions[0] for group in parser._mutually_exclusive_groups]
        words = list(given.words)
        for action in needed:
            if action.option_strings[0] not in words:
                words += [action.option_strings[0], value(action)]
        return parse(parser, words, namespace)

    monkeypatch.setattr(Parser, "parse_known_args", parse_all)
    return given
