"""Reading .prototxt: three forms, inputs, train_val files, and everything that can be wrong with a file."""

from __future__ import annotations

import os

import pytest
from caffe_helpers import SMALL, V0_TEXT, V1_TEXT, V2_TEXT, by_expectation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvstyle.caffe import read_net
from cvstyle.caffe.write import write_prototxt
from cvstyle.errors import ModelError

HEAD = 'input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'


@pytest.fixture
def read(tmp_path):
    def read(text: str | bytes, phase: str = "TEST"):
        path = tmp_path / "net.prototxt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_net(path, phase=phase)

    return read


@pytest.fixture
def refusal(read):
    def refusal(text: str | bytes) -> str:
        with pytest.raises(ModelError) as caught:
            read(text)
        message = str(caught.value)
        assert "net.prototxt" in message and "\n" not in message
        return message

    return refusal


@pytest.mark.parametrize("text", [V2_TEXT, V1_TEXT, V0_TEXT], ids=["V2", "V1", "V0"])
def test_three_forms_are_one_net(read, text):
    net = read(text)
    assert net.name == SMALL.name and net.inputs == SMALL.inputs
    assert net.layers == SMALL.layers
    assert net.weights == {} and net.weights_source == "" and net.source.endswith("net.prototxt")


@pytest.mark.parametrize("form", ["V2", "V1", "V0"])
def test_written_text_reads_back(tmp_path, form):
    write_prototxt(tmp_path / "a.prototxt", SMALL, form)
    net = read_net(tmp_path / "a.prototxt")
    assert (net.name, net.inputs, net.layers) == (SMALL.name, SMALL.inputs, SMALL.layers)


@pytest.mark.parametrize(
    "head, inputs",
    [
        ('input: "a" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 5', {"a": (1, 3, 4, 5)}),
        ('input: "a" input: "b"' + " input_dim: 2" * 8, {"a": (2,) * 4, "b": (2,) * 4}),
        ('input: "a" input: "b" input_shape { dim: 7 } input_shape { dim: 1 dim: 2 }', {"a": (7,), "b": (1, 2)}),
        ('input: "a"', {"a": None}),
        (
            'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 4 } } }',
            {"a": (4,), "b": (4,)},
        ),
        ('layer { name: "i" type: "Input" top: "a" }', {"a": None}),
        (
            'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 4 } shape { dim: 5 } } }',
            {"a": (4,), "b": (5,)},
        ),
        (
            'layer { name: "d" type: "Data" top: "a" top: "label" data_param { source: "x" backend: LMDB } }',
            {"a": None},
        ),
        (
            'layer { name: "d" type: "AnnotatedData" top: "a" top: "label" annotated_data_param { x { y: 1 } } }',
            {"a": None},
        ),
        ('layer { name: "d" type: "Python" top: "a" top: "label" python_param { module: "m" } }', {"a": None}),
        (
            'layer { name: "d" type: "MemoryData" top: "a" top: "l" '
            "memory_data_param { batch_size: 1 channels: 3 height: 4 width: 5 } }",
            {"a": (1, 3, 4, 5)},
        ),
        ('layer { name: "d" type: "DummyData" top: "a" dummy_data_param { shape { dim: 2 dim: 3 } } }', {"a": (2, 3)}),
        (
            'layer { name: "d" type: "DummyData" top: "a" dummy_data_param { num: 1 channels: 2 height: 3 width: 4 } }',
            {"a": (1, 2, 3, 4)},
        ),
    ],
)
def test_inputs(read, head, inputs):
    assert read(head + '\nlayer { name: "r" type: "ReLU" bottom: "a" top: "r" }').inputs == inputs


