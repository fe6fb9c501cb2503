"""Matrices of checkpoint files in each format, and files that are refused."""

from __future__ import annotations

import json
import mmap
import os
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from trsvd._arrays import memory
from trsvd.spectrum import CheckpointError, spectra, spectrum_of
from trsvd.spectrum.checkpoints import group_shards, open_checkpoint

RNG = np.random.default_rng(0)
A = RNG.standard_normal((12, 7)).astype("float32")
B = RNG.standard_normal((5, 9)).astype("float32")
TENSORS = {"a.weight": A, "a.bias": np.ones(7, "float32"), "b": B, "steps": np.arange(6)}


def names(path):
    return [matrix.name for matrix in open_checkpoint([path]).matrices]


def assert_same(found, expected):
    """The spectrum of what was stored, which is known exactly."""
    assert np.allclose(found.values, spectrum_of(expected).values, rtol=0, atol=1e-14 * 30)
    assert found.shape == expected.shape


def raw_safetensors(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


# ---- formats --------------------------------------------------------------------------------


def written(folder, kind):
    path = folder / f"model.{kind.removeprefix('packed.')}"
    if kind == "safetensors":
        save_file(TENSORS, path)
    elif kind == "npz":
        np.savez(path, **TENSORS)
    elif kind == "packed.npz":
        np.savez_compressed(path, **TENSORS)
    else:
        torch = pytest.importorskip("torch")
        torch.save({name: torch.from_numpy(array) for name, array in TENSORS.items()}, path)
    return path


@pytest.mark.parametrize("kind", ["safetensors", "npz", "packed.npz", "pt", "pth", "bin"])
def test_formats(tmp_path, kind):
    path = written(tmp_path, kind)
    before = path.read_bytes()
    first, second = spectra(path)
    assert (first.name, second.name) == ("a.weight", "b")
    assert first.dtype == "float32"
    assert_same(first, A)
    assert_same(second, B)
    checkpoint = open_checkpoint([str(path)])
    assert checkpoint.skipped == {"vectors or scalars": 1, "of integers or booleans": 1}
    assert path.read_bytes() == before


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", "<c8", "<c16"])
def test_npy(tmp_path, dtype, order):
    path = tmp_path / "w.npy"
    X = np.asarray(A + (1j * A[::-1] if "c" in dtype else 0)).astype(dtype, order=order)
    np.save(path, X)
    [spectrum] = spectra(path)
    assert spectrum.name == "w"
    assert_same(spectrum, X)
    np.savez(tmp_path / "w.npz", X)
    [spectrum] = spectra(tmp_path / "w.npz")
    assert spectrum.name == "arr_0"
    assert_same(spectrum, X)


def test_half_precision(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_tensors

    for dtype in (torch.bfloat16, torch.float16):
        tensors = {"a": torch.from_numpy(A).to(dtype), "odd": torch.ones(3, dtype=dtype)}
        save_tensors(tensors, tmp_path / "m.safetensors")
        torch.save(tensors, tmp_path / "m.pt")
        for name in ("m.safetensors", "m.pt"):
            [spectrum] = spectra(tmp_path / name)
            assert spectrum.dtype == str(dtype).removeprefix("torch.")
            assert_same(spectrum, tensors["a"].float().numpy())


def test_safetensors_need_no_torch_and_are_in_natural_order(tmp_path):
    path = tmp_path / "m.safetensors"
    save_file({f"layer.{i}.w": A for i in (10, 9, 1)}, path)
    assert names(path) == ["layer.1.w", "layer.9.w", "layer.10.w"]


def test_nested_dictionaries_and_old_files_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    a = torch.from_numpy(A)
    content = {"model": {"w": a.T}, "optimizer": {"state": {0: {"m": a}}, "lr": 0.1}, "list": [a]}
    for zipped in (True, False):
        path = tmp_path / "m.pt"
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        assert names(path) == ["model.w", "optimizer.state.0.m", "list.0"]
        assert_same(next(spectra(path)), A.T)
    torch.save(torch.nn.Parameter(a), path)
    assert names(path) == ["m"]


def test_tensors_that_numpy_cannot_show_are_counted(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "m.pt"
    a = torch.from_numpy(A)
    torch.save({"a": a, "8": a.to(torch.float8_e4m3fn), "meta": a.to("meta")}, path)
    checkpoint = open_checkpoint([path])
    assert [matrix.name for matrix in checkpoint.matrices] == ["a"]
    assert checkpoint.skipped == {"of dtype float8_e4m3fn": 1, "of dtype float32": 1}
    header = {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "F8_E4M3", "shape": [2, 2], "data_offsets": [16, 20]},
    }
    data = np.eye(2, dtype="<f4").tobytes() + b"0000"
    found = open_checkpoint([raw_safetensors(tmp_path / "m.safetensors", header, data)])
    assert found.skipped == {"of dtype F8_E4M3": 1}


def test_shapes(tmp_path):
    """Convolutions are matrices, stacks are split, rows and columns are vectors."""
    path = tmp_path / "m.npz"
    stack = RNG.standard_normal((3, 20, 16))
    kernels = RNG.standard_normal((8, 4, 3))
    long_kernels = RNG.standard_normal((8, 4, 20))
    images = RNG.standard_normal((6, 2, 3, 3))
    row = np.ones((1, 9))
    np.savez(
        path, experts=stack, small=kernels, pos_conv=long_kernels, image=images, row=row, col=row.T,
        none=np.zeros((0, 4)), scalar=np.float64(3),
    )  # fmt: skip
    found = {spectrum.name: spectrum for spectrum in spectra(path)}
    expected = {
        "small": kernels.reshape(8, 12),
        "pos_conv": long_kernels.reshape(8, 80),
        "image": images.reshape(6, 18),
        **{f"experts[{i}]": stack[i] for i in range(3)},
    }
    assert set(found) == set(expected)
    for name, X in expected.items():
        assert_same(found[name], X)
    assert open_checkpoint([path]).skipped == {"vectors or scalars": 3, "empty": 1}


def test_members_of_an_archive_are_mapped(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, first=np.arange(5), a=A, b=np.asfortranarray(B))
    matrices = open_checkpoint([path]).matrices
    for matrix in matrices:
        below = matrix.read()
        while isinstance(below, np.ndarray):
            below = below.base
        assert isinstance(below, mmap.mmap)
    for matrix, X in zip(matrices, (A, B), strict=True):
        assert np.array_equal(matrix.read(), X)


# ---- shards ---------------------------------------------------------------------------------


def shards(folder):
    paths = [folder / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    save_file({"a": A}, paths[0])
    save_file({"b": B}, paths[1])
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": paths[0].name, "b": paths[1].name}}))
    return paths, index


def test_shards(tmp_path):
    paths, index = shards(tmp_path)
    for given in (paths, [tmp_path], [index]):
        assert [one.name for one in spectra(*given)] == ["a", "b"]
    index.unlink()
    assert names(tmp_path) == ["a", "b"]
    other = tmp_path / "other.pt"
    assert group_shards([paths[1], other, paths[0]]) == [[paths[1], paths[0]], [other]]


def test_missing_shards(tmp_path):
    paths, index = shards(tmp_path)
    with pytest.raises(CheckpointError, match="one of 2 shards, and number 2 was not given"):
        group_shards(paths[:1])
    paths[1].unlink()
    with pytest.raises(CheckpointError, match="which is missing"):
        names(index)
    index.unlink()
    with pytest.raises(CheckpointError, match="number 2"):
        names(tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 100000]
    + [json.dumps({"weight_map": {"a": name}}) for name in ("../x.safetensors", "/etc/passwd", 3)],
)
def test_indices_that_are_refused(tmp_path, content):
    save_file({"a": A}, tmp_path.parent / "x.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        names(index)


def test_one_name_in_two_files(tmp_path):
    for name in ("x.safetensors", "y.safetensors"):
        save_file({"a": A}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"'a' is in .*x\.safetensors too"):
        list(spectra(tmp_path / "x.safetensors", tmp_path / "y.safetensors"))
    with pytest.raises(CheckpointError, match="has 2 checkpoints"):
        names(tmp_path)


# ---- refused files --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "npz", "packed.npz", "pt", "npy"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files(tmp_path, kind, part):
    if kind == "npy":
        path = tmp_path / "m.npy"
        np.save(path, A)
    else:
        path = written(tmp_path, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(CheckpointError) as caught:
        list(spectra(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"[1]",
        b"\xff\xfe",
        b'{"a": 1}',
        b"[" * 100000,
        b'{"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}, "a": {}}',
        {"a": ENTRY | {"data_offsets": [0, 32]}},
        {"a": ENTRY | {"data_offsets": [-16, 0]}},
        {"a": ENTRY | {"data_offsets": [16, 0]}},
        {"a": ENTRY | {"data_offsets": [0, 15]}},
        {"a": ENTRY | {"data_offsets": [0]}},
        {"a": ENTRY | {"data_offsets": [0.0, 16.0]}},
        {"a": ENTRY | {"data_offsets": [False, 16]}},
        {"a": ENTRY | {"shape": [-2, -2]}},
        {"a": ENTRY | {"shape": [2**40, 2**40]}},
        {"a": ENTRY | {"shape": "22"}},
        {"a": ENTRY | {"dtype": ["F32"]}},
        {"a": {"shape": [2, 2]}},
    ],
    ids=range(18),
)
def test_hostile_headers(tmp_path, header):
    path = raw_safetensors(tmp_path / "m.safetensors", header, bytes(16))
    with pytest.raises(CheckpointError, match=r"m\.safetensors: ") as caught:
        list(spectra(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


@pytest.mark.parametrize("length", [2**63, 2**40, 10**9, 17])
def test_lengths_of_headers_are_checked_before_they_are_read(tmp_path, length):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"a": 1}')
    with pytest.raises(CheckpointError, match="its header should have"):
        names(path)


def test_pickles_run_nothing(tmp_path):
    pytest.importorskip("torch")
    mark = tmp_path / "mark"

    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    for name in ("m.pt", "m.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(Hostile()))
        with pytest.raises(CheckpointError, match="cannot be read as tensors"):
            names(tmp_path / name)
    np.savez(tmp_path / "m.npz", a=np.array([[Hostile()]], dtype=object))
    np.save(tmp_path / "m.npy", np.array([[Hostile()]], dtype=object))
    for name in ("m.npz", "m.npy"):
        with pytest.raises(CheckpointError):
            names(tmp_path / name)
    assert not mark.exists()


def test_archives_that_declare_more_than_they_have(tmp_path):
    path = tmp_path / "m.npz"
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**30, 2**30)}
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(CheckpointError, match="is said to have 0 bytes"):
        names(path)


def test_damaged_bytes_in_an_archive(tmp_path):
    path = tmp_path / "m.npz"
    np.savez_compressed(path, a=A)
    data = bytearray(path.read_bytes())
    data[200:210] = bytes(10)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="may be damaged"):
        list(spectra(path))


def test_what_cannot_be_opened(tmp_path):
    save_file({"bias": np.ones(3, "float32")}, tmp_path / "v.safetensors")
    (tmp_path / "m.txt").write_text("x")
    (tmp_path / "e.safetensors").write_text("")
    (tmp_path / "folder").mkdir()
    for name, text in {
        "v.safetensors": "no matrix of floating-point numbers; skipped: 1 vectors or scalars",
        "m.txt": "files ending in '.txt' are not known; known are .safetensors, .pt",
        "e.safetensors": "the file is empty",
        "folder": "no checkpoint in this folder",
        "none.pt": "no such file",
        "x" * 300 + ".pt": "cannot be read: File name too long",
    }.items():
        with pytest.raises(CheckpointError, match=text):
            names(tmp_path / name)


def test_without_torch_the_error_says_so(tmp_path, monkeypatch):
    path = tmp_path / "m.pt"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CheckpointError, match="needs PyTorch to be read; install torch"):
        names(path)


def test_control_characters_of_names_are_escaped_in_messages(tmp_path):
    header = {"\x1b[31m\nname": ENTRY | {"data_offsets": [0, 99]}}
    path = raw_safetensors(tmp_path / "m.safetensors", header, bytes(16))
    with pytest.raises(CheckpointError) as caught:
        names(path)
    assert r"\x1b[31m\nname" in str(caught.value)
    assert str(caught.value).isprintable()


def test_what_does_not_fit_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    np.savez_compressed(path, a=A)
    monkeypatch.setattr(memory, "_SMALL", 0)
    monkeypatch.setattr(memory, "free_bytes", lambda: 10)
    with pytest.raises(CheckpointError, match=r"does not fit into memory: 'a' would take .*end"):
        list(spectra(path))
    np.savez(path, a=A)
    with pytest.raises(CheckpointError, match=r"a: does not fit into memory: a copy of a matrix"):
        list(spectra(path))
