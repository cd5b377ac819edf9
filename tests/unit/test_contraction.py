"""The convolution's tensor product against e3nn's, its gradients, and compiled networks."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import torch
from ase.io import read, write
from e3nn.o3 import Irreps
from nequip.data import AtomicDataDict as Key
from nequip.nn._tp_scatter_base import TensorProductScatter

from pretraining import kernels
from pretraining.builders import network_config
from pretraining.contraction import Contraction
from pretraining.data import StructureDataset, make_loader
from pretraining.fusion import Convolution, FusedConvolution, fuse
from pretraining.inference import evaluate
from pretraining.kernels import Kernels
from pretraining.modelfile import load_model, make_module, network_of
from pretraining.robustness_run import Request as Dynamics
from pretraining.robustness_run import run
from pretraining.settings import Training
from pretraining.store import Store
from pretraining.training import Request, train
from pretraining.transforms import Transform
from toy import MD_TEST, rattled_cells, write_settings, write_store

N_ATOMS, N_EDGES = 5, 17
CPU = torch.device("cpu")
compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


def nequip_product(features: str, harmonics: str) -> TensorProductScatter:
    """NequIP's tensor product with all paths between the given irreps, in double precision."""
    irreps, edges = Irreps(features), Irreps(harmonics)
    middle, steps = [], []
    for i, (mul, ir) in enumerate(irreps):
        for j, (_, edge) in enumerate(edges):
            for out in ir * edge:
                if out in irreps:
                    steps.append((i, j, len(middle), "uvu", True))
                    middle.append((mul, out))
    middle, order, _ = Irreps(middle).sort()
    steps = [(i, j, order[k], mode, train) for i, j, k, mode, train in steps]
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return TensorProductScatter(irreps, edges, middle, steps)
    finally:
        torch.set_default_dtype(default)


def plain(product: TensorProductScatter) -> FusedConvolution:
    contraction = Contraction.of(product.tp)
    return FusedConvolution(product, contraction, Kernels.plain(contraction))


def inputs(product: TensorProductScatter) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    ends = torch.randint(0, N_ATOMS, (2, N_EDGES), generator=generator)
    tp = product.tp
    return [
        numbers(N_ATOMS, tp.irreps_in1.dim),
        numbers(N_EDGES, tp.irreps_in2.dim),
        numbers(N_EDGES, tp.weight_numel),
        *ends,
    ]