TRAIN_VAL = """
name: "tv" force_backward: true debug_info: false
state { level: 1 stage: "deploy" }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } transform_param { crop_size: 9 } }
layer { name: "data" type: "ImageData" top: "data" top: "label" include { phase: TEST } }
layer { name: "slice_label" type: "Slice" bottom: "label" top: "l1" top: "l2" }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 } param { lr_mult: 2 }
        convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" include { phase: TRAIN } }
layer { name: "level" type: "ReLU" bottom: "conv" top: "level" include { min_level: 1 max_level: 3 } }
layer { name: "low" type: "ReLU" bottom: "conv" top: "low" include { max_level: 0 } }
layer { name: "staged" type: "ReLU" bottom: "conv" top: "staged" include { stage: "deploy" not_stage: "x" } }
layer { name: "other" type: "ReLU" bottom: "conv" top: "other" exclude { stage: "deploy" } }
layer { name: "either" type: "ReLU" bottom: "conv" top: "either" include { stage: "no" } include { phase: TEST } }
layer { name: "silent" type: "Silence" bottom: "l2" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "conv" bottom: "l1" top: "loss" loss_weight: 0.3
        loss_param { normalization: VALID } }
layer { name: "loss" type: "EuclideanLoss" bottom: "conv" bottom: "l1" top: "loss2" }
layer { name: "half" type: "Power" bottom: "loss" top: "half" power_param { scale: 0.5 } }
layer { name: "sum" type: "Eltwise" bottom: "half" bottom: "conv" top: "sum" }
layer { name: "top5" type: "Accuracy" bottom: "conv" bottom: "label" top: "top5" accuracy_param { top_k: 5 } }
"""


def test_train_val(read):
    net = read(TRAIN_VAL)
    assert net.inputs == {"data": None}
    assert [layer.name for layer in net.layers] == ["conv", "level", "staged", "either"]
    train = [layer.name for layer in read(TRAIN_VAL, "TRAIN").layers]
    assert train == ["conv", "drop", "level", "staged"]


def test_labels_used_as_data_become_inputs(read):
    net = read(
        'layer { name: "d" type: "HDF5Data" top: "image" top: "mask" }'
        'layer { name: "c" type: "Concat" bottom: "image" bottom: "mask" top: "c" }'
    )
    assert net.inputs == {"image": None, "mask": None} and [layer.name for layer in net.layers] == ["c"]


def test_training_data_serve_where_no_test_data_are(read):
    text = (
        'layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN } }'
        'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'
    )
    assert read(text).inputs == {"data": None}


def test_parameters_keep_caffes_names(read):
    net = read(
        HEAD + 'layer { name: "c" type: "Deconvolution" bottom: "data" top: "c" convolution_param {'
        " num_output: 6 bias_term: false kernel_h: 3 kernel_w: 5 pad: 1 pad: 2 stride_h: 1 stride_w: 2 group: 2"
        ' dilation: 2 bias_filler { type: "constant" value: -0.1 } engine: CUDNN } transform_param { scale: 2 } }'
        'layer { name: "e" type: "Eltwise" bottom: "c" bottom: "c" top: "e"'
        " eltwise_param { operation: PROD coeff: 1 coeff: -1 } relu_param { negative_slope: 0.5 } }"
        'layer { name: "s" type: "Slice" bottom: "e" top: "s1" top: "s2" slice_param { slice_dim: 1 slice_point: 3 } }'
        'layer { name: "r" type: "Reshape" bottom: "s1" top: "r" reshape_param { shape { dim: 0 dim: -1 } } }'
        'layer { name: "b" type: "BatchNorm" bottom: "r" top: "b" param { lr_mult: 0 }'
        " batch_norm_param { use_global_stats: true eps: 0.5 } }"
        'layer { name: "x" type: "Scale" bottom: "b" top: "b" batch_norm_param { eps: 1 }'
        " bias_param { axis: 3 } scale_param { axis: 2 bias_term: true } }"
        'layer { name: "p" type: "Pooling" bottom: "b" top: "p" pooling_param { kernel_size: 2 }'
        " convolution_param { stride: 3 } }"
    )
    params = {layer.name: layer.params for layer in net.layers}
    assert params["c"] == {
        "num_output": 6,
        "bias_term": False,
        "kernel_h": 3,
        "kernel_w": 5,
        "pad": [1, 2],
        "stride_h": 1,
        "stride_w": 2,
        "group": 2,
        "dilation": [2],
    }
    assert params["e"] == {"operation": "PROD", "coeff": [1.0, -1.0]}
    assert params["s"] == {"slice_dim": 1, "slice_point": [3]}
    assert params["r"] == {"shape": {"dim": [0, -1]}}
    assert params["b"] == {"use_global_stats": True, "eps": 0.5}
    assert params["x"] == {"axis": 2, "bias_term": True}  # in Caffe other types' messages mean nothing to a layer
    assert params["p"] == {"kernel_size": 2}


