"""The only module with code for specific array libraries.

Other modules use an `Arrays`: a namespace, a device and a compute dtype, with the few functions
that the array API standard lacks or that a library has in a faster form. Tall arrays need only
products, sums, slices and reductions, so that the same code runs on every library. Small matrices
are factorized on the host, in double precision.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
from array_api_compat import (
    array_namespace,
    is_array_api_obj,
    is_cupy_array,
    is_jax_namespace,
    is_numpy_array,
    is_numpy_namespace,
    is_torch_array,
    is_torch_namespace,
    to_device,
)
from array_api_compat import device as device_of

from trsvd._arrays.dtypes import COMPUTE, SINGLE_OF, converted, describe, dtype_name, is_sparse
from trsvd._arrays.factorizations import Factorizations
from trsvd._arrays.host_blas import compiled_product, product, wide_product
from trsvd._arrays.memory import check_room

Array = Any


HostArray = np.ndarray[Any, np.dtype[Any]]


def is_array(A: object) -> bool:
    """True if ``A`` is an array of a library that follows the array API standard."""
    if type(A) is np.ndarray:
        return True
    dense = str(getattr(A, "layout", "torch.strided")) == "torch.strided"
    return is_array_api_obj(A) and not is_sparse(A) and dense


@dataclass(frozen=True)
class Arrays(Factorizations):
    """Array namespace, device and compute dtype.

    Parameters
    ----------
    xp : module
        An array API namespace.
    device : object
        Device of the arrays, as ``xp`` names it.
    dtype_name : str
        ``"float32"``, ``"float64"``, ``"complex64"`` or ``"complex128"``.
    out_dtype : object
        The dtype of the vectors that are returned to the user.
    """

    xp: Any
    device: Any
    dtype_name: str
    out_dtype: Any

    # ---- making one -----------------------------------------------------------------

    @classmethod
    def of_dtype(cls, xp: Any, device: Any, dtype: Any) -> Arrays:
        """Return the `Arrays` for data of ``dtype``; TypeError if it is not numeric."""
        given = dtype_name(dtype)
        if given not in COMPUTE or not hasattr(xp, given):
            wide = "float32, float64, complex64 or complex128"
            raise TypeError(f"dtype {given} cannot be computed with; convert to {wide} first")
        double = _has_double(xp, device)
        try:
            return _shared(xp, device, given, double)
        except TypeError:  # a device that cannot be looked up
            return _shared.__wrapped__(xp, device, given, double)

    @classmethod
    def of_array(cls, A: Array) -> Arrays:
        """Return the namespace, device and compute dtype for the array ``A``."""
        if type(A) is np.ndarray:
            return _of_numpy(A.dtype)
        return cls.of_dtype(array_namespace(A), device_of(A), A.dtype)

    @classmethod
    def of_sparse(cls, A: Any) -> Arrays:
        """Return the namespace, device and compute dtype for a sparse matrix."""
        return cls.of_dtype(array_namespace(A.data), device_of(A.data), A.dtype)

    @classmethod
    def of_operator(cls, A: Any) -> Arrays:
        """Return the namespace and device for an operator that only has a dtype.

        The namespace is the attribute ``xp`` if there is one, torch for a torch dtype (on
        ``A.device``, or the CPU), CuPy for an operator of cupyx, and NumPy otherwise.
        """
        dtype = getattr(A, "dtype", None)
        if dtype is None:
            raise TypeError(
                f"operator {describe(A)} has no dtype; give it one, as numpy.dtype('float64')"
            )
        xp = getattr(A, "xp", None)
        if xp is None:
            name = "numpy"
            if str(dtype).startswith("torch."):
                name = "torch"
            elif type(A).__module__.startswith("cupyx"):
                name = "cupy"
            xp = _namespace(name)
        else:
            xp = array_namespace(xp.empty(0))
        device = getattr(A, "device", None)
        if device is None:
            device = device_of(xp.empty(0))
        elif is_torch_namespace(xp):
            device = xp.device(device)
        return cls.of_dtype(xp, device, dtype)

    @classmethod
    def common(cls, parts: list[Arrays]) -> Arrays:
        """Return the common namespace and device of ``parts``, with their widest dtype."""
        first = parts[0]
        for part in parts[1:]:
            if part.xp is not first.xp or part.device != first.device:
                raise TypeError(
                    f"operands live in {first.xp.__name__} on {first.device} and in "
                    f"{part.xp.__name__} on {part.device}; bring them to one library and device"
                )
        widest = np.result_type(*[part.host_dtype for part in parts])
        return cls.of_dtype(first.xp, first.device, widest)

    @cached_property
    def keeping(self) -> Arrays:
        """Return a copy that returns vectors in the compute dtype."""
        return Arrays.of_dtype(self.xp, self.device, self.dtype)

    @cached_property
    def in_double(self) -> Arrays:
        """Return a copy in double precision; NumPy's where the library or device has none."""
        if not _has_double(self.xp, self.device):
            return _of_numpy(self.wide_dtype)
        return Arrays.of_dtype(self.xp, self.device, getattr(self.xp, self.wide_dtype.name))

    @cached_property
    def in_single(self) -> Arrays:
        """Return a copy in single precision."""
        return replace(self, dtype_name="complex64" if self.is_complex else "float32")

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        out = dtype_name(self.out_dtype)
        return _unpickle, (self.xp.__name__, self.device, self.dtype_name, out)

    def same_kind(self, other: Arrays) -> bool:
        """True if arrays of both have one namespace, device and precision."""
        return (self.xp, self.device, self.dtype_name) == (other.xp, other.device, other.dtype_name)

    def __str__(self) -> str:
        return f"{self.dtype_name} of {self.xp.__name__} on {self.device}"

    def would_lose_imaginary(self, x: Array) -> bool:
        """True if ``x`` is complex and the compute dtype is real."""
        return not self.is_complex and dtype_name(x.dtype).startswith("complex")

    # ---- facts ----------------------------------------------------------------------

    @cached_property
    def dtype(self) -> Any:
        """Compute dtype, as an object of the namespace."""
        return getattr(self.xp, self.dtype_name)

    @cached_property
    def real_dtype(self) -> Any:
        """Real dtype of the same precision."""
        return self.xp.float32 if self.dtype_name in {"float32", "complex64"} else self.xp.float64

    def dtype_named(self, name: str) -> Any:
        """Return the dtype of this name in the namespace; TypeError if it has none."""
        missing = name in SINGLE_OF and not _has_double(self.xp, self.device)
        dtype = None if missing else getattr(self.xp, name, None)
        if dtype is None:
            library = self.xp.__name__.removeprefix("array_api_compat.")
            raise TypeError(
                f"{library} has no {name} on {self.device}; leave dtype out, or give 'float32'"
            )
        return dtype

    @property
    def is_complex(self) -> bool:
        """True if the compute dtype is complex."""
        return self.dtype_name.startswith("complex")

    @cached_property
    def host_dtype(self) -> Any:
        """NumPy's name of the compute dtype."""
        return np.dtype(self.dtype_name)

    @cached_property
    def wide_dtype(self) -> Any:
        """Double precision of the same kind, on the host, for small matrices."""
        return np.dtype("complex128" if self.is_complex else "float64")

    @cached_property
    def _real_host_dtype(self) -> Any:
        """NumPy's name of the real dtype of the same precision."""
        return np.empty(0, self.host_dtype).real.dtype

    @cached_property
    def eps(self) -> float:
        """Rounding unit of the compute dtype."""
        return float(np.finfo(self.host_dtype).eps)

    @cached_property
    def reads_are_cheap(self) -> bool:
        """True if a value can be read without waiting for a device."""
        return self.device.type == "cpu" if is_torch_namespace(self.xp) else self.on_host

    @cached_property
    def on_host(self) -> bool:
        """True if the arrays are NumPy arrays."""
        return bool(is_numpy_namespace(self.xp))

    # ---- copies between host and device -------------------------------------------------

    def put(self, x: HostArray) -> Array:
        """Copy a host array to the device, in the compute dtype."""
        x = np.asarray(x).astype(self.host_dtype, copy=False)
        if self.on_host:
            return x
        # (A copy also where a single column of a reversed array passes for contiguous.)
        x = np.ascontiguousarray(x) if min(x.strides, default=0) >= 0 else x.copy()
        return self.xp.asarray(x, device=self.device)

    def indices(self, x: HostArray) -> Array:
        """Copy an array of indices to the device."""
        return self.xp.asarray(x, device=self.device)

    def get(self, x: Array) -> HostArray:
        """Copy a device array to the host."""
        if is_numpy_array(x):
            return np.asarray(x)
        if is_torch_array(x):
            if dtype_name(x.dtype) == "bfloat16":  # NumPy has none
                x = x.float()
            return np.asarray(x.detach().cpu().resolve_conj().resolve_neg())
        if is_cupy_array(x):
            return np.asarray(x.get())
        try:
            return np.asarray(x)
        except (RuntimeError, TypeError, ValueError):
            home = device_of(self.xp.empty(0))
            return np.asarray(to_device(x, home))

    def take(self, x: Array, *, copy: bool | None = None) -> Array:
        """Convert ``x`` to this namespace, device and compute dtype; copy only if necessary.

        ``copy=True`` always copies. An array of another library must be on the host, or is copied
        to it.
        """
        if self.on_host:
            x = converted(self.xp, self.get(x), self.host_dtype)
            return x.copy() if copy else x
        if type(x) is np.ndarray:
            return self.put(x.copy() if copy else x)
        if is_torch_array(x):
            x = x.detach().resolve_conj().resolve_neg()
        return self.xp.asarray(x, dtype=self.dtype, device=self.device, copy=copy)

    def like(self, X: Array) -> Array:
        """Convert an array of this namespace to the compute dtype."""
        return converted(self.xp, X, self.dtype)

    def matrix(self, A: Array) -> Array:
        """Convert a user's array: compute dtype, detached, in a layout that BLAS accepts."""
        if type(A) is not np.ndarray or A.dtype != self.host_dtype:
            A = self.take(A)
        if is_numpy_array(A):
            A = np.asarray(A)
            unit = A.dtype.itemsize
            if unit not in A.strides or min(A.strides) < unit:
                A = np.ascontiguousarray(A)
        return A

    def sparse_matrix(self, A: Any) -> Any:
        """Convert a user's sparse matrix to compressed rows, in the compute dtype."""
        if is_torch_array(A):
            return self.sparse_like(_torch_rows(self.xp, A.detach()))
        A = A.tocsr()
        if not A.has_canonical_format:
            A = A.copy()
            A.sum_duplicates()
        return self.sparse_like(A)

    def sparse_like(self, A: Any) -> Any:
        """Convert a matrix in compressed rows to the compute dtype."""
        if is_torch_array(A):
            return A.to(self.dtype)
        return A.astype(self.host_dtype, copy=False)

    def sparse_entries(self, A: Any) -> Array:
        """Return the stored entries of a matrix in compressed rows."""
        return A.values().detach() if is_torch_array(A) else A.data

    def sparse_transpose(self, A: Any) -> Any:
        """Return the transpose of a matrix in compressed rows, in a form with fast products.

        For torch this is a copy: products with compressed columns take 20 times as long (CPU, 2e5
        entries).
        """
        return A.transpose(0, 1).to_sparse_csr() if is_torch_array(A) else A.T

    def sparse_to_dense(self, A: Any) -> Array:
        """Convert a matrix in compressed rows to a dense array."""
        return A.to_dense() if is_torch_array(A) else A.toarray()

    def real_in_double(self, x: Array) -> tuple[Any, Array]:
        """Convert a real array to double precision; return its namespace and the array.

        The namespace is NumPy if this one has no double precision.
        """
        xp = self.in_double.xp
        return xp, converted(xp, x if xp is self.xp else self.get(x), xp.float64)

    def hand_out(self, x: Array) -> Array:
        """Convert ``x``, of this namespace or of the host, to the dtype of the user's data."""
        x = self.put(x) if type(x) is np.ndarray and not self.on_host else x
        return converted(self.xp, x, self.out_dtype)

    def hand_out_values(self, S: HostArray) -> Array:
        """Convert singular values from the host to the real dtype of the user's data.

        Values of a stack are cut at `largest_value`, so that the caller can name those that exceed
        it.
        """
        xp, (dtype, largest) = self.xp, self._values
        if S.ndim == 1 and len(S) and not S[0] <= largest:
            raise ValueError(
                f"the largest singular value, {S[0]:.3g}, exceeds the range of "
                f"{dtype_name(dtype)} ({largest:.3g}); convert A to a wider dtype, or scale it down"
            )
        if not self.on_host:
            S = xp.asarray(S.astype(self._real_host_dtype), device=self.device)
        return converted(xp, S, dtype)

    @property
    def largest_value(self) -> float:
        """Largest singular value that can be returned in the dtype of the user's data."""
        return self._values[1]

    @cached_property
    def _values(self) -> tuple[Any, float]:
        """Return the real dtype of the results, and its largest number."""
        name = dtype_name(self.out_dtype)
        dtype = getattr(self.xp, {"complex64": "float32", "complex128": "float64"}.get(name, name))
        return dtype, float(self.xp.finfo(dtype).max)

    def gaussian(self, rng: np.random.Generator, rows: int, columns: int) -> Array:
        """Return a standard normal block, drawn on the host: all libraries get the same numbers."""
        block = rng.standard_normal((columns, rows))
        if self.is_complex:
            block = block + 1j * rng.standard_normal((columns, rows))
        return self.put(block).T

    def check_room(self, numbers: int, what: str) -> None:
        """MemoryError if ``numbers`` numbers do not fit into the free memory of the host.

        Other devices raise their own error when the memory is allocated.
        """
        if self.reads_are_cheap:
            check_room(numbers * self.host_dtype.itemsize, what)

    def zeros(self, rows: int, columns: int) -> Array:
        """Block of zeros."""
        return self.xp.zeros((rows, columns), dtype=self.dtype, device=self.device)

    # ---- what the standard lacks ------------------------------------------------------

    def as_asked(self) -> AbstractContextManager[Any]:
        """Return a context in which products have the dtype of their factors.

        torch.autocast computes products of float32 in half precision.
        """
        if is_torch_namespace(self.xp):
            within: AbstractContextManager[Any] = self.xp.autocast(self.device.type, enabled=False)
            return within
        return nullcontext()

    def conj(self, X: Array) -> Array:
        """Complex conjugate; the array itself if it is real."""
        return self.xp.conj(X) if self.is_complex else X

    def adjoint(self, X: Array) -> Array:
        """Conjugate transpose of a matrix; a view if the library has views."""
        return self.conj(X.T)

    def product(self, A: Array, X: Array) -> Array:
        """``A @ X`` for a narrow X."""
        return product(A, X) if self.on_host else A @ X

    def product_with_narrower(self, A: Array, X: Array) -> Array:
        """``A @ X`` for an A of lower precision than X.

        (If X is a single vector, it may be rounded to the precision of A.)
        """
        one = self.on_host and X.shape[1] == 1
        Y = compiled_product(A, X.astype(A.dtype), self.host_dtype) if one else None
        if Y is not None:
            return Y
        return self.xp.concat([self.product(self.like(P), X) for P in self.panels(A)], axis=0)

    def added_product(self, C: Array, A: Array, B: Array, beta: float, alpha: float) -> Array:
        """``beta * C + alpha * A @ B`` of matrices or stacks, rounded once where possible."""
        if not alpha:  # torch.baddbmm reads memory that was not written to
            return beta * C
        if is_torch_namespace(self.xp):
            add = self.xp.addmm if A.ndim == 2 else self.xp.baddbmm
            return add(C, A, B, beta=beta, alpha=alpha)
        return beta * C + alpha * (A @ B)

    def wide_product(self, U: Array, Vh: Array) -> Array:
        """``U @ Vh`` for a narrow U and a flat Vh."""
        return wide_product(U, Vh) if self.on_host else U @ Vh

    def adjoint_product(self, A: Array, X: Array) -> Array:
        """``A^H @ X``; conjugates the narrow X instead of A."""
        return self.conj(self.product(A.T, self.conj(X)))

    def real_inner(self, X: Array, Y: Array) -> float:
        """``Re <X, Y>`` of two blocks, on the host."""
        return float(np.real(self.get(self.xp.sum(self.conj(X) * Y))))

    def sparse_product(self, A: Any, X: Array) -> Array:
        """Product with a sparse matrix; a single column as a vector, which is faster."""
        if is_torch_array(X):  # a sparse one is not multiplied by what is still to be conjugated
            return A @ X.resolve_conj()
        if X.shape[1] == 1:
            return (A @ X[:, 0])[:, None]
        return A @ X

    def column_norms(self, X: Array) -> Array:
        """2-norms of the columns, as a real vector on the device."""
        if is_numpy_array(X) and X.shape[1] == 1:
            return np.sqrt(np.vdot(X, X).real.reshape(1)).astype(X.real.dtype, copy=False)
        if self.on_host and not self.is_complex and X.size <= 1 << 14:
            return np.sqrt(np.einsum("ij,ij->j", X, X))
        squares = X * X
        if self.is_complex:
            real, imag = self.xp.real(X), self.xp.imag(X)
            squares = real * real + imag * imag
        return self.xp.sqrt(self.xp.sum(squares, axis=0))

    def replace(self, bad: Array, fresh: Callable[[], Array], X: Array) -> Array:
        """Replace ``bad`` columns of X by those of ``fresh()``, without waiting for a device."""
        if self.reads_are_cheap and not bool(self.xp.any(bad)):
            return X
        return self.xp.where(bad[None, :], fresh(), X)

    def peek(self, flag: Array) -> bool | None:
        """Return the value of a flag; None if that needs a device synchronization."""
        return bool(flag) if self.reads_are_cheap else None

    def roll(self, X: Array, shift: int) -> Array:
        """Shift the rows of X cyclically."""
        shift %= X.shape[0]
        return self.xp.concat([X[-shift:, :], X[:-shift, :]], axis=0) if shift else X

    def fix_phases(self, U: Array, V: Array) -> tuple[Array, Array]:
        """Make the entry of largest modulus of every column of U real and positive.

        U and V are two matrices or two stacks.
        """
        xp = self.xp
        if self.on_host and not self.is_complex:
            if U.ndim == 2:
                lead = np.abs(U).argmax(axis=0)
                entry = U[lead, np.arange(U.shape[1])]
            else:
                lead = np.abs(U).argmax(axis=-2, keepdims=True)
                entry = np.take_along_axis(U, lead, axis=-2)
            sign = np.copysign(U.dtype.type(1), entry)
            return U * sign, V * sign
        lead = xp.argmax(xp.abs(U), axis=-2, keepdims=True)
        here = xp.arange(U.shape[-2], device=self.device)[:, None] == lead
        entry = xp.sum(xp.where(here, U, xp.zeros_like(U)), axis=-2, keepdims=True)
        size = xp.abs(entry)
        size = xp.where(size == 0, xp.ones_like(size), size)
        one = xp.ones_like(entry)
        phase = xp.where(entry == 0, one, xp.conj(entry) / xp.astype(size, entry.dtype))
        return U * phase, V * phase


