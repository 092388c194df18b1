"""Text of a .prototxt -> NetParameter message, as written (no upgrade)."""

from __future__ import annotations

import os
import re

from google.protobuf import text_format

from ..errors import nearest
from .caffe_pb2 import NetParameter
from .errors import model_error
from .sniff import check_file_type
from .upgrade import V1_TYPES

_LARGEST = 64 << 20  # the largest prototxt in the wild has 1 MB
_SOLVER = re.compile(r"^\s*(?:train_|test_)?net\s*:", re.MULTILINE)
_UNKNOWN_VALUE = re.compile(r'Enum type "([\w.]+)" has no value named ("?)(\w+)\2$')
_NOT_QUOTED = re.compile(r"Expected string but found: '(\w+)'$")
_FOREIGN_TYPE = re.compile(r'Enum type "[\w.]*LayerType" has no value named (\w+)')


def read_prototxt(path: str | os.PathLike) -> NetParameter:
    """Parse a text file; unknown fields are skipped. Raises ModelError."""
    path = os.fspath(path)
    size = check_file_type(path, text=True)
    if size > _LARGEST:
        raise model_error(f"{path}: has {size} bytes, too many for a .prototxt")
    with open(path, "rb") as file:
        text = _decode(file.read())
    net = parse_text(text, path)
    if not net.layer and not net.layers:
        if _SOLVER.search(text):
            raise model_error(f"{path}: is a solver, not a net; give the file that its `net:` line names")
        raise model_error(f"{path}: has no layers; is it a .prototxt of a net?")
    return net


def parse_text(text: str, source: str) -> NetParameter:
    """`read_prototxt` for a string. source: the file name in error messages."""
    while True:
        net = NetParameter()
        try:
            text_format.Parse(text, net, allow_unknown_extension=True, allow_unknown_field=True)
            return net
        except RecursionError:
            raise model_error(f"{source}: is nested too deeply; a brace is missing or the file is damaged") from None
        except text_format.ParseError as error:
            # Forks added types to the V1 enum. The name is kept as a string: the layer may not be needed.
            foreign = _FOREIGN_TYPE.search(str(error))
            if foreign:
                pattern = rf"\btype\s*:\s*{foreign[1]}\b"
                text, count = re.subn(pattern, f'cvstyle_foreign_type: "{foreign[1]}"', text)
                if count:
                    continue
            cause = re.sub(r"^\d+:\d+ : (?:'.*': )?", "", str(error).replace("cvstyle.caffe.", ""), flags=re.DOTALL)
            cause = cause[:300].rstrip(".")
            place = f"{source}:{error.GetLine() or 1}:{error.GetColumn() or 1}"
            raise model_error(f"{place}: {cause}{_correction(cause) or '; correct the file there'}") from None
        except ValueError as error:
            raise model_error(f"{source}: cannot be parsed: {str(error)[:300]}") from None


def _correction(cause):
    """The end of the message for a parser's error: what to write instead; "" where the cause says all."""
    bare = _NOT_QUOTED.search(cause)
    if bare:
        return f'; write "{V1_TYPES.get(bare[1], bare[1])}"'
    unknown = _UNKNOWN_VALUE.search(cause)
    if not unknown:
        return ""
    enum, quote, name = unknown.groups()
    if enum.endswith("LayerType"):  # quoted, since an unquoted one is taken for a fork's
        old = next((f"{v1} without quotes, or " for v1, v2 in V1_TYPES.items() if name in (v1, v2)), "")
        return f"; write {old}`layer` instead of `layers` for all layers"
    values = NetParameter.DESCRIPTOR.file.pool.FindEnumTypeByName(f"cvstyle.caffe.{enum}").values_by_name
    return f"; write {name}" if quote and name in values else nearest(name, list(values))


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")
