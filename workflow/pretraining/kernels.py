"""Compiled loops for NequIP's convolution: made once on a machine, loaded in milliseconds.

PyTorch's ahead-of-time compiler turns the three expressions of a :class:`Contraction` into a shared
library each, for any number of atoms and edges. They are kept in the user's cache folder, in the
processor's instruction set.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import platform
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from platformdirs import user_cache_path

from pretraining.contraction import Contraction

FOLDER_VARIABLE = "PRETRAINING_KERNELS"
# What the compiler must have in memory; small numbers would be taken for constants.
EXAMPLE_ATOMS, EXAMPLE_EDGES = 8, 24


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The three functions of a :class:`Contraction`, compiled or as they are."""

    forward: Callable[..., Any]
    gradient: Callable[..., Any]
    second: Callable[..., Any]

    @classmethod
    def plain(cls, contraction: Contraction) -> Kernels:
        """Return the functions as they are."""
        return cls(contraction.forward, contraction.gradient, contraction.second)


NAMES = tuple(field.name for field in dataclasses.fields(Kernels))


def kernels_folder() -> Path:
    """Return where compiled kernels are kept; the environment's PRETRAINING_KERNELS comes first."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else user_cache_path("synthetic-pretraining") / "kernels"


def load_kernels(
    contraction: Contraction, dtype: torch.dtype, say: Callable[[str], None] = lambda text: None
) -> Kernels:
    """Return the compiled functions for the CPU, compiling them if no process here has yet.

    Parameters
    ----------
    contraction
        What to compute.
    dtype
        Of the numbers.
    say
        Is told when the compiler starts, which takes half a minute.

    Raises
    ------
    Exception
        Whatever the compiler raises, where there is none, say.
    """
    folder = kernels_folder() / _key(contraction, dtype)
    files = {name: folder / f"{name}.pt2" for name in NAMES}
    if not all(file.is_file() for file in files.values()):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            for name, file in files.items():
                if not file.is_file():
                    say(f"compiling a kernel ({name}, {contraction.n_terms} terms) into {folder}")
                    _compile(contraction, name, dtype, file)
    loaded = {name: torch._inductor.aoti_load_package(str(file)) for name, file in files.items()}
    return Kernels(**loaded)


def _compile(contraction: Contraction, name: str, dtype: torch.dtype, file: Path) -> None:
    """Compile one of the functions into `file`, which appears when it is complete."""

    class Function(torch.nn.Module):
        def forward(self, *arrays: torch.Tensor) -> Any:
            return getattr(contraction, name)(*arrays)

    arguments, shapes = _example(contraction, name, dtype)
    with (
        tempfile.TemporaryDirectory(dir=file.parent) as folder,
        warnings.catch_warnings(),
        _quiet("torch._export", "torch._inductor", "torch.export"),
    ):
        warnings.simplefilter("ignore")
        program = torch.export.export(Function(), arguments, dynamic_shapes=(shapes,))
        made = torch._inductor.aoti_compile_and_package(
            program, package_path=os.path.join(folder, file.name)
        )
        os.replace(made, file)


def _example(
    contraction: Contraction, name: str, dtype: torch.dtype
) -> tuple[tuple[torch.Tensor, ...], tuple[dict[int, Any], ...]]:
    """Arguments of a function, and which of their dimensions may have any size."""
    atoms, edges = torch.export.Dim("atoms", min=2), torch.export.Dim("edges", min=2)
    width = contraction.multiplicity

    def numbers(n: int, size: Any, *shape: int) -> tuple[torch.Tensor, dict[int, Any]]:
        return torch.randn(n, *shape, dtype=dtype), {0: size}

    x = numbers(EXAMPLE_ATOMS, atoms, contraction.n_in, width)
    g = numbers(EXAMPLE_ATOMS, atoms, contraction.n_out, width)
    y = numbers(EXAMPLE_EDGES, edges, contraction.n_harmonics)
    w = numbers(EXAMPLE_EDGES, edges, contraction.n_paths, width)
    index = (torch.arange(EXAMPLE_EDGES) % EXAMPLE_ATOMS, {0: edges})
    given = {
        "forward": [x, y, w],
        "gradient": [x, y, w, g],
        "second": [x, y, w, g, x, y, w],
    }[name]
    # Each a tensor of its own: the compiler would take the same one for the same always.
    pairs = [*given, index, index]
    return tuple(tensor.clone() for tensor, _ in pairs), tuple(shape for _, shape in pairs)


def _key(contraction: Contraction, dtype: torch.dtype) -> str:
    """Name of all that a compiled kernel depends on."""
    code = Path(__file__).with_name("contraction.py").read_text(encoding="utf-8")
    about = {
        "contraction": dataclasses.asdict(contraction),
        "code": ast.dump(ast.parse(code)),  # comments and layout do not matter
        "dtype": str(dtype),
        "torch": torch.__version__,
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:20]


def _processor() -> list[str]:
    """What the processor can do: a library for another one may not run."""
    about = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        about += sorted({line for line in lines if line.startswith(("flags", "Features", "model"))})
    return about


@contextlib.contextmanager
def _quiet(*names: str):
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
