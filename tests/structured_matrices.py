"""Structured matrices from a few small numbers, and the kinds of them that random problems take.

A matrix is described by a tuple: the name of a maker and its arguments. `made_by` makes it, in
double precision; `KINDS` has a hypothesis strategy of descriptions for each kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
from hypothesis import strategies as st

Description = tuple[Any, ...]
MOST = 130  # rows or columns of a core, before rows and columns of zeros are added


def made_by(description: Description, seed: int, dtype: str) -> np.ndarray:
    """Make the matrix of a description.

    Parameters
    ----------
    description : tuple
        The name of a maker, and its arguments.
    seed : int
        Seed of the random entries and vectors.
    dtype : str
        The dtype that the matrix is converted to later; complex ones get complex entries.
    """
    name, *arguments = description
    return MAKERS[name](Random(seed, np.dtype(dtype)), *arguments)


class Random:
    """Random matrices, complex where the dtype is."""

    def __init__(self, seed: int, dtype: np.dtype) -> None:
        self.rng, self.dtype = np.random.default_rng(seed), dtype

    def gaussian(self, *shape: int) -> np.ndarray:
        X = self.rng.standard_normal(shape)
        return X + 1j * self.rng.standard_normal(shape) if self.dtype.kind == "c" else X

    def orthonormal(self, rows: int, columns: int) -> np.ndarray:
        return np.linalg.qr(self.gaussian(rows, columns))[0]

    def coordinates(self, rows: int, columns: int) -> np.ndarray:
        return np.eye(rows)[:, self.rng.permutation(rows)[:columns]]


# ---- makers ----------------------------------------------------------------------------------


def entries(random: Random, rows: tuple[tuple[float, ...], ...]) -> np.ndarray:
    return np.array(rows, dtype=float)


def blocks(random: Random, rows: tuple[tuple[float, ...], ...], copies: int) -> np.ndarray:
    return scipy.linalg.block_diag(*[np.array(rows, dtype=float)] * copies)


def levels(
    random: Random,
    pairs: tuple[tuple[float, int], ...],
    vectors: tuple[bool, bool],
    more: tuple[int, int] = (0, 0),
) -> np.ndarray:
    """Singular values by level and multiplicity; left and right vectors random or coordinates.

    The matrix has ``more`` rows and columns than singular values.
    """
    s = np.repeat([level for level, _ in pairs], [copies for _, copies in pairs])
    return with_values(random, s, vectors, more)


def rank(
    random: Random, r: int, least: float, vectors: tuple[bool, bool], more: tuple[int, int]
) -> np.ndarray:
    """Rank r with singular values between ``least`` and 1."""
    return with_values(random, random.rng.uniform(least, 1, r), vectors, more)


def with_values(
    random: Random, s: np.ndarray, vectors: tuple[bool, bool], more: tuple[int, int]
) -> np.ndarray:
    U, V = (
        (random.orthonormal if drawn else random.coordinates)(len(s) + extra, len(s))
        for drawn, extra in zip(vectors, more, strict=True)
    )
    return (U * s) @ V.conj().T


def equal(random: Random, rows: int, columns: int, copies: int) -> np.ndarray:
    """Copies of one random block on the diagonal: every singular value has so many copies."""
    return scipy.linalg.block_diag(*[random.gaussian(rows, columns)] * copies)


def graph(random: Random, name: str, sizes: tuple[int, ...], form: str, copies: int) -> np.ndarray:
    """A matrix of copies of a graph, side by side."""
    one, count = GRAPHS[name](random, *sizes)
    ends = np.concatenate([one + count * i for i in range(copies)]).astype(int)
    count *= copies
    B = np.zeros((count, len(ends)))
    np.add.at(B, (ends[:, 0], np.arange(len(ends))), 1.0)
    np.subtract.at(B, (ends[:, 1], np.arange(len(ends))), 1.0)
    if form == "incidence":
        return B
    laplacian = B @ B.T
    return laplacian if form == "laplacian" else np.diag(np.diag(laplacian)) - laplacian


def kronecker(random: Random, left: Description, right: Description) -> np.ndarray:
    return np.kron(*(FACTORS[name](random, *sizes) for name, *sizes in (left, right)))


def circulant(
    random: Random, coefficients: tuple[float, ...], shifts: int, block: tuple[int, int]
) -> np.ndarray:
    """``sum_j c_j P^j (x) B_j`` with P the cyclic shift; B_j is random, or 1 for 1 x 1 blocks."""
    P = np.roll(np.eye(shifts), 1, axis=0)
    parts = (np.ones(block) if block == (1, 1) else random.gaussian(*block) for _ in coefficients)
    return sum(
        np.kron(np.linalg.matrix_power(P, j), c * B)
        for j, (c, B) in enumerate(zip(coefficients, parts, strict=True))
    )


def denormal(random: Random, rows: int, columns: int, place: str, size: str) -> np.ndarray:
    """Ordinary entries, and beside them tiny ones of the dtype's own range."""
    info = np.finfo(random.dtype)
    tiny = {
        "least": float(info.smallest_subnormal),
        "few digits": 1000 * float(info.smallest_subnormal),
        "least normal": float(info.tiny),
        "least square": float(info.tiny) ** 0.5,
    }[size]
    A = random.gaussian(rows, columns)
    small = tiny * random.rng.integers(-3, 4, (rows, columns))
    if place == "imaginary":
        return A.real + 1j * small if random.dtype.kind == "c" else A
    if random.dtype.kind == "c":
        small = small + 1j * tiny * random.rng.integers(-3, 4, (rows, columns))
    where = {
        "everywhere": np.ones((rows, columns), dtype=bool),
        "scattered": random.rng.random((rows, columns)) < 0.5,
        "rows": np.repeat(random.rng.random((rows, 1)) < 0.5, columns, axis=1),
        "columns": np.repeat(random.rng.random((1, columns)) < 0.5, rows, axis=0),
    }[place]
    return np.where(where, small, A)


