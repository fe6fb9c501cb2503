"""Files of the command line that are damaged or hostile: a clear error each, and no harm done.

No unpickling, no allocation of what a header declares and the file does not have, no index beyond
an edge. Formats and messages are tested with the command line, in `test_cli`.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trsvd._arrays import memory
from trsvd.cli.matrix_files import MatrixFileError, read_matrix

A = np.random.default_rng(0).standard_normal((12, 9)).round(3)
SPARSE = scipy.sparse.csr_array(np.where(np.abs(A) > 1, A, 0.0))
MIB = 2**20


def refused(path: Path, match: str | None = None) -> str:
    """The message with which a file is refused, without more memory than it has bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(MatrixFileError, match=match) as caught:
            read_matrix(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB + 4 * path.stat().st_size
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def npy(array: Any = A, *, shape: Any = None, descr: Any = None, version: Any = (1, 0)) -> bytes:
    """A .npy file whose header may declare what is not there."""
    file = io.BytesIO()
    header = {
        "descr": array.dtype.str if descr is None else descr,
        "fortran_order": False,
        "shape": array.shape if shape is None else shape,
    }
    text = repr(header).encode() + b"\n"
    lengths = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}
    file.write(b"\x93NUMPY" + bytes(version) + struct.pack(lengths[version], len(text)) + text)
    file.write(array.tobytes())
    return file.getvalue()


HUGE = [
    (2**40, 9),
    (12, 2**60),
    (2**62, 2**62),
    (13, 9),
    (-1, 9),
    (12, -9),
    (12.0, 9),
    ("12", 9),
    (True, 9),
    (12, 9, 2**33),
    2**40,
]


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("shape", HUGE)
def test_npy_with_a_shape_that_it_has_not(tmp_path, shape, version):
    path = tmp_path / "A.npy"
    path.write_bytes(npy(shape=shape, version=version))
    refused(path)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("descr", ["|O", [("a", "|O")], [("a", "<f8"), ("b", "|O", (2,))]])
def test_npy_with_objects(tmp_path, descr, version):
    path = tmp_path / "A.npy"
    path.write_bytes(npy(descr=descr, version=version))
    refused(path, "never unpickled")


@pytest.mark.parametrize(
    "descr", ["<f8" * 4000, "M8[ns]", "<U3", [("a", "<f8")], "|V8", "<f16", "nonsense", 3, None]
)
def test_npy_with_an_odd_dtype(tmp_path, descr):
    path = tmp_path / "A.npy"
    path.write_bytes(npy(descr=descr or ""))
    refused(path)


def test_npy_with_a_nested_header(tmp_path):
    """Neither the parser nor the stack gives way."""
    for text in (b"(" * 9000, b"{'descr': " * 500, b"-" * 9999 + b"1", b"\x00" * 9000):
        path = tmp_path / "A.npy"
        path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text)
        refused(path)


def test_npy_with_a_header_longer_than_the_file(tmp_path):
    path = tmp_path / "A.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}")
    refused(path)


# ---- .npz --------------------


def npz(path: Path, **changes: Any) -> Path:
    """A sparse matrix as scipy writes it, but for what is changed."""
    members: dict[str, Any] = {
        "format": np.array(b"csr"),
        "shape": np.array(SPARSE.shape),
        "data": SPARSE.data,
        "indices": SPARSE.indices,
        "indptr": SPARSE.indptr,
        "_is_array": np.array(True),
    }
    members.update(changes)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            if value is not None:
                archive.writestr(f"{name}.npy", value if isinstance(value, bytes) else npy(value))
    return path


def changed(array: np.ndarray, at: int, value: int) -> np.ndarray:
    array = array.copy()
    array[at] = value
    return array


def test_npz_unchanged_is_read(tmp_path):
    assert np.array_equal(read_matrix(npz(tmp_path / "A.npz")).toarray(), SPARSE.toarray())