def test_unknown_fields_and_types_are_kept_quiet(read):
    net = read(
        HEAD + "made_by: \"someone\" numbers: [1, 2] deep { er { x: -inf y: 'a' 'b' } }\n"
        'layer { name: "n" type: "Normalize" bottom: "data" top: "n" norm_param < across_spatial: false; >, }'
        'layer { type: "ReLU" bottom: "n" top: "n" } # no name\n'
        'layer { type: "ReLU" bottom: "n" top: "n" quantization: 8 }'
    )
    assert [layer.type for layer in net.layers] == ["Normalize", "ReLU", "ReLU"]
    assert [layer.name for layer in net.layers] == ["n", "relu@2", "relu@3"]


def test_foreign_v1_types_are_kept(read):
    net = read(
        HEAD + 'layers { name: "a" type: BN bottom: "data" top: "a" bn_param { bn_mode: INFERENCE } }'
        'layers { name: "b" type: UPSAMPLE bottom: "a" top: "b" } layers { name: "c" type:BN bottom: "b" top: "c" }'
    )
    assert [layer.type for layer in net.layers] == ["BN", "Upsample", "BN"]


def test_v0_details(read):
    net = read(
        HEAD + 'layers { layer { name: "p" type: "padding" pad: 2 } bottom: "data" top: "p" }'
        'layers { layer { name: "c" type: "conv" num_output: 2 biasterm: false kernelsize: 5 group: 1 stride: 2 '
        'local_size: 9 } bottom: "p" top: "c" }'
        'layers { layer { name: "q" type: "pool" pool: MAX kernelsize: 2 } bottom: "p" top: "q" }'
        'layers { layer { name: "d" type: "dropout" dropout_ratio: 0.5 } bottom: "c" top: "c" }'
        'layers { layer { name: "z" type: "fancy" } bottom: "c" top: "z" }'
        'layers { layer { name: "cc" type: "concat" concat_dim: 1 } bottom: "c" bottom: "z" top: "cc" }'
    )
    layers = {layer.name: layer for layer in net.layers}
    assert layers["c"].bottoms == ("data",) and layers["q"].bottoms == ("data",)
    assert layers["c"].params == {
        "num_output": 2,
        "bias_term": False,
        "kernel_size": [5],
        "group": 1,
        "stride": [2],
        "pad": [2],
    }
    assert layers["q"].params == {"pool": "MAX", "kernel_size": 2, "pad": 2}
    assert layers["d"].params == {"dropout_ratio": 0.5} and layers["z"].type == "fancy"
    assert layers["cc"].params == {"concat_dim": 1}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_of_windows(read, encoding):
    assert read(V2_TEXT.replace("\n", "\r\n").encode(encoding)).layers == SMALL.layers


RELU = ' layer { name: "%s" type: "ReLU" bottom: "%s" top: "%s" }'