@pytest.mark.parametrize(
    ("features", "harmonics"),
    [
        ("3x0e", "0e + 1o"),
        ("3x0e + 3x0o + 3x1o + 3x1e", "0e + 1o"),
        ("2x0e + 2x1o + 2x2e", "0e + 1o + 2e"),
    ],
)
def test_it_is_the_tensor_product_of_e3nn(features, harmonics):
    product = nequip_product(features, harmonics)
    given = inputs(product)
    theirs, own = product(*given), plain(product)(*given)
    torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)
    for mine, other in zip(
        torch.autograd.grad(own.sin().sum(), given[:3]),
        torch.autograd.grad(theirs.sin().sum(), given[:3]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_both_gradients_are_those_of_finite_differences():
    product = nequip_product("2x0e + 2x1o + 2x1e", "0e + 1o")
    contraction = Contraction.of(product.tp)
    x, y, w, receiver, sender = inputs(product)
    features = torch.randn(N_ATOMS, contraction.n_in, 2, dtype=torch.float64, requires_grad=True)
    weights = w.detach().view(N_EDGES, contraction.n_paths, 2).requires_grad_()

    def convolution(*arrays):
        return Convolution.apply(Kernels.plain(contraction), *arrays, sender, receiver)

    assert torch.autograd.gradcheck(convolution, (features, y, weights))
    assert torch.autograd.gradgradcheck(convolution, (features, y, weights))


def test_other_products_are_left_alone():
    assert Contraction.of(nequip_product("3x0e + 2x1o", "0e + 1o").tp) is None


# ------------------------------------------------------------------------------ compiled networks


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(autouse=True)
def kept_apart(folder, monkeypatch):
    """Kernels of the tests are no kernels of the user's."""
    monkeypatch.setenv(kernels.FOLDER_VARIABLE, str(folder / "cache"))


@pytest.fixture(scope="module")
def data(folder):
    return write_store(folder / "data.h5", n=24, n_val=4, n_test=4)


def network():
    """A network of one layer, whose kernels are few and quickly made."""
    config = network_config(
        {"num_layers": 1, "num_features": 2, "num_bessels": 4},
        type_names=["C"],
        avg_num_neighbors=20.0,
        seed=1,
        cutoff=4.0,
    )
    return network_of(make_module(config, Training(device="cpu"), about={}))


def forces_and_gradients(model, data):
    """Forces, and the gradients of a loss of them in all weights."""
    store = Store(data)
    transform = Transform.from_settings("none", {})
    structures = StructureDataset(store, store.indices("val"), ["C"], 4.0, transform)
    batch = next(iter(make_loader(structures, 4)))
    model.zero_grad()
    out = model({key: value.clone() for key, value in batch.items()})
    loss = (out[Key.FORCE_KEY] - batch[Key.FORCE_KEY]).square().mean()
    (loss + out[Key.TOTAL_ENERGY_KEY].square().mean()).backward()
    return out[Key.FORCE_KEY].detach(), {
        name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None
    }


@compiler
def test_a_compiled_network_is_the_network(data, folder):
    model = network()
    compiled = copy.deepcopy(model)
    said = []
    assert fuse(compiled, CPU, said.append)
    assert len(said) == 3 and "compiling" in said[0]
    assert any(isinstance(module, FusedConvolution) for module in compiled.modules())
    assert list(compiled.state_dict()) == list(model.state_dict())
    forces, gradients = forces_and_gradients(model, data)
    own_forces, own_gradients = forces_and_gradients(compiled, data)
    torch.testing.assert_close(own_forces, forces, rtol=1e-4, atol=1e-5)
    assert own_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(own_gradients[name], gradient, rtol=1e-3, atol=1e-4)
    # A second network finds them made.
    again = network()
    assert fuse(again, CPU, said.append)
    assert len(said) == 3


@compiler
def test_a_training_with_compiled_kernels_ends_as_one_without(data, folder):
    tiny = {"num_layers": 1, "num_features": 2}
    results = {}
    for choice in ("never", "always"):
        settings = write_settings(folder / f"{choice}.yaml", tiny, kernels=choice, max_epochs=6)
        request = Request("direct", data, 16, 1, settings, folder / choice)
        assert train(request) == 0
        assert ("compiled convolutions" in (folder / choice / "train.log").read_text()) == (
            choice == "always"
        )
        model = load_model(folder / choice / "model.ckpt")
        # The file knows nothing of the kernels.
        assert not any(isinstance(module, FusedConvolution) for module in model.modules())
        results[choice] = evaluate(model, Store(data))
    plain_run, compiled_run = results["never"], results["always"]
    for key, value in plain_run.items():
        assert compiled_run[key] == pytest.approx(value, rel=1e-3), key


@compiler
def test_dynamics_with_compiled_kernels_are_those_without(data, folder):
    """The kernels of the training before serve the dynamics of its model."""
    settings = write_settings(folder / "md.yaml", {"num_layers": 1, "num_features": 2})
    train(Request("direct", data, 16, 1, settings, folder / "md"))
    atoms = next(rattled_cells(1, seed=9)).repeat((2, 1, 1))
    atoms.calc = None
    write(folder / "start.extxyz", atoms)
    last = []
    for choice in ("never", "always"):
        out = folder / f"md-{choice}"
        model, start = folder / "md" / "model.ckpt", folder / "start.extxyz"
        run(Dynamics(model, start, MD_TEST, (1,), out, device="cpu", kernels=choice))
        last.append(read(out / "replica~1" / "trajectory.extxyz", -1))
    np.testing.assert_allclose(last[1].positions, last[0].positions, atol=1e-5)


def test_without_a_compiler_the_network_stays_and_says_so(data, monkeypatch, tmp_path):
    monkeypatch.setenv(kernels.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, str(tmp_path / "no-compiler")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    model, said = network(), []
    assert not fuse(model, CPU, said.append)
    assert "no compiled kernels" in said[-1]
    forces_and_gradients(model, data)
    assert not list(tmp_path.rglob("*.pt2"))