@pytest.mark.parametrize("format_", [b"csr", b"csc"])
@pytest.mark.parametrize("index", [9, 12, 10**6, -1, -(10**6), 2**31 - 1])
def test_npz_with_an_index_out_of_range(tmp_path, index, format_):
    """A product with it would read beyond the edge: it ended the process."""
    B = SPARSE.asformat(format_.decode())
    if (format_, index) == (b"csc", 9):
        index = 12  # 12 rows
    path = npz(
        tmp_path / "A.npz",
        format=np.array(format_),
        indices=changed(B.indices, 3, index),
        indptr=B.indptr,
        data=B.data,
    )
    refused(path)


@pytest.mark.parametrize("at", [0, 3, 12])
@pytest.mark.parametrize("value", [-5, 10**6, 2**31 - 1])
def test_npz_with_pointers_out_of_order(tmp_path, at, value):
    refused(npz(tmp_path / "A.npz", indptr=changed(SPARSE.indptr, at, value)))


@pytest.mark.parametrize("rows", [-1, 9])
def test_npz_in_coordinates_out_of_range(tmp_path, rows):
    B = SPARSE.tocoo()
    path = npz(
        tmp_path / "A.npz",
        format=np.array(b"coo"),
        row=B.coords[0],
        col=changed(B.coords[1], 2, rows),
        indices=None,
        indptr=None,
    )
    refused(path)


@pytest.mark.parametrize("name", ["data", "indices", "indptr", "shape"])
@pytest.mark.parametrize("shape", [(2**40,), (2**62, 2**62), (2**33, 2**10)])
def test_npz_with_a_member_that_declares_more_than_it_has(tmp_path, shape, name):
    path = npz(tmp_path / "A.npz", **{name: npy(SPARSE.data, shape=shape)})
    refused(path, "declares")


def test_npz_with_objects(tmp_path):
    refused(npz(tmp_path / "A.npz", data=npy(SPARSE.data, descr="|O")), "never unpickled")


def test_npz_that_unpacks_to_more_than_there_is_room_for(tmp_path, monkeypatch):
    """A thousandth of it is in the file."""
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**27)
    path = npz(tmp_path / "A.npz", data=np.zeros(2**25 + 2**20))
    assert path.stat().st_size < MIB
    with pytest.raises(MatrixFileError, match="does not fit into memory"):
        read_matrix(path)


def test_npz_with_more_rows_than_there_is_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 2**27)
    path = npz(
        tmp_path / "A.npz",
        format=np.array(b"csc"),
        shape=np.array([2**40, 9]),
        indptr=SPARSE.tocsc().indptr,
        indices=SPARSE.tocsc().indices,
    )
    refused(path, "does not fit into memory")


# ---- .mtx --------------------


HEAD = "%%MatrixMarket matrix "


@pytest.mark.parametrize(
    "text",
    [
        "coordinate real general\n3 3 1\n4 1 1.0\n",
        "coordinate real general\n3 3 1\n1 4 1.0\n",
        "coordinate real general\n3 3 1\n0 1 1.0\n",
        "coordinate real general\n3 3 1\n-1 1 1.0\n",
        "coordinate real general\n3 3 1\n99999999999999999999 1 1.0\n",
        "coordinate real general\n3 3 2\n1 1 1.0\n",
        "coordinate real general\n3 3 1\n1 1\n",
        "coordinate real general\n3 3 1\n1 1 one\n",
        "coordinate real general\n-3 3 1\n1 1 1.0\n",
        "coordinate real general\n3 3 -1\n1 1 1.0\n",
        "coordinate real general\n3 3 99999999999999\n1 1 1.0\n",
        "coordinate pattern general\n1000000000 1000000000 999999999\n1 1\n",
        "array real general\n3 3\n1.0\n",
        "array real general\n1000000 1000000\n1.0\n",
        "array real symmetric\n1000000 1000000\n1.0\n",
        "array real general\n4000000000 4000000000\n1.0\n",
        "array real general\n99999999999999999999 1\n1.0\n",
        "array real general\n",
        "tensor real general\n3 3\n",
        "array pattern general\n1 1\n1\n",
        "array quaternion general\n1 1\n1\n",
        "array real magic\n1 1\n1\n",
        "coordinate real symmetric\n3 4 1\n1 1 1\n",
    ],
)
def test_mtx_that_is_not_what_it_says(tmp_path, text):
    path = tmp_path / "A.mtx"
    path.write_text(HEAD + text)
    refused(path)


