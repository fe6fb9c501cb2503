"""Methods: frozen options that start a run. One file each, or one for a family."""

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

# The names that every method= takes: the canonical ones, and others that stand for a method.
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
