"""Keys of the section `network`: the hyperparameters of the networks that are known by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PAPER = (
    "cutoff",
    "num_layers",
    "num_features",
    "l_max",
    "parity",
    "num_bessels",
    "bessel_trainable",
    "polynomial_cutoff_p",
    "radial_mlp_depth",
    "radial_mlp_width",
)
# NequIP's own network has these, too.
STOCK = (
    "type_embed_num_features",
    "categorical_graph_field_embed",
    "readout_mlp_hidden_layers_depth",
    "readout_mlp_hidden_layers_width",
    "readout_mlp_nonlinearity",
    "per_edge_type_cutoff",
    "per_type_energy_scales",
    "per_type_energy_shifts",
    "per_type_energy_scales_trainable",
    "per_type_energy_shifts_trainable",
    "pair_potential",
    "do_derivatives",
    "convnet_sc",
    "learnable_shift",
    "convnet_resnet",
    "convnet_nonlinearity_type",
    "convnet_nonlinearity_scalars",
    "convnet_nonlinearity_gates",
)
HYPERPARAMETERS = {"paper": PAPER, "stock": (*PAPER, *STOCK)}
# Arguments of a builder that each run decides.
RUN_ARGUMENTS = ("seed", "model_dtype", "type_names", "r_max", "avg_num_neighbors")


def network_problems(network: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the network's builder would refuse at the first training."""
    known = HYPERPARAMETERS.get(network["model"])
    for key in network.keys() - {"model"}:
        if key in RUN_ARGUMENTS:
            yield f"network.{key}: it is decided by each run; remove it"
        if known is not None and key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            yield (
                f"network.{key}: the network '{network['model']}' has no such hyperparameter; "
                f"{hint}known: {', '.join(sorted(known))}"
            )


def builder_problems(model: str) -> Iterator[str]:
    """Yield why an import path names no builder, as far as files tell: importing takes seconds."""
    package, *names = model.split(".")
    if model in HYPERPARAMETERS or find_spec("nequip") is None:
        return  # another environment trains
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    file = Path(spec.origin) if spec and spec.origin else None
    for name in names[:-1]:
        folder = Path(folders[0], name) if folders else None
        folders = [folder] if folder and folder.is_dir() else []
        file = folder and next(
            (f for f in (folder / "__init__.py", folder.with_suffix(".py")) if f.is_file()), None
        )
    text = file.read_text(encoding="utf-8") if file and file.suffix == ".py" else ""
    if file is None or (text and "import *" not in text and names[-1] not in words_of(text)):
        known = ", ".join(HYPERPARAMETERS)
        yield (
            f"network.model: there is no '{model}' here; give {known} or the import path of a "
            "NequIP model builder"
        )


def words_of(code: str) -> set[str]:
    """Return the names in a text of Python."""
    return set(re.findall(r"\w+", code))
