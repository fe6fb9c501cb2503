"""What Lanczos steps from a random vector tell about the largest singular value."""

from __future__ import annotations

import math

# Probability that a random start, or a random check, misses a singular value.
FAILURE_PROBABILITY = 1e-3
# From this tolerance on, triplets can meet it before the leading values have appeared. The check
# then continues until the largest remaining value is known to the tolerance.
LOOSE = 1e-3


def certified_eta(n: int, steps: int, delta: float) -> float:
    """Return the eta that ``steps`` Lanczos steps from a random n-vector certify.

    Except with probability ``delta``, a singular value of at least ``(1 + eta) s`` gives a Ritz
    value of at least ``s``: Kuczynski and Wozniakowski, doi:10.1137/0613066, theorem 4.1.
    """
    root = math.log(1.648 * math.sqrt(n) / delta) / (2 * steps - 1)
    return 1 / math.sqrt(1 - root**2) - 1 if root < 1 else math.inf


def steps_for(n: int, eta: float, delta: float) -> int:
    """Return the number of steps that certify ``eta``; the inverse of `certified_eta`."""
    root = math.sqrt(1 - 1 / (1 + eta) ** 2)
    return math.ceil((math.log(1.648 * math.sqrt(n) / delta) / root + 1) / 2)
