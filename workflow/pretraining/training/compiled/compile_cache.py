"""Functions of tensors, compiled once on a machine and loaded in milliseconds from then on.

PyTorch's ahead-of-time compiler turns a function into a shared library that takes arrays of any
number of structures, atoms and edges. The libraries are kept in the user's cache folder: they hold
instructions of this very processor, also those for a kind of GPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from nequip.utils.fx import fx_duck_shape, nequip_decomp_table
from platformdirs import user_cache_path
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

FOLDER_VARIABLE = "PRETRAINING_PROGRAMS"
Program = Callable[..., list[Tensor]]


def programs_folder() -> Path:
    """Return where programs are kept; the environment's PRETRAINING_PROGRAMS comes first."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else user_cache_path("synthetic-pretraining") / "programs"


class Source(NamedTuple):
    """What a program is compiled from.

    Attributes
    ----------
    function
        It may take gradients.
    arguments
        Examples, on the device where the program will run.
    shapes
        For each of them the dimensions that may have any size from 2 on, as
        :func:`torch.export.export` takes them.
    """

    function: Callable[..., list[Tensor]]
    arguments: Sequence[Tensor]
    shapes: Sequence[Mapping[int, Any]]


def load_program(
    make: Callable[[], Source],
    about: Mapping[str, Any],
    device: torch.device,
    say: Callable[[str], None],
    *,
    wait: bool = True,
) -> Program | None:
    """Return a compiled function, compiling it if no process on this machine has yet.

    Parameters
    ----------
    make
        Returns what to compile, if it must be compiled.
    about
        Its name, under ``function``, and all that it depends on beside its arguments, as JSON.
    device
        Where it runs.
    say
        Is told when the compiler starts, which takes minutes.
    wait
        Whether to wait where another process compiles it; else None is returned then.

    Raises
    ------
    Exception
        Whatever the compiler raises, where there is none, say.
    """
    file = programs_folder() / f"{about['function']}-{_key(about, device)}.pt2"
    if not _is_there(file, make, about["function"], say, wait):
        return None
    try:
        return _load(file)
    except Exception as error:
        say(f"{file} cannot be loaded ({error}): it is made anew")
        file.unlink(missing_ok=True)
    return _load(file) if _is_there(file, make, about["function"], say, wait) else None


def _load(file: Path) -> Program:
    # Else the loader finds out in a second what the processor can do, which the name of the file
    # says already.
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True}), _quiet("torch.export"):
        return torch._inductor.aoti_load_package(str(file), run_single_threaded=True)


def _is_there(
    file: Path, make: Callable[[], Source], name: str, say: Callable[[str], None], wait: bool
) -> bool:
    """Whether a program is there, after compiling it if no other process is about to."""
    if file.is_file():
        return True
    lock = FileLock(file.with_suffix(".lock"), timeout=-1 if wait else 0)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        raise OSError(
            f"{error}: set {FOLDER_VARIABLE} to a folder that can be written and locked"
        ) from error
    try:
        # A process that was killed leaves its scratch folder.
        for left in file.parent.glob(f"{file.stem}.*/"):
            shutil.rmtree(left)
        if not file.is_file():
            failure = file.with_suffix(".failed")
            _raise_if_failed(failure)
            say(f"compiling {name} into {file}: minutes, once on this machine")
            try:
                _compile(make(), file)
            except Exception as error:
                _remember(failure, error)
                raise
    finally:
        lock.release()
    return True


def _remember(failure: Path, error: Exception) -> None:
    """Let the runs to come know at once that there is no use in trying, for a day."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    with contextlib.suppress(OSError):
        failure.write_text(reason, encoding="utf-8")


def _raise_if_failed(failure: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if time.time() - failure.stat().st_mtime < 86400:
            reason = failure.read_text(encoding="utf-8")
            raise RuntimeError(f"{reason}; delete {failure} to have it tried again")


def _compile(source: Source, file: Path) -> None:
    """Compile a function into `file`, which appears when it is complete."""
    with (
        tempfile.TemporaryDirectory(dir=file.parent, prefix=f"{file.stem}.") as folder,
        warnings.catch_warnings(),
        _quiet("torch._export", "torch._inductor", "torch.export"),
    ):
        warnings.simplefilter("ignore")
        # Unfolds the gradients, of which export knows nothing.
        with fx_duck_shape(False):
            traced = make_fx(
                source.function,
                decomposition_table=nequip_decomp_table(),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
                _error_on_data_dependent_ops=True,
            )(*source.arguments)
        program = torch.export.export(
            traced, tuple(source.arguments), dynamic_shapes=tuple(source.shapes)
        )
        made = torch._inductor.aoti_compile_and_package(
            program, package_path=os.path.join(folder, file.name)
        )
        os.replace(made, file)


def _key(about: Mapping[str, Any], device: torch.device) -> str:
    """Name of all that a program depends on."""
    everything = {
        "about": about,
        "torch": torch.__version__,
        "device": _device(device),
    }
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:20]


def _device(device: torch.device) -> list[Any]:
    """What a device can do: a library for another one may not run."""
    about: list[Any] = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    if device.type == "cuda":
        # Beside a processor, whose instructions launch what runs on the GPU.
        about += [torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)]
    else:
        about.append(torch.get_num_threads())
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
