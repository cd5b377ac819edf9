"""Command-line programs: arguments, exit status and log lines.

Imported in interpreters of label sources: only the standard library.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, NoReturn

from pretraining.runtime.errors import UserError

INTERRUPTED = "interrupted: run the same command again"
# Largest whole number of an argument, and of a random seed.
LARGEST = 2**63 - 1
LARGEST_SEED = 2**32 - 1


def run(main: Callable[[], int | None]) -> None:
    """Run `main` and turn a :class:`UserError` into one line and exit status 1.

    An interruption ends in one line, too, with the status that shells give it. Any other exception
    is a fault of the program and keeps its traceback.
    """
    try:
        status = main()
        sys.stdout.flush()
    except UserError as error:
        message = " ".join(str(error).split())
        print(f"error: {message}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        log(INTERRUPTED)
        status = 130
    except BrokenPipeError:
        # The reader of its output has ended, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status or 0)


class Output(type(Path())):
    """Type of an argument that names a file to write; a plain `Path` is read."""


class Folder(type(Path())):
    """Type of an argument that names a folder to write."""


class Parser(argparse.ArgumentParser):
    """A program's arguments; a wrong one ends in one line.

    Numbers are of the types :func:`whole` and :func:`number`. Every :class:`Output` and
    :class:`Folder` can be written, and no :class:`Output` is a file that another argument names.
    """

    def add_study(self) -> None:
        """Add ``--config``, the files of a study, and ``--results``."""
        self.add_argument(
            "--config",
            type=Path,
            nargs="+",
            default=[Path("config/config.yaml")],
            help="configuration of the study, files as after --configfile, - for standard input "
            "(default: config/config.yaml)",
        )
        self.add_argument("--results", help="folder of results, if not that of the configuration")

    def parse_args(self, *arguments: Any) -> argparse.Namespace:
        """Parse and check the arguments; raise a `UserError` if one is wrong."""
        args = super().parse_args(*arguments)
        outputs, inputs = [], []
        for name, path in _paths(args):
            if isinstance(path, (Output, Folder)):
                refuse_unwritable(name, path)
            (outputs if isinstance(path, Output) else inputs).append((name, path))
        refuse_overwriting(outputs, inputs)
        return args

    def error(self, message: str) -> NoReturn:
        """Raise a `UserError`."""
        if message.startswith("unrecognized arguments"):
            message += ": put quotes around a path with spaces"
        raise UserError(f"{message.removeprefix('argument ')} (--help lists the arguments)")


def whole(least: int = 1, most: int = LARGEST) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            bounds = f"{least} or more" if most == LARGEST else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {bounds}")
        return value

    return read


def number(above: float = 0.0, equal: bool = False) -> Callable[[str], float]:
    """Return the type of a finite number above a bound, or `equal` to it."""
    bound = f"{above:g} or more" if equal else f"above {above:g}"

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < above or (value == above and not equal):
            raise argparse.ArgumentTypeError(f"{text!r} is not a finite number, {bound}")
        return value

    return read


def refuse_overwriting(
    outputs: Sequence[tuple[str, Path]], inputs: Iterable[tuple[str, Path]] = ()
) -> None:
    """Raise a `UserError` if a file to write is one that is read, or is given twice.

    Each file follows the name of its argument. Links count as what they point to. A folder to write
    is refused if it holds a file that is read.
    """
    for (name, path), (other, read) in product(outputs, inputs):
        if _same(path, read) or (path.is_dir() and path.resolve() in read.resolve().parents):
            raise UserError(f"{name}: {path} would overwrite {other} {read}; give another path")
    for (name, path), (other, second) in combinations(outputs, 2):
        if _same(path, second):
            raise UserError(f"{name} and {other}: both are {path}; give different paths")


def refuse_unwritable(name: str, path: Path) -> None:
    """Raise a `UserError` if a file or a :class:`Folder` cannot be written; leave no trace."""
    wanted = os.path.isdir if isinstance(path, Folder) else os.path.isfile
    if os.path.exists(path) and not wanted(path):
        kind = "folder" if isinstance(path, Folder) else "regular file"
        raise UserError(f"{name}: {path} is there and is no {kind}: give another path")
    place = path if isinstance(path, Folder) else path.parent
    try:
        while not os.path.lexists(place):
            place = place.parent
        # Permissions do not tell: root, read-only and virtual file systems.
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise UserError(
                f"{name}: {path} cannot be written ({error.strerror}: {place}): give another path"
            ) from None


def _paths(args: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    for name, value in vars(args).items():
        for path in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(path, Path):
                yield f"--{name.replace('_', '-')}", path


def _same(first: Path, second: Path) -> bool:
    try:
        return os.path.samefile(first, second)
    except OSError:
        return os.path.realpath(first) == os.path.realpath(second)


class Trust(argparse.Action):
    """``--trust`` opens any model file; ``--trust PATH`` one that names the code of this path."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        text = (
            "open a model file that can run code: alone any file, such as a checkpoint of NequIP's "
            "own training; with import paths, a run's file that names this code"
        )
        super().__init__(
            option_strings, dest, nargs="*", default=False, metavar="IMPORT.PATH", help=text
        )

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values or True)


def log(message: object) -> None:
    """Write a line to stderr; do nothing if the reader of its pipe has ended.

    A batch system that stops a job also stops the program that reads its output.
    """
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        # Python flushes stderr again at its end, and would exit with another status.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