def _torch_rows(torch: Any, A: Any) -> Any:
    """Convert a sparse tensor to compressed rows without duplicates; refuse invalid indices.

    torch does not check indices by default, and writes out of bounds if they are invalid.
    """
    if A.layout == torch.sparse_coo and A.dense_dim():
        raise ValueError(
            f"A is a hybrid tensor, with {A.dense_dim()} dense dimension; pass one with two sparse "
            "dimensions, e.g. A.to_dense().to_sparse()"
        )
    _without_a_warning(torch)
    try:
        A = _checked_sparse(torch, A)
    except RuntimeError as error:
        raise ValueError(
            f"A breaks the rules of its layout, {A.layout}: {error}; build it from its entries"
        ) from None
    return A if A.layout == torch.sparse_csr else A.to_sparse_coo().coalesce().to_sparse_csr()


def _checked_sparse(torch: Any, A: Any) -> Any:
    """Return the tensor; RuntimeError if indices are out of range, repeated or out of order."""
    checked = {"size": A.shape, "check_invariants": True}
    if A.layout == torch.sparse_coo:
        done = A.is_coalesced()
        return torch.sparse_coo_tensor(A._indices(), A._values(), is_coalesced=done, **checked)
    if A.layout in {torch.sparse_csr, torch.sparse_bsr}:
        parts = A.crow_indices(), A.col_indices(), A.values()
    else:
        parts = A.ccol_indices(), A.row_indices(), A.values()
    return torch.sparse_compressed_tensor(*parts, layout=A.layout, **checked)


