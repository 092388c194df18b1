"""The generated message module: up to date, and apart from every other caffe.proto."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

from cvstyle.caffe import caffe_pb2

GENERATOR = Path(__file__).parent.parent / "protos" / "generate.py"


def test_module_matches_the_proto():
    pytest.importorskip("grpc_tools")
    spec = importlib.util.spec_from_file_location("generate", GENERATOR)
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    message = "run python protos/generate.py"
    assert Path(caffe_pb2.__file__).read_text() == generate.generate(), message


def test_messages_are_in_a_pool_of_their_own():
    assert caffe_pb2.NetParameter.DESCRIPTOR.full_name == "cvstyle.caffe.NetParameter"
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindMessageTypeByName("cvstyle.caffe.NetParameter")


@pytest.mark.parametrize(
    "message, field, number",
    [
        ("NetParameter", "layer", 100),
        ("NetParameter", "layers", 2),
        ("LayerParameter", "blobs", 7),
        ("V1LayerParameter", "blobs", 6),
        ("V0LayerParameter", "blobs", 50),
        ("BlobProto", "data", 5),
        ("BlobProto", "double_data", 8),
        ("LayerParameter", "convolution_param", 106),
        ("V1LayerParameter", "convolution_param", 10),
    ],
)
def test_numbers_of_the_format(message, field, number):
    assert getattr(caffe_pb2, message).DESCRIPTOR.fields_by_name[field].number == number


def test_reading_needs_no_heavy_module():
    code = "import cvstyle.caffe, cvstyle.caffe.graph, cvstyle.caffe.caffemodel, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("cvstyle.")}
    assert not {"cv2", "scipy", "PIL"} & set(loaded)
    ground = {f"cvstyle.{name}" for name in ("errors", "netdef", "paths", "style_file")}  # the standard library alone
    assert all(name in ground or name.startswith("cvstyle.caffe") for name in ours)