@pytest.mark.parametrize(
    "text, parts",
    [
        ("", ["empty"]),
        ("# only a comment\n", ["no layers"]),
        (HEAD, ["no layers"]),
        ('net: "train_val.prototxt"\nbase_lr: 0.1\n', ["solver", "`net:`"]),
        ('layer { name: "d" type: "Data" top: "d" }', ["no layer is left in phase TEST"]),
        ("<!DOCTYPE html><html>", ["web page"]),
        ("  <html>", ["web page"]),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", ["LFS", "git lfs pull"]),
        (b"\x89HDF\r\n\x1a\n", ["HDF5"]),
        (b"\x0a\x05small\xa2\x06\x00", ["binary", "swapped"]),
        ('layer {\n  name: "a"\n  name: "b" }', ["net.prototxt:3:"]),
        (HEAD + "layer {\n name: 5 }", ["net.prototxt:3:8"]),
        (HEAD + "layer { convolution_param { pad: -1 } }", ["net.prototxt:2:"]),
        (HEAD + "layer { pooling_param { pool: MEDIAN } }", ["net.prototxt:2:", "MEDIAN", "known: MAX, AVE"]),
        (HEAD + "layer { pooling_param { pool: ave } }", ["net.prototxt:2:", "did you mean AVE?"]),
        (HEAD + 'layer { pooling_param { pool: "AVE" } }', ["net.prototxt:2:", "; write AVE"]),
        (HEAD + "layer { type: CONVOLUTION }", ["net.prototxt:2:15", '; write "Convolution"']),
        (HEAD + "layer { type: Conv }", ["net.prototxt:2:15", '; write "Conv"']),
        (HEAD + 'layers { type: "Convolution" }', ["net.prototxt:2:16", "write CONVOLUTION without quotes"]),
        (HEAD + 'layers { type: "Tile" }', ["net.prototxt:2:16", "; write `layer` instead of `layers`"]),
        (RELU % ("a", "data", "b"), ["'a'", 'no layer makes its input \'data\'; write `input: "data"` above']),
        (HEAD + "layer {", ["net.prototxt:2:", '"}"']),
        ("layers { type: # odd\n BN }", ["net.prototxt:2:2", "BN"]),
        ("layer {" * 5000, ["net.prototxt"]),
        ("a {" * 5000, ["net.prototxt"]),
        ("}{", ["net.prototxt:1:1"]),
        ('"' * 9, ["net.prototxt:1:"]),
        (HEAD + RELU % ("a", "data", "b") + RELU % ("c", "data", "b"), ["'c'", "'b' is already made"]),
        (HEAD + RELU % ("a", "dta", "b"), ["'a'", "no layer makes its input 'dta'", "known: data"]),
        (HEAD + RELU % ("a", "c", "b") + RELU % ("z", "b", "c"), ["'a'", "'c'", "below, by layer 'z'", "circle"]),
        (HEAD + RELU % ("a", "a", "a"), ["'a'", "own output", "circle"]),
        (
            HEAD + RELU.replace(" }", " include { phase: TRAIN } }") % ("t", "data", "t") + RELU % ("a", "t", "b"),
            ["'a'", "layer 't'", "not in phase TEST"],
        ),
        (
            HEAD + RELU.replace(" }", " include { phase: TEST } exclude { } }") % ("t", "data", "t"),
            ["'t'", "both include and exclude"],
        ),
        (HEAD + RELU % ("a", "data", "b") + 'layers { name: "x" type: RELU }', ["mixes"]),
        ('input: "a" input: "b"' + " input_dim: 1" * 4 + RELU % ("r", "a", "r"), ["2 `input`", "1 groups"]),
        ('input: "a"' + " input_dim: 1" * 3 + RELU % ("r", "a", "r"), ["input_dim"]),
        ('input: "a" input: "b" input_shape { dim: 1 }' + RELU % ("r", "a", "r"), ["2 `input`", "1 input_shape"]),
        ('input: "a" input: "a"' + RELU % ("r", "a", "r"), ["'a' is already made"]),
        ('input: "a" input_shape { dim: 1 dim: -3 }' + RELU % ("r", "a", "r"), ["'a'", "negative", "-3"]),
        (
            'layer { name: "i" type: "Input" top: "a" top: "b" top: "c" input_param { shape { } shape { } } }',
            ["'i'", "3 tops", "2 shapes"],
        ),
        (
            HEAD + 'layers { layer { name: "p" type: "padding" pad: 2 } bottom: "data" top: "p" }'
            'layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }',
            ["'r'", "'p'", "only a convolution"],
        ),
        (HEAD + 'layers { layer { name: "p" type: "padding" } top: "p" }', ["'p'", "one bottom and one top"]),
    ],
    ids=by_expectation,
)
def test_refusals(refusal, text, parts):
    message = refusal(text)
    for part in parts:
        assert part in message, message


def test_paths_that_are_no_files(tmp_path):
    for path, part in [
        (tmp_path / "none.prototxt", "no such file"),
        (tmp_path, "is a directory"),
        ("/dev/zero", "not a regular file"),
        ("a\0b", "cannot be read"),
    ]:
        with pytest.raises(ModelError, match=part):
            read_net(path)
    closed = tmp_path / "closed.prototxt"
    closed.write_text(V2_TEXT)
    closed.chmod(0)
    if not os.access(closed, os.R_OK):  # root may read anything
        with pytest.raises(ModelError, match="Permission denied"):
            read_net(closed)
    with pytest.raises(ModelError, match="phase 'VAL'"):
        closed.chmod(0o600)
        read_net(closed, phase="VAL")


TOKENS = st.sampled_from(
    ["layer", "layers", "{", "}", ":", "name", "type", '"', "'", "\\", "[", "<", "input_dim", "-1"]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([V0_TEXT, V1_TEXT, TRAIN_VAL]), st.data())
def test_damaged_text_is_an_error_or_a_net(tmp_path, text, data):
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 40)))
        text = text[:start] + data.draw(st.one_of(TOKENS, st.text(max_size=4))) + text[stop:]
    path = tmp_path / "fuzz.prototxt"
    path.write_bytes(text.encode(errors="replace"))
    try:
        read_net(path)
    except ModelError as error:
        assert "\n" not in str(error)
