"""Tick labels of logarithmic axes: the sizes that were run, and round numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter


def plain(value: float) -> str:
    """A tick label of a count: no powers of ten, thousands separated from 10,000 on."""
    return f"{value:,.0f}" if value >= 10_000 else f"{value:g}"


def size_ticks(axis: Axis, sizes: Sequence[int], at_most: int = 9) -> None:
    """Label a logarithmic axis at the sizes that were run."""
    sizes = sorted(set(sizes))
    step = -(-len(sizes) // at_most) if sizes else 1
    axis.set_major_locator(FixedLocator(sizes[::step]))
    axis.set_minor_locator(FixedLocator([]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))


# Leading digits by how readily they are read off an axis.
_ROUND = ((1,), (2, 5), (1.5, 3, 7), (1.2, 4, 6, 8), (1.1, 1.3, 1.4, 1.6, 1.8, 2.5, 3.5, 9))


def round_values(low: float, high: float, at_most: int = 8) -> list[float]:
    """Round numbers between `low` and `high`, the roundest first, well apart on a logarithmic axis.

    Examples
    --------
    >>> round_values(45, 200)
    [50.0, 70.0, 100.0, 150.0, 200.0]
    """
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    apart = np.log(high / low) / at_most
    ticks: list[float] = []
    # Odder digits are only worth having where there is next to nothing otherwise.
    tries = [(digits, at_most - 3) for digits in _ROUND]
    tries += [(np.arange(100, 1000, step) / 100, 3) for step in (10, 5, 1)]
    for digits, enough in tries:
        if len(ticks) >= enough:
            break
        for value in (float(f"{10.0**d * digit:.6g}") for digit in digits for d in decades):
            near = any(abs(np.log(value / tick)) < apart for tick in ticks)
            if low <= value <= high and not near:
                ticks.append(value)
    return sorted(ticks)


def value_ticks(axis: Axis, low: float, high: float) -> None:
    """Label a logarithmic axis with round numbers, several even within a part of a decade."""
    ticks = round_values(low, high)
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    minor = [10.0**d * s for d in decades for s in range(1, 10)]
    # As many decimals on every label as the label that needs most.
    places = max((len(f"{tick:.10g}".partition(".")[2]) for tick in ticks), default=0)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(FixedLocator([m for m in minor if low <= m <= high]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.{places}f}"))
    axis.set_minor_formatter(NullFormatter())
