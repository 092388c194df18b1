"""Reading .caffemodel: bytes made by hand, files made by the writer, damaged and hostile files, and memory."""

from __future__ import annotations

import gc
import subprocess
import sys

import numpy as np
import pytest
from caffe_helpers import (
    SMALL,
    V0_TEXT,
    V2_TEXT,
    block,
    by_expectation,
    doubles,
    floats,
    number,
    shape,
    small_weights,
    v2_layer,
    varint,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvstyle.caffe import read_net
from cvstyle.caffe.caffemodel import Weights
from cvstyle.caffe.write import write_caffemodel, write_prototxt
from cvstyle.errors import ModelError
from cvstyle.netdef import LayerDef, NetDef

SIX = np.arange(6, dtype="f4")
LEGACY = number(1, 1) + number(2, 2) + number(3, 1) + number(4, 3)  # num, channels, height, width


@pytest.fixture
def load(tmp_path):
    def load(data: bytes) -> Weights:
        path = tmp_path / "net.caffemodel"
        path.write_bytes(data)
        return Weights(path)

    return load


@pytest.fixture
def refusal(load):
    """The message with which a file, or else a blob of layer 'a' in it, is refused."""

    def refusal(data: bytes) -> str:
        with pytest.raises(ModelError) as caught:
            load(data)["a"]
        message = str(caught.value)
        assert "net.caffemodel" in message and "\n" not in message
        return message

    return refusal


@pytest.mark.parametrize(
    "blob, expected",
    [
        (shape(2, 3) + block(5, floats(*SIX)), SIX.reshape(2, 3)),
        (block(5, floats(*SIX)) + shape(2, 3), SIX.reshape(2, 3)),
        (LEGACY + block(5, floats(*SIX)), SIX.reshape(1, 2, 1, 3)),
        (shape(6) + LEGACY + block(5, floats(*SIX)), SIX),
        (block(5, floats(*SIX)), SIX),
        (shape(2, 3) + b"".join(b"\x2d" + floats(v) for v in SIX), SIX.reshape(2, 3)),
        (b"\x2d" + floats(0) + shape(6) + b"".join(b"\x2d" + floats(v) for v in SIX[1:]), SIX),
        (shape(6) + block(5, floats(0, 1)) + block(5, b"") + block(5, floats(2, 3, 4, 5)), SIX),
        (shape(6) + block(5, floats(0, 1)) + b"".join(b"\x2d" + floats(v) for v in SIX[2:]), SIX),
        (shape(3, 2) + block(8, doubles(*SIX)), SIX.astype("f8").reshape(3, 2)),
        (shape(6) + b"".join(b"\x41" + doubles(v) for v in SIX), SIX.astype("f8")),
        (shape(6) + block(8, doubles(*SIX)) + block(5, floats(9, 9)), SIX.astype("f8")),
        (shape(6) + block(6, floats(*SIX + 1)) + block(5, floats(*SIX)) + block(9, doubles(7)), SIX),
        (shape(6) + b"\x35" + floats(1) + block(5, floats(*SIX)) + block(77, b"new") + number(78, 1), SIX),
        (block(7, b"".join(number(1, d) for d in (2, 3))) + block(5, floats(*SIX)), SIX.reshape(2, 3)),
        (block(7, b"") + block(5, floats(4)), np.array(4, "f4")),
        (shape(0, 3) + block(5, b""), np.empty((0, 3), "f4")),
        (shape(0), np.empty(0, "f4")),
    ],
)
def test_blob_bytes(load, blob, expected):
    (array,) = load(v2_layer("a", blob))["a"]
    assert array.dtype == expected.dtype and array.shape == expected.shape
    np.testing.assert_array_equal(array, expected)
    assert not array.flags.writeable


def test_many_unpacked_values(load):
    values = np.arange(100_000, dtype="<f4")
    records = np.empty((len(values), 5), "u1")
    records[:, 0] = 0x2D
    records[:, 1:] = values.view("u1").reshape(-1, 4)
    (array,) = load(v2_layer("a", records.tobytes() + shape(10, 10_000)))["a"]
    np.testing.assert_array_equal(array, values.reshape(10, -1))


def test_layers_of_all_forms_by_hand(load):
    blob = block(5, floats(1, 2))
    v1 = block(2, block(4, "v1") + block(6, blob) + block(6, blob) + number(5, 4))
    v0 = block(2, block(1, block(1, "v0") + block(2, "conv") + block(50, blob)) + block(2, "x"))
    # As Caffe writes a V0 net after its first upgrade: the name inside, the blobs outside.
    mixed = block(2, block(6, blob) + block(1, block(1, "mixed")))
    weights = load(block(1, "net") + v1 + v0 + mixed + v2_layer("v2", blob) + v2_layer("empty"))
    assert list(weights) == ["v1", "v0", "mixed", "v2"] and len(weights) == 4
    assert [len(weights[name]) for name in weights] == [2, 1, 1, 1]
    assert "empty" not in weights and "v0" in weights
    with pytest.raises(KeyError):
        weights["empty"]


def test_the_last_layer_with_blobs_counts(load):
    one, two = block(5, floats(1)), block(5, floats(2))
    weights = load(v2_layer("a", one) + v2_layer("b", one) + v2_layer("a", two) + v2_layer("a"))
    assert weights["a"][0] == 2 and weights["b"][0] == 1 and len(weights) == 2


def test_arrays_outlive_weights(load):
    weights = load(v2_layer("a", shape(6) + block(5, floats(*SIX))))
    array = weights["a"][0]
    del weights
    gc.collect()
    np.testing.assert_array_equal(array, SIX)


@pytest.mark.parametrize("form", ["V2", "V1", "V0"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_written_models_read_back(tmp_path, form, dtype):
    weights = {name: [blob.astype(dtype) for blob in blobs] for name, blobs in small_weights().items()}
    write_prototxt(tmp_path / "a.prototxt", SMALL, form)
    write_caffemodel(tmp_path / "a.caffemodel", SMALL, weights, form)
    net = read_net(tmp_path / "a.prototxt", tmp_path / "a.caffemodel")
    assert net.weights_source.endswith("a.caffemodel") and set(net.weights) == set(weights)
    for name, blobs in weights.items():
        for got, wanted in zip(net.weights[name], blobs, strict=True):
            assert got.dtype == dtype and got.ndim == (wanted.ndim if form == "V2" else 4)
            np.testing.assert_array_equal(got.reshape(wanted.shape), wanted)


def test_writer_takes_any_array_and_says_what_it_cannot(tmp_path):
    path = tmp_path / "a.caffemodel"
    odd = {"conv1": [np.arange(216).reshape(2, 3, 6, 6)[:, :, ::2, ::2], np.broadcast_to(np.float32(3), (70, 20_000))]}
    write_caffemodel(path, SMALL, odd)
    for got, wanted in zip(Weights(path)["conv1"], odd["conv1"], strict=True):
        np.testing.assert_array_equal(got, wanted)
    elu = NetDef("n", {"x": (1, 1, 1, 1)}, (LayerDef("e", "ELU", ("x",), ("x",), {"alpha": 1.0}),))
    tall = LayerDef("c", "Convolution", ("x",), ("c",), {"kernel_h": 3, "kernel_w": 1})
    for net, form, part in [
        (elu, "V1", "no type ELU"),
        (elu, "V0", "no type ELU"),
        (NetDef("n", {}, (tall,)), "V0", "cannot say kernel_h"),
        (NetDef("n", {}, (LayerDef("s", "Sigmoid", (), (), {"x": 1}),)), "V2", "no parameter message"),
        (NetDef("n", {}, (LayerDef("s", "ReLU", (), (), {"x": 1}),)), "V2", "no field x"),
        (elu, "V3", "unknown"),
    ]:
        with pytest.raises(ModelError, match=part):
            write_caffemodel(path, net, {}, form)
    with pytest.raises(ModelError, match="too many axes"):
        write_caffemodel(path, SMALL, {"conv1": [np.zeros((1,) * 5)]}, "V1")


GOOD = v2_layer("a", shape(6) + block(5, floats(*SIX)))


@pytest.mark.parametrize(
    "data, parts",
    [
        (b"", ["empty"]),
        (V2_TEXT.encode(), ["is text", "swapped"]),
        (b"\n\n\n" + V2_TEXT.encode(), ["is text"]),
        (b"<!doctype html>", ["web page"]),
        (b"version https://git-lfs.github.com/spec/v1\n", ["LFS"]),
        (b"\x89HDF\r\n\x1a\n", ["HDF5"]),
        (b"PK\x03\x04...", ["PyTorch"]),
        (b"\x1f\x8b\x08\x00", ["gzip"]),
        (b"\0" * 100, ["byte 0", "field number 0"]),
        (b"\x0b" * 100, ["byte 0", "wire type 3"]),
        (b"\xff" * 100, ["byte 0", "more than 10 bytes"]),
        (b"\x80" * 5, ["byte 0", "middle of a number"]),
        (LEGACY + block(5, floats(*SIX)), ["no layers", "mean file"]),  # a mean.binaryproto
        (GOOD[:-1], ["byte 0", "cut short"]),
        (v2_layer("first", b"") + GOOD[:-1], [f"byte {len(v2_layer('first', b''))} after layer 'first'", "cut short"]),
        (varint(100 << 3 | 2) + varint(1 << 62) + b"x", ["byte 0", f"{1 << 62} bytes", "only 1"]),
        (block(100, block(1, "a") + varint(7 << 3 | 2) + varint(50)), ["byte 6", "50 bytes"]),
        (v2_layer("a", varint(5 << 3 | 2) + varint(1 << 40) + bytes(8)), ["blob 0 of layer 'a'", "byte"]),
        (v2_layer("a", shape(6) + block(5, b"12345")), ["blob 0 of layer 'a'", "5 bytes of 4-byte"]),
        (v2_layer("a", shape(6) + number(5, 7)), ["blob 0 of layer 'a'", "wire type 0"]),
        (v2_layer("a", shape(2, 2) + block(5, floats(*SIX))), ["'a'", "[2, 2]", "needs 4", "holds 6"]),
        (v2_layer("a", shape(1 << 62, 1 << 62, 4) + block(5, floats(*SIX))), ["'a'", f"needs {1 << 126}", "holds 6"]),
        (v2_layer("a", shape(1 << 32, 1 << 32) + block(5, b"")), ["'a'", f"needs {1 << 64}", "holds 0"]),
        (v2_layer("a", shape(-2, -3) + block(5, floats(*SIX))), ["'a'", "impossible shape [-2, -3]"]),
        (v2_layer("a", shape(*[1] * 33) + block(5, floats(1))), ["'a'", "impossible shape"]),
        (v2_layer("a", number(1, -1) + block(5, b"")), ["'a'", "impossible shape [-1, 0, 0, 0]"]),
        (v2_layer("a", block(7, b"\x0a\xff") + block(5, floats(1))), ["'a'", "damaged header"]),
        (v2_layer("a", block(7, block(1, b"\x80") * 3)), ["'a'", "damaged header"]),
    ],
    ids=by_expectation,
)
def test_refusals(refusal, data, parts):
    message = refusal(data)
    for part in parts:
        assert part in message, message


def test_deep_nesting_and_many_fields(load):
    deep = b""
    for _ in range(300):
        deep = block(1, deep)
    assert list(load(v2_layer("a", block(5, floats(1)) + block(50, deep)) + block(200, deep))) == ["a"]
    for number_of_field in (2, 100):
        assert list(load(block(number_of_field, deep))) == []
    with pytest.raises(ModelError, match="more than 1000000 fields"):
        load(number(50, 0) * 1_000_001)


def test_names_cannot_break_the_line(load):
    weights = load(v2_layer("a\n\x1b[31m" + "b" * 5000, shape(2) + block(5, floats(1))))
    with pytest.raises(ModelError) as caught:
        weights[next(iter(weights))]
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1100


def test_swapped_arguments(tmp_path):
    write_prototxt(tmp_path / "a.prototxt", SMALL)
    write_caffemodel(tmp_path / "a.caffemodel", SMALL, small_weights())
    with pytest.raises(ModelError, match=r"a\.caffemodel: is binary, .* swapped"):
        read_net(tmp_path / "a.caffemodel", tmp_path / "a.prototxt")
    with pytest.raises(ModelError, match=r"a\.prototxt: is text, .* swapped"):
        read_net(tmp_path / "a.prototxt", tmp_path / "a.prototxt")
    with pytest.raises(ModelError, match="no such file"):
        read_net(tmp_path / "a.prototxt", tmp_path / "b.caffemodel")


@pytest.fixture(scope="module")
def small_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    tiny = {"conv1": [np.ones((2, 3), "f4"), np.ones(2, "f8")], "fc": [np.ones((1, 2), "f4")]}
    for form in ("V0", "V1", "V2"):
        write_caffemodel(folder / form, SMALL, tiny, form)
    return folder, [(folder / form).read_bytes() for form in ("V0", "V1", "V2")]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_an_error_or_a_model(small_files, data):
    folder, files = small_files
    content = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(content)))
        change = data.draw(st.sampled_from(["set", "cut", "insert", "truncate"]))
        if change == "truncate":
            del content[at:]
        elif change == "insert":
            content[at:at] = data.draw(st.binary(max_size=12))
        elif change == "cut":
            del content[at : at + data.draw(st.integers(1, 12))]
        elif at < len(content):
            content[at] = data.draw(st.integers(0, 255))
    _all_or_error(folder / "fuzz", bytes(content))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_random_bytes_are_an_error_or_a_model(small_files, content):
    _all_or_error(small_files[0] / "fuzz", content)
    _all_or_error(small_files[0] / "fuzz", block(100, content))
    _all_or_error(small_files[0] / "fuzz", v2_layer("a", content))


def _all_or_error(path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # a file that is still mapped must not be cut
    path.write_bytes(content)
    try:
        weights = Weights(path)
    except ModelError as error:
        assert "\n" not in str(error)
        return
    for name in weights:
        try:
            assert sum(blob.size for blob in weights[name]) * 4 <= len(content)
        except ModelError as error:
            assert "\n" not in str(error)


def test_v0_text_with_v0_weights(tmp_path):
    (tmp_path / "a.prototxt").write_text(V0_TEXT)
    write_caffemodel(tmp_path / "a.caffemodel", SMALL, small_weights(), "V0")
    net = read_net(tmp_path / "a.prototxt", tmp_path / "a.caffemodel")
    assert net.layers == SMALL.layers
    assert [blob.shape for blob in net.weights["conv1"]] == [(4, 3, 3, 3), (1, 1, 1, 4)]


def vgg19() -> tuple[NetDef, dict[str, list[np.ndarray]]]:
    """VGG-19 with constant weights that take no memory."""
    layers, weights, blob, channels = [], {}, "data", 3

    def add(name, kind, top, params, *shapes):
        nonlocal blob
        layers.append(LayerDef(name, kind, (blob,), (top,), params))
        blob = top
        if shapes:
            weights[name] = [np.broadcast_to(np.float32(0.5), each) for each in shapes]

    for group, (count, width) in enumerate([(2, 64), (2, 128), (4, 256), (4, 512), (4, 512)], 1):
        for index in range(1, count + 1):
            name = f"conv{group}_{index}"
            params = {"num_output": width, "pad": [1], "kernel_size": [3]}
            add(name, "Convolution", name, params, (width, channels, 3, 3), (width,))
            add(f"relu{group}_{index}", "ReLU", name, {})
            channels = width
        add(f"pool{group}", "Pooling", f"pool{group}", {"pool": "MAX", "kernel_size": 2, "stride": 2})
    for name, outputs, inputs in [("fc6", 4096, 25088), ("fc7", 4096, 4096), ("fc8", 1000, 4096)]:
        add(name, "InnerProduct", name, {"num_output": outputs}, (outputs, inputs), (outputs,))
    return NetDef("VGG_19", {"data": (1, 3, 224, 224)}, tuple(layers)), weights


READ_VGG = """
import sys
from cvstyle.caffe import caffemodel, graph, read_net

def resident():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmRSS"))
    return int(line.split()[1]) >> 10

start = resident()
net = read_net(sys.argv[1], sys.argv[2])
views = [blob for name in net.weights for blob in net.weights[name]]
opened = resident() - start
total = sum(float(blob.sum()) for name in net.weights if name < "conv5_2" for blob in net.weights[name])
print(opened, resident() - start, sum(blob.size for blob in views), total)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_vgg19_is_read_only_where_it_is_needed(tmp_path):
    """A V1 file of 574 MB: opening it and taking views of all blobs touches next to no page."""
    proto, model = tmp_path / "vgg.prototxt", tmp_path / "vgg.caffemodel"
    net, weights = vgg19()
    try:
        write_prototxt(proto, net, "V1")
        write_caffemodel(model, net, weights, "V1")
        assert model.stat().st_size > 574_000_000
        result = subprocess.run([sys.executable, "-c", READ_VGG, proto, model], capture_output=True, text=True)
    finally:
        model.unlink(missing_ok=True)  # pytest keeps the folders of three runs
    assert result.returncode == 0, result.stderr
    opened, used, values, total = result.stdout.split()
    needed = sum(blob.size for name in weights if name < "conv5_2" for blob in weights[name])
    assert int(values) == sum(blob.size for blobs in weights.values() for blob in blobs)
    assert float(total) == 0.5 * needed
    assert int(opened) < 16 and int(used) < 120  # MB