MAKERS: dict[str, Callable[..., np.ndarray]] = {
    maker.__name__: maker
    for maker in (
        entries, blocks, levels, rank, equal, graph, kronecker, circulant, denormal,
    )
}  # fmt: skip


# ---- graphs: their edges, and how many nodes they have ---------------------------------------


def path(random: Random, n: int) -> tuple[np.ndarray, int]:
    return np.column_stack([np.arange(n - 1), np.arange(1, n)]), n


def cycle(random: Random, n: int) -> tuple[np.ndarray, int]:
    return np.column_stack([np.arange(n), np.roll(np.arange(n), -1)]), n


def star(random: Random, n: int) -> tuple[np.ndarray, int]:
    return np.column_stack([np.zeros(n - 1, int), np.arange(1, n)]), n


def bipartite(random: Random, a: int, b: int) -> tuple[np.ndarray, int]:
    return np.argwhere(np.ones((a, b))) + [0, a], a + b


def grid(random: Random, a: int, b: int) -> tuple[np.ndarray, int]:
    nodes = np.arange(a * b).reshape(a, b)
    across = np.column_stack([nodes[:, :-1].ravel(), nodes[:, 1:].ravel()])
    return np.vstack([across, np.column_stack([nodes[:-1].ravel(), nodes[1:].ravel()])]), a * b


def hypercube(random: Random, d: int) -> tuple[np.ndarray, int]:
    nodes = np.arange(2**d)
    pairs = [np.column_stack([nodes, nodes ^ (1 << bit)]) for bit in range(d)]
    edges = np.vstack(pairs) if pairs else np.empty((0, 2), int)
    return edges[edges[:, 0] < edges[:, 1]], 2**d


def regular(random: Random, n: int, degree: int) -> tuple[np.ndarray, int]:
    """``degree`` perfect matchings of 2 n nodes: edges may be double."""
    pairs = [random.rng.permutation(2 * n).reshape(n, 2) for _ in range(degree)]
    return np.vstack(pairs), 2 * n


GRAPHS: dict[str, Callable[..., tuple[np.ndarray, int]]] = {
    make.__name__: make for make in (path, cycle, star, bipartite, grid, hypercube, regular)
}
FACTORS: dict[str, Callable[..., np.ndarray]] = {
    "identity": lambda random, n: np.eye(n),
    "ones": lambda random, m, n: np.ones((m, n)),
    "hadamard": lambda random, p: scipy.linalg.hadamard(2**p).astype(float),
    "random": lambda random, m, n: random.gaussian(m, n),
    "orthogonal": lambda random, n: random.orthonormal(n, n),
    "path": lambda random, n: graph(random, "path", (n,), "adjacency", 1),
    "cycle": lambda random, n: circulant(random, (0.0, 1.0), n, (1, 1)),
    "decaying": lambda random, n: np.diag(0.5 ** np.arange(n)),
}


# ---- kinds -----------------------------------------------------------------------------------

LEVELS = (1.0, 0.0, 2.0, 0.5, 1 - 1e-3, 1 - 1e-6, 1 - 1e-10, 1 - 1e-14, 0.95, 1e-4, 1e-9, 1e-15)
both_kinds_of_vectors = st.tuples(st.booleans(), st.booleans())
few_or_many = st.one_of(st.integers(1, 8), st.integers(1, 60))
more_of_each = st.tuples(*[st.one_of(st.just(0), st.integers(0, 40), st.integers(0, 140))] * 2)


