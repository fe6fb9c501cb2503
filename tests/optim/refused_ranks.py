"""Ranks that rules and optimizers refuse, with the errors."""

import numpy as np

from trsvd import optim

RANKS_REFUSED = [
    *(({"k": k}, ValueError, "k=.*integer of at least 1.*rank_fraction=") for k in (0, -1, 0.5)),
    *(({"k": k}, ValueError, "k=.*integer of at least 1") for k in (0.0, float("nan"))),
    *(({"k": k}, TypeError, "k=.*not a number") for k in (True, np.True_, "3", [3])),
    *(
        ({"k": k}, TypeError, "k=.*not an integer.*rank_fraction=")
        for k in (1.0, 1.5, 2.0, 2.7, float("inf"), np.float32(3.0))
    ),
    ({"k": optim.Constant(1.5)}, TypeError, "k=1.5 is not an integer"),
    ({"k": optim.Piecewise((4, 2.5), (3,))}, TypeError, "k=2.5 is not an integer"),
    ({"k": optim.Cosine(4.0, 0.0, 3)}, ValueError, "k=0.0"),
    ({"k": optim.Cosine(0.5, 0.1, 3)}, ValueError, "k=0.5.*rank_fraction="),
    *(
        ({"rank_fraction": f}, ValueError, "rank_fraction=.*above 0 and at most 1.*k=")
        for f in (0, 0.0, -0.5, 1.5, 4, float("nan"), float("inf"))
    ),
    *(({"rank_fraction": f}, TypeError, "rank_fraction=.*not a number") for f in (True, "0.5")),
    ({"rank_fraction": optim.Cosine(8.0, 0.5, 3)}, ValueError, "rank_fraction=8.0"),
    ({"rank_fraction": optim.Piecewise((0.5, 3), (1,))}, ValueError, "rank_fraction=3"),
    ({"k": 3, "rank_fraction": 0.5}, ValueError, "both of k and rank_fraction"),
    ({}, ValueError, "none of k and rank_fraction.*k=.*rank_fraction="),
]
