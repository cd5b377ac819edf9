"""How long a training takes without programs, by which it is judged whether compiling pays."""

from __future__ import annotations

from nequip.nn import GraphModel
from nequip.nn._tp_scatter_base import TensorProductScatter

from pretraining.training.compiled.tensor_product import Contraction

# Measured on one core of a 2023 server: seconds a step of a small network, and seconds an edge and
# term of its convolutions.
SECONDS_A_STEP, SECONDS_A_TERM = 0.03, 3.8e-8
# A prediction takes this share of a training step on the same structures.
PREDICTION = 0.25


def plain_seconds(model: GraphModel, steps: float, edges: float) -> float:
    """Return about how long training steps take on a core without programs, s.

    Parameters
    ----------
    model
        The network.
    steps
        Number of steps.
    edges
        Edges in all of them together.
    """
    products = [m.tp for m in model.modules() if isinstance(m, TensorProductScatter)]
    contractions = [Contraction.of(product) for product in products]
    terms = sum(contraction.n_terms for contraction in contractions if contraction)
    return SECONDS_A_STEP * steps + SECONDS_A_TERM * terms * edges
