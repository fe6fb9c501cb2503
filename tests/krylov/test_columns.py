"""A basis that grows: what is put in is what is seen, on libraries with and without writing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trsvd._arrays.arrays import Arrays
from trsvd._krylov.basis import Columns


@pytest.fixture(params=["float32", "complex128"])
def arrays(backend: Any, request: pytest.FixtureRequest) -> Arrays:
    return Arrays.of_dtype(backend.xp, backend.device, backend.dtype(request.param))


@pytest.fixture
def host(arrays: Arrays, rng: np.random.Generator) -> np.ndarray:
    X = rng.standard_normal((6, 12))
    return (X + 1j * X[::-1] if arrays.is_complex else X).astype(arrays.host_dtype)


def test_append_view_and_growth(arrays: Arrays, backend: Any, host: np.ndarray) -> None:
    columns = Columns(arrays, 6, 3)
    assert (columns.count, columns.capacity) == (0, 3)
    assert columns.view().shape == (6, 0)
    at = 0
    for w in (1, 2, 3, 1, 4):  # beyond the room that there was
        columns.append(arrays.put(host[:, at : at + w]))
        at += w
        assert columns.count == at <= columns.capacity
        assert backend.owns(columns.view())
        assert np.array_equal(arrays.get(columns.view()), host[:, :at])
    assert np.array_equal(arrays.get(columns.view(2)), host[:, 2:at])
    assert np.array_equal(arrays.get(columns.view(1, 4)), host[:, 1:4])
    assert columns.view(3, 3).shape == (6, 0)


def test_overwrite_cuts_what_is_behind(arrays: Arrays, host: np.ndarray) -> None:
    columns = Columns(arrays, 6, 8)
    columns.append(arrays.put(host[:, :8]))
    columns.overwrite(arrays.put(host[:, 8:11]), 2)
    assert columns.count == 5
    assert np.array_equal(arrays.get(columns.view()), host[:, [0, 1, 8, 9, 10]])
    columns.append(arrays.put(host[:, 11:]))
    assert np.array_equal(arrays.get(columns.view()), host[:, [0, 1, 8, 9, 10, 11]])


def test_what_was_put_in_is_not_written_to(arrays: Arrays, host: np.ndarray) -> None:
    columns = Columns(arrays, 6, 4)
    block = arrays.put(host[:, :2].copy())
    columns.append(block)
    columns.overwrite(arrays.put(host[:, 4:6]), 0)
    assert np.array_equal(arrays.get(block), host[:, :2])


def test_grow_keeps_and_never_shrinks(arrays: Arrays, host: np.ndarray) -> None:
    columns = Columns(arrays, 6, 4)
    columns.append(arrays.put(host[:, :3]))
    columns.grow(9)
    assert (columns.count, columns.capacity) == (3, 9)
    columns.grow(2)
    assert columns.capacity == 9
    assert np.array_equal(arrays.get(columns.view()), host[:, :3])


def test_a_copy_is_independent(arrays: Arrays, host: np.ndarray) -> None:
    columns = Columns(arrays, 6, 6)
    columns.append(arrays.put(host[:, :3]))
    twin = columns.copy()
    twin.overwrite(arrays.put(host[:, 5:7]), 0)
    columns.append(arrays.put(host[:, 7:8]))
    assert np.array_equal(arrays.get(columns.view()), host[:, [0, 1, 2, 7]])
    assert np.array_equal(arrays.get(twin.view()), host[:, [5, 6]])


def test_leading_columns_are_seen_and_not_copied(numpy_backend: Any) -> None:
    arrays = Arrays.of_dtype(numpy_backend.xp, numpy_backend.device, "float64")
    columns = Columns(arrays, 6, 4)
    columns.append(np.ones((6, 3)))
    view = columns.view(0, 2)
    assert np.shares_memory(view, columns.view())
    assert view.T.flags.c_contiguous


class Immutable(np.ndarray):
    """An array that cannot be assigned to, as those of JAX."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("array object does not support item assignment")


def test_libraries_without_assignment(numpy_backend: Any) -> None:
    X = np.arange(12.0).reshape(4, 3)
    columns = Columns(Arrays.of_array(X), 4, 5)
    for at, part in [(0, X), (1, -X[:, :2]), (3, 10 + X)]:
        columns._rows = columns._rows.view(Immutable)
        columns.overwrite(part, at)
    assert columns.count == 6
    assert np.array_equal(columns.view(), np.hstack([X[:, :1], -X[:, :2], 10 + X]))
