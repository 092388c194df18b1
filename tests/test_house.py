"""The shape of the code: sizes of files, classes and functions, one assignment a line, and how docstrings begin."""

from __future__ import annotations

import ast
import tokenize
from pathlib import Path

import pytest

import cvstyle

ROOT = Path(cvstyle.__file__).parent
SOURCES = [  # without what protoc writes, and the scripts of models/, which are inside where cvstyle is installed
    path for path in sorted(ROOT.rglob("*.py"))
    if path.name != "caffe_pb2.py" and path.relative_to(ROOT).parts[0] != "models"
]  # fmt: skip
MOST = {"file": 400, "class": 250, "function": 60}  # lines: of code in a file, with docstrings in the others
_SAID = (tokenize.OP, tokenize.NAME, tokenize.NUMBER, tokenize.STRING)
_VAGUE = ("What ", "Whether ", "Where ", "Of ", "Those ", "Who ")


def lines_of_code(path):
    """Lines with a token that is neither a comment nor a docstring."""
    with tokenize.open(path) as file:
        tokens = [t for t in tokenize.generate_tokens(file.readline) if t.type in _SAID]
    docstring = lambda t: t.type == tokenize.STRING and t.line.strip().startswith(('"""', "'''"))  # noqa: E731
    return len({n for t in tokens if not docstring(t) for n in range(t.start[0], t.end[0] + 1)})


def packed(node):
    """Whether a statement assigns several values of its own to several names; a swap does not."""
    if not isinstance(node, ast.Assign) or not all(isinstance(n, ast.Tuple) for n in (node.value, node.targets[0])):
        return False
    targets = {ast.unparse(target) for target in node.targets[0].elts}
    return not targets & {ast.unparse(value) for value in node.value.elts}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_rooms(path):
    assert lines_of_code(path) <= MOST["file"]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            kind = "class" if isinstance(node, ast.ClassDef) else "function"
            assert node.end_lineno - node.lineno < MOST[kind], node.name
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.Module)):
            found = ast.get_docstring(node) or ""
            assert not found.startswith(_VAGUE), found.splitlines()[0]
        assert not packed(node), f"line {node.lineno}: {ast.unparse(node)}"