def mtx(tmp_path: Path, text: str) -> np.ndarray:
    path = tmp_path / "A.mtx"
    path.write_text(f"{HEAD}{text}")
    B = read_matrix(path)
    return B.toarray() if scipy.sparse.issparse(B) else B


@pytest.mark.parametrize("form", ["array", "coordinate"])
@pytest.mark.parametrize(
    ("symmetry", "matrix"),
    [
        ("general", A),
        ("general", A + 1j * A[::-1]),
        ("general", np.arange(12).reshape(3, 4)),
        ("symmetric", A[:9] + A[:9].T),
        ("skew-symmetric", A[:9] - A[:9].T),
        ("hermitian", A[:9] + A[:9].T + 1j * (A[:9] - A[:9].T)),
    ],
)
def test_mtx_as_scipy_writes_it(tmp_path, form, symmetry, matrix):
    path = tmp_path / "A.mtx"
    held = scipy.sparse.coo_array(matrix) if form == "coordinate" else matrix
    scipy.io.mmwrite(path, held, symmetry=symmetry, precision=17)
    B = read_matrix(path)
    B = B.toarray() if scipy.sparse.issparse(B) else B
    assert B.dtype == matrix.dtype
    assert np.array_equal(B, matrix)


def test_mtx_with_blanks_comments_and_repeated_entries(tmp_path):
    text = "coordinate real general\n% a\n\n  % b\n 2 2 3\n 1   1\t1e0\n\n1 1 2\n% c\n2 1 -3\n\n"
    assert np.array_equal(mtx(tmp_path, text.replace("  % b\n", "")), [[3, 0], [-3, 0]])
    empty = mtx(tmp_path, "coordinate real general\n2 3 0\n")
    assert np.array_equal(empty, np.zeros((2, 3)))


def test_mtx_as_it_should_be(tmp_path):
    path = tmp_path / "A.mtx"
    path.write_text(f"{HEAD}array real symmetric\n2 2\n1\n2\n3")
    assert np.array_equal(read_matrix(path), [[1, 2], [2, 3]])
    path.write_text(f"{HEAD}coordinate pattern general\n2 3 2\n1 1\n2 3")
    assert np.array_equal(read_matrix(path).toarray(), [[1, 0, 0], [0, 0, 1]])


# ---- .safetensors --------------------


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype: str = "F64", shape: Any = (2, 2), offsets: Any = (0, 32)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        safetensors(tensor(shape=(2**40, 2**40)), bytes(32)),
        safetensors(tensor(shape=(2**33, 2**33), offsets=(0, 2**63)), bytes(32)),
        safetensors(tensor(offsets=(0, 2**63)), bytes(32)),
        safetensors(tensor(offsets=(32, 0)), bytes(32)),
        safetensors(tensor(offsets=(-8, 24)), bytes(32)),
        safetensors(tensor(offsets=(8, 40)), bytes(32)),
        safetensors(tensor(offsets=[0]), bytes(32)),
        safetensors(tensor(shape=(-2, -2)), bytes(32)),
        safetensors(tensor(shape=[]), bytes(8)),
        safetensors(tensor(shape="22"), bytes(32)),
        safetensors(tensor(dtype="F1024"), bytes(32)),
        safetensors(tensor(dtype="BF16", shape=(2**40, 2**40)), bytes(32)),
        safetensors(tensor(dtype="BF16", offsets=(0, 32)), bytes(32)),
        safetensors(tensor(), bytes(31)),
        safetensors(tensor(), bytes(33)),
        safetensors({**tensor(), "v": tensor()["w"]}, bytes(32)),
        safetensors(tensor(), bytes(32), length=2**63),
        safetensors(tensor(), bytes(32), length=2**40),
        safetensors(tensor(), bytes(32), length=3),
        safetensors(b"[" * 100_000),
        safetensors(b'{"w": ' * 50_000),
        safetensors(b"\xff\xfe{}"),
        safetensors([1, 2]),
        safetensors({"w": 3}),
        safetensors({"w": {"dtype": "F64"}}),
        safetensors({}),
        safetensors({"__metadata__": {"a": 1}}),
        struct.pack("<Q", 2**64 - 1),
        b"\x00\x00",
    ],
)
def test_hostile_safetensors(tmp_path, content):
    path = tmp_path / "A.safetensors"
    path.write_bytes(content)
    refused(path)


