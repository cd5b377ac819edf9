"""Draw learning curves by pre-training size (as in Fig. 2) or by label source (as in Fig. 3)."""

from __future__ import annotations
