"""Methods of the truncated SVD: immutable options that start a run."""

from __future__ import annotations

from trsvd.methods.base import Method, Run
from trsvd.methods.direct import Direct
from trsvd.methods.subspace import BlockKrylov, PowerIteration, RandomizedSVD
from trsvd.methods.trlan import ThickRestartLanczos

__all__ = [
    "ALIASES",
    "METHODS",
    "BlockKrylov",
    "Direct",
    "Method",
    "PowerIteration",
    "RandomizedSVD",
    "Run",
    "ThickRestartLanczos",
]

# Names for method=: the canonical names, and aliases.
METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (ThickRestartLanczos, RandomizedSVD, BlockKrylov, PowerIteration, Direct)
}
ALIASES: dict[str, Method] = {
    "lanczos": ThickRestartLanczos(),
    "randomized": RandomizedSVD(),
    "subspace": PowerIteration(),
    "exact": Direct(),
    "svd": Direct(route="svd"),
    "gram": Direct(route="gram"),
}
