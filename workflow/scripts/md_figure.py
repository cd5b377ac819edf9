"""Draw a robustness test: pictures, coordination, survival and layering against time."""

from __future__ import annotations
