"""Functions of tensors, compiled once on a machine and then loaded in milliseconds.

PyTorch's ahead-of-time compiler (AOTInductor) makes a shared library for arrays of any number of
structures, atoms and edges. The user's cache folder keeps it for one model of processor and of GPU,
with its SHA-256. A library is code: it is loaded only if nobody else can have written it.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import hashlib
import inspect
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
from types import ModuleType
from typing import Any

import torch
from filelock import FileLock, Timeout
from nequip.utils.fx import fx_duck_shape, nequip_decomp_table
from platformdirs import user_cache_path
from torch import Tensor
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch.fx.experimental.proxy_tensor import make_fx

from pretraining.runtime.files import file_sha256

CACHE_VARIABLE = "PRETRAINING_COMPILE_CACHE"
# A compiler that has failed is not tried again for a day.
FAILURE_SECONDS = 86400
CompiledFunction = Callable[..., list[Tensor]]
# A function, which may take gradients; examples of its arguments, on the device where it will run;
# and their `dynamic_shapes` for torch.export.
Uncompiled = tuple[Callable[..., list[Tensor]], Sequence[Tensor], Sequence[Mapping[int, Any]]]


def cache_folder() -> Path:
    """Return the folder of compiled functions; the environment's variable comes first."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given) if given else user_cache_path("synthetic-pretraining") / "compiled"


def function_file(about: Mapping[str, Any], device: torch.device) -> Path:
    """Return where the cache has, or will have, a function; arguments as of `load_compiled`."""
    return cache_folder() / f"{about['function']}-{_key(about, device)}.pt2"


def load_compiled(
    make: Callable[[], Uncompiled],
    about: Mapping[str, Any],
    device: torch.device,
    log: Callable[[str], None],
    *,
    wait: bool = True,
) -> CompiledFunction | None:
    """Return a compiled function; compile it if the cache does not have it.

    Any exception of the compiler is raised, for instance if there is none.

    Parameters
    ----------
    make
        Called only to compile.
    about
        The function's name (``function``) and everything that it depends on beside its arguments,
        as JSON.
    log
        Called before the compiler starts, which takes minutes.
    wait
        Whether to wait while another process compiles it; if not, None is returned.
    """
    name = about["function"]
    file = function_file(about, device)
    if file.is_file():
        _refuse_others(file.parent)
        try:
            return _load(file)
        except Exception as error:
            log(f"{file} cannot be loaded ({error}): compiling it again")
            file.unlink(missing_ok=True)
    lock = FileLock(file.with_suffix(".lock"), timeout=-1 if wait else 0)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_others(file.parent)
        lock.acquire()
    except Timeout:
        return None
    except (OSError, NotImplementedError) as error:
        raise OSError(
            f"{error}: set {CACHE_VARIABLE} to a folder that can be written and locked"
        ) from error
    try:
        if not file.is_file():
            _compile_once(make, file, name, log)
    finally:
        lock.release()
    return _load(file)


def _refuse_others(path: Path) -> None:
    """Raise an OSError if another user owns a path or can write it."""
    about = path.stat()
    if about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise PermissionError(f"{path} belongs to another user or can be written by others")


def _load(file: Path) -> CompiledFunction:
    """Load a function that this user has compiled here."""
    record = file.with_suffix(".sha256")
    for path in (file, record):
        _refuse_others(path)
    if file_sha256(file) != record.read_text(encoding="utf-8"):
        raise ValueError(f"its SHA-256 is not that in {record.name}")
    # `vec_isa_ok` skips a test of the processor that takes a second: the file's name covers it.
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True}), _quiet():
        return torch._inductor.aoti_load_package(str(file), run_single_threaded=True)


def _compile_once(
    make: Callable[[], Uncompiled], file: Path, name: str, log: Callable[[str], None]
) -> None:
    """Compile a function into `file`, unless the compiler has failed to do so lately."""
    # Scratch folders of killed processes.
    for left in file.parent.glob(f"{file.stem}.*/"):
        shutil.rmtree(left)
    failure = file.with_suffix(".failed")
    with contextlib.suppress(FileNotFoundError):
        if time.time() - failure.stat().st_mtime < FAILURE_SECONDS:
            reason = failure.read_text(encoding="utf-8")
            raise RuntimeError(f"{reason}; delete {failure} to try again")
    log(f"compiling {name} into {file}: minutes, once on this machine")
    try:
        _compile(make(), file)
    except Exception as error:
        with contextlib.suppress(OSError):
            failure.write_text(first_line(error), encoding="utf-8")
        raise


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or else its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _compile(uncompiled: Uncompiled, file: Path) -> None:
    """Compile a function into `file`, which appears when it is complete."""
    function, arguments, shapes = uncompiled
    # PyTorch's own choice, set when it is imported, is a folder in /tmp that anybody can guess.
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()) == default_cache_dir():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = _scratch()
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f"{file.stem}.") as folder, _quiet():
        # Unfold the gradients, which torch.export does not know.
        with fx_duck_shape(False):
            traced = make_fx(
                function,
                decomposition_table=nequip_decomp_table(),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
                _error_on_data_dependent_ops=True,
            )(*arguments)
        exported = torch.export.export(traced, tuple(arguments), dynamic_shapes=tuple(shapes))
        made = torch._inductor.aoti_compile_and_package(
            exported, package_path=os.path.join(folder, file.name)
        )
        record = Path(folder) / "sha256"
        record.write_text(file_sha256(made), encoding="utf-8")
        # The function comes last: others may load it at once.
        for new, place in ((record, file.with_suffix(".sha256")), (Path(made), file)):
            new.chmod(0o600)
            os.replace(new, place)


@functools.cache
def _scratch() -> str:
    """Return a folder for PyTorch's compiler, removed at the end of the process."""
    folder = tempfile.mkdtemp(prefix="compiler-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _key(about: Mapping[str, Any], device: torch.device) -> str:
    everything = {"about": about, "torch": torch.__version__, "device": _device(device)}
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:20]


def _device(device: torch.device) -> list[Any]:
    """Capabilities of a device: a library for another one may not run."""
    about: list[Any] = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    if device.type == "cuda":
        # The processor counts too: its instructions launch the kernels.
        about += [torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)]
    else:
        about.append(torch.get_num_threads())
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        about += sorted({line for line in lines if line.startswith(("flags", "Features", "model"))})
    return about


def code_digest(modules: Sequence[ModuleType]) -> str:
    """Digest of the code of modules, without comments and layout."""
    parts = [ast.dump(ast.parse(inspect.getsource(module))) for module in modules]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@contextlib.contextmanager
def _quiet():
    """Silence Python warnings, and log messages up to warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)