def test_safetensors_as_they_should_be(tmp_path):
    path = tmp_path / "A.safetensors"
    path.write_bytes(safetensors(tensor(), np.arange(4.0).tobytes()))
    assert np.array_equal(read_matrix(path), [[0, 1], [2, 3]])
    path.write_bytes(safetensors(tensor("BF16", offsets=(0, 8)), bytes([0, 63] * 4)))
    assert np.array_equal(read_matrix(path), np.full((2, 2), 0.5))


# ---- fuzzing --------------------


def _written(write: Any) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


SEEDS = {
    ".npy": [npy(), npy(A.astype("f4"), version=(2, 0))],
    ".npz": [
        _written(lambda file, form=form: scipy.sparse.save_npz(file, SPARSE.asformat(form)))
        for form in ("csr", "csc", "coo", "bsr", "dia")
    ]
    + [
        _written(lambda file: scipy.sparse.save_npz(file, SPARSE, compressed=False)),
    ],
    ".mtx": [
        _written(lambda file: scipy.io.mmwrite(file, SPARSE)),
        _written(lambda file: scipy.io.mmwrite(file, A)),
        _written(lambda file: scipy.io.mmwrite(file, SPARSE @ SPARSE.T, symmetry="symmetric")),
    ],
    ".safetensors": [safetensors(tensor(), np.arange(4.0).tobytes())],
}

NUMBERS = [b"0", b"-1", b"99999999999", b"18446744073709551616", b"1e400", b"nan", b"\xff", b"\n"]


@st.composite
def damaged(draw: Any) -> tuple[str, bytes]:
    """A good file of some format, cut, overwritten, or with a number replaced."""
    suffix = draw(st.sampled_from(sorted(SEEDS)))
    content = bytearray(draw(st.sampled_from(SEEDS[suffix])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["byte", "bytes", "cut", "number", "double"]))
        if kind == "byte" and content:
            content[at] = draw(st.integers(0, 255))
        elif kind == "bytes":
            content[at : at + 4] = draw(st.binary(max_size=12))
        elif kind == "cut":
            del content[at:]
        elif kind == "number":
            digits = [i for i, byte in enumerate(content) if chr(byte).isdigit()]
            if digits:
                place = digits[at % len(digits)]
                content[place : place + 1] = draw(st.sampled_from(NUMBERS))
        else:
            content[at:at] = content[at : at + 40]
    return suffix, bytes(content)


@settings(
    max_examples=600,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(damaged())
def test_damaged_files_are_read_or_refused(file):
    """What is read is a matrix, and products with it do no harm."""
    suffix, content = file
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"A{suffix}"
        path.write_bytes(content)
        try:
            B = read_matrix(path)
        except MatrixFileError:
            return
        assert len(B.shape) == 2
        assert 0 not in B.shape
        if max(B.shape) > 10**6:
            return
        with np.errstate(all="ignore"):
            assert (B @ np.ones(B.shape[1])).shape == (B.shape[0],)
            assert (B.T @ np.ones(B.shape[0])).shape == (B.shape[1],)
        del B


def test_npz_with_something_else_in_it(tmp_path):
    path = npz(tmp_path / "A.npz")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "measured twice")
    assert np.array_equal(read_matrix(path).toarray(), SPARSE.toarray())


def test_npz_with_one_dimension(tmp_path):
    path = tmp_path / "a.npz"
    scipy.sparse.save_npz(path, scipy.sparse.coo_array(np.arange(4.0)))
    refused(path)