def matrices_of_entries(most: int) -> st.SearchStrategy:
    small = st.sampled_from([0.0, 1.0, -1.0, 2.0])
    shapes = st.tuples(st.integers(1, most), st.integers(1, most))
    return shapes.flatmap(lambda shape: st.tuples(*[st.tuples(*[small] * shape[1])] * shape[0]))


few_levels = st.one_of(
    st.tuples(
        st.just("levels"),
        st.lists(st.tuples(st.sampled_from(LEVELS), st.integers(1, 8)), min_size=1, max_size=6).map(
            tuple
        ),
        both_kinds_of_vectors,
    ),
    st.tuples(st.just("entries"), matrices_of_entries(7)),
    st.tuples(st.just("blocks"), matrices_of_entries(3), st.integers(1, 9)),
)


@st.composite
def equal_blocks(draw: Any) -> Description:
    copies = draw(st.one_of(st.integers(2, 3), st.integers(2, 14)))
    side = st.one_of(st.integers(1, min(9, MOST // copies)), st.integers(1, MOST // copies))
    return "equal", draw(side), draw(side), copies


@st.composite
def graphs(draw: Any) -> Description:
    name = draw(st.sampled_from(list(GRAPHS)))
    side = st.integers(1, 11)
    sizes = {
        "path": st.tuples(st.integers(1, MOST)),
        "cycle": st.tuples(st.integers(1, MOST)),
        "star": st.tuples(st.integers(1, MOST)),
        "bipartite": st.tuples(side, side),
        "grid": st.tuples(side, side),
        "hypercube": st.tuples(st.integers(0, 6)),
        "regular": st.tuples(st.integers(2, 50), st.integers(1, 3)),
    }
    chosen = draw(sizes[name])
    form = draw(st.sampled_from(["adjacency", "laplacian", "incidence"]))
    ends, count = GRAPHS[name](Random(0, np.dtype(float)), *chosen)
    if not len(ends):  # a single node; without an edge there is no incidence matrix
        form = "adjacency"
    most = max(1, min(9, MOST // max(count, len(ends))))
    return "graph", name, chosen, form, draw(st.integers(1, most))


@st.composite
def kronecker_products(draw: Any) -> Description:
    n = st.integers(1, 11)
    factor = st.one_of(
        st.tuples(st.just("identity"), n),
        st.tuples(st.just("hadamard"), st.integers(0, 3)),
        st.tuples(st.just("ones"), n, n),
        st.tuples(st.just("random"), n, n),
        st.tuples(st.sampled_from(["orthogonal", "path", "cycle", "decaying"]), n),
    )
    return "kronecker", draw(factor), draw(factor)


@st.composite
def circulants(draw: Any) -> Description:
    block = draw(st.sampled_from([(1, 1), (2, 2), (3, 3), (2, 3), (5, 2), (7, 7)]))
    shifts = draw(st.integers(1, MOST // max(block)))
    coefficient = st.sampled_from([1.0, -1.0, 2.0, 0.0, 0.5, 1e-3, 1e-8])
    many = draw(st.lists(coefficient, min_size=1, max_size=min(shifts, 5)))
    return "circulant", tuple(many), shifts, block


two_levels = st.tuples(
    st.just("levels"),
    st.tuples(
        st.tuples(st.just(1.0), few_or_many),
        st.tuples(
            st.sampled_from([0.5, 0.9, 0.99, 1 - 1e-3, 1 - 1e-6, 1 - 1e-9, 1 - 1e-13, 1e-3, 1e-7]),
            few_or_many,
        ),
    ),
    both_kinds_of_vectors,
    more_of_each,
)
low_ranks = st.tuples(
    st.just("rank"),
    few_or_many,
    st.sampled_from([0.1, 0.5, 0.9, 1e-3, 1e-6]),
    both_kinds_of_vectors,
    more_of_each,
)
denormals = st.tuples(
    st.just("denormal"),
    st.one_of(st.integers(1, 9), st.integers(1, 90)),
    st.one_of(st.integers(1, 9), st.integers(1, 90)),
    st.sampled_from(["scattered", "rows", "columns", "imaginary", "everywhere"]),
    st.sampled_from(["least", "few digits", "least normal", "least square"]),
)
KINDS: dict[str, st.SearchStrategy] = {
    "few-levels": few_levels,
    "equal-blocks": equal_blocks(),
    "graphs": graphs(),
    "kronecker": kronecker_products(),
    "circulants": circulants(),
    "two-levels": two_levels,
    "low-rank": low_ranks,
    "denormals": denormals,
}