@cache
def _without_a_warning(torch: Any) -> None:
    """Suppress torch's one warning that compressed layouts are in beta.

    A user with another layout did not choose them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.zeros((1, 1)).to_sparse_csr()


@lru_cache(maxsize=256)
def _shared(xp: Any, device: Any, given: str, double: bool) -> Arrays:
    """Return the `Arrays` for a dtype name; cached, so that its properties are computed once."""
    if str(device) == "meta":
        raise TypeError(
            "tensors on the device 'meta' have a shape and no entries; pass one that has"
        )
    compute = COMPUTE[given] if double else SINGLE_OF.get(COMPUTE[given], COMPUTE[given])
    is_half = given in {"float16", "bfloat16"}
    return Arrays(xp, device, compute, getattr(xp, given if is_half else compute))


def _has_double(xp: Any, device: Any) -> bool:
    """True if there is double precision, which settings of JAX and devices of torch can lack."""
    if is_jax_namespace(xp):
        return bool(xp.empty(0, dtype=float).dtype.itemsize == 8)
    return not is_torch_namespace(xp) or device.type != "mps"


@cache
def _of_numpy(dtype: np.dtype[Any]) -> Arrays:
    """Return the `Arrays` of NumPy for a dtype; cached, since every call needs it repeatedly."""
    xp = _namespace("numpy")
    return Arrays.of_dtype(xp, device_of(xp.empty(0)), dtype)


def _namespace(name: str) -> Any:
    """Return the array API namespace of an installed library."""
    import importlib

    library = importlib.import_module(name)
    return array_namespace(library.empty(0) if name != "numpy" else np.empty(0))


def _unpickle(xp_name: str, device: Any, dtype: str, out: str) -> Arrays:
    xp = _namespace(xp_name.removeprefix("array_api_compat."))
    return Arrays(xp, device, dtype, getattr(xp, out))


def is_transformed(A: Any) -> bool:
    """True if A is a tensor inside of a transformation of torch.func."""
    import torch

    return bool(torch._C._functorch.is_functorch_wrapped_tensor(A))


def small_on_host(A: Any, largest: int) -> HostArray | None:
    """Return an array or tensor of small matrices on the host as an array of float32 or float64.

    None for anything else, and for matrices of more than ``largest`` bytes. Contiguous memory is
    shared.
    """
    if isinstance(A, np.ndarray):
        X: HostArray = np.asarray(A)
    else:
        if not is_torch_array(A) or A.device.type != "cpu" or str(A.layout) != "torch.strided":
            return None
        try:
            X = A.detach().numpy()
        except (RuntimeError, TypeError):  # no dtype of NumPy, or a view that has to be resolved
            return None
    if X.ndim < 2 or X.dtype.char not in "fd" or not X.dtype.isnative:
        return None
    if not 0 < X.shape[-1] * X.shape[-2] * X.dtype.itemsize <= largest:
        return None
    flags = X.flags
    if flags.aligned and (flags.c_contiguous or (flags.f_contiguous and X.ndim == 2)):
        return X
    return np.array(X, order="C")
