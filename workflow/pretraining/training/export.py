"""Trained models as files that NequIP opens without this package: packaged and compiled.

The package holds the source of the network's layers. A compiled model runs on machines like the one
that compiled it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from ase import Atoms
from nequip.scripts import compile as nequip_compile
from nequip.scripts import package as nequip_package

from pretraining.runtime.errors import UserError
from pretraining.study.queries import code_in
from pretraining.study.settings import Training
from pretraining.training.network.builders import absolute_config
from pretraining.training.network.checkpoint import (
    load_model,
    make_module,
    network_config_of,
    network_of,
    save_model,
    set_weights,
    type_names_of_model,
)
from pretraining.training.predict import predict

PACKAGE, COMPILED = ".nequip.zip", ".nequip.pt2"  # NequIP wants these suffixes
# NequIP builds its training module to read a checkpoint; nothing is trained.
UNUSED = dict.fromkeys((field.name for field in dataclasses.fields(Training)), 0.5)


def write_package(
    path: Path, zero: Mapping[str, float], out: Path, trust: Collection[str] = ()
) -> None:
    """Write NequIP's package of a run's ``model.ckpt`` with an energy zero, eV by element.

    Elements that the zero lacks keep their relative energies. A UserError says that a network of
    the user's own cannot be packaged.
    """
    model, config = load_model(path, trust=trust), network_config_of(path)
    config = absolute_config(config, {name: 0.0 for name in type_names_of_model(model)} | {**zero})
    training = Training(**UNUSED | {"loss": {"energy": 1.0, "forces": 1.0}})
    module = make_module(config, training, about={})
    network_of(module).model.network.load_state_dict(model.model.state_dict())
    set_weights(module, list(module.model.parameters()))
    # The packages whose source is shipped.
    own = {name.split(".")[0] for name in code_in(config)}
    nequip_package._INTERNAL_MODULES.update(own)
    with tempfile.TemporaryDirectory() as folder, quiet(f"{path} cannot be packaged by NequIP"):
        save_model(module, Path(folder, "model.ckpt"))
        nequip_package.main(["build", f"{folder}/model.ckpt", str(out)])


def check_compiler() -> None:
    """Raise a UserError if there is no C++ compiler."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UserError(f"no C++ compiler {compiler!r}: set CXX, or export with --compile none")


def compile_package(package: Path, out: Path, target: str, device: str) -> None:
    """Compile a package for ``ase`` or ``pair_nequip`` (LAMMPS); this takes minutes."""
    options = ["--mode", "aotinductor", "--device", device, "--target", target]
    with quiet(f"{package.name} cannot be compiled for {target}"):
        nequip_compile.main([str(package), str(out), *options])


def absolute_predictions(
    path: Path, zero: Mapping[str, float], structures: list[Atoms], trust: Collection[str] = ()
) -> list[Atoms]:
    """Return structures with the energies and forces that the exported model is to have."""
    model = load_model(path, trust=trust)
    known = {name: zero.get(name, 0.0) for name in type_names_of_model(model)}
    return list(predict(model, structures, zero=known))


@contextlib.contextmanager
def quiet(failure: str) -> Iterator[None]:
    """Silence a program of NequIP; its failure is one line."""
    logging.disable(logging.INFO)
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:500]
        raise UserError(f"{failure} ({type(error).__name__}: {reason})") from error
    finally:
        logging.disable(logging.NOTSET)
