"""Plain values: what a configuration may hold, whatever its keys mean."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

# Numbers of a study lie between these; others are slips that overflow later.
SMALLEST, LARGEST = 1e-12, 1e15
# A calculator's own arguments may have any finite number.
FOREIGN = ("args", "kwargs", "neutral_kwargs")


def faults(value: Any, path: str = "", foreign: bool = False) -> Iterator[str]:
    """Yield what is neither text, a finite number of a sensible size, a list nor a mapping."""
    match value:
        case None | bool() | str():
            return
        case int() | float():
            reason = _not_a_number(value, foreign)
            if reason:
                yield f"{path or 'top level'}: {_short(value)} is {reason}"
        case Mapping():
            for key, entry in value.items():
                where = f"{path}.{key}".removeprefix(".")
                if not isinstance(key, str):
                    yield f"{where}: the key {key!r} is no text; write it in quotes"
                yield from faults(entry, where, foreign or key in FOREIGN)
        case list():
            for index, entry in enumerate(value):
                yield from faults(entry, f"{path}[{index}]", foreign)
        case _:
            kind = type(value).__name__
            yield f"{path or 'top level'}: {_short(value)} is a {kind}; write it in quotes"


def _not_a_number(value: float, foreign: bool) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "not a finite number"
    if foreign or value == 0 or SMALLEST <= abs(value) <= LARGEST:
        return None
    return f"too {'large' if abs(value) > LARGEST else 'small'} to mean anything here"


def _short(value: Any) -> str:
    try:
        text = str(value)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) < 40 else f"{text[:40]}…"
