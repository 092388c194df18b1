"""Dependencies point one way: read from the sources, so that lazy imports count too."""

from __future__ import annotations

import ast
from pathlib import Path

import cvstyle

ROOT = Path(cvstyle.__file__).parent


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports():
    """module -> modules of cvstyle that it imports, at the top or inside a function."""
    paths = {module_name(p): p for p in ROOT.rglob("*.py")}
    graph = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = package.split(".")
                    base = ".".join(
                        [*parents[: len(parents) - node.level + 1], *([node.module] if node.module else [])]
                    )
                found.update(f"{base}.{a.name}" if f"{base}.{a.name}" in paths else base for a in node.names)
            elif isinstance(node, ast.Import):
                found.update(a.name for a in node.names)
        graph[name] = {f for f in found if f in paths and f != name}
    return graph


def test_no_circle_among_modules():
    graph, done = imports(), set()
    assert "cvstyle.graph" in graph["cvstyle.objective"] or "cvstyle.errors" in graph["cvstyle.objective"]

    def visit(name, trail):
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, [*trail, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])


ORDER = (  # from the top of the house to the bottom: a module imports those below, and its own package
    "__main__", "cli", "reports", "timings", "normalise", "api", "run", "options", "control", "schedule", "checkpoint",
    "objective", "style", "saved_style", "workers", "passes", "regions", "losses", "optimize", "graph", "convention",
    "layers", "process", "backends", "images", "zoo", "containers", "caffe", "netdef", "fields", "formatting",
    "machine", "style_file", "paths", "errors",
)  # fmt: skip


def test_arrows_point_down():
    rank = {f"cvstyle.{name}": number for number, name in enumerate(ORDER)}

    def place(module):
        return ".".join(module.split(".")[:2])

    # Where cvstyle is installed, models/ is within it, and with it the program that made the embedded one.
    found = {module: used for module, used in imports().items() if place(module) != "cvstyle.models"}
    assert {place(module) for module in found} - {"cvstyle"} == set(rank)
    for module, used in found.items():
        for other in used:
            if "cvstyle" not in (module, other):  # the package itself, which names the public ones
                assert rank[place(module)] <= rank[place(other)], (module, other)


def test_who_may_not_know_whom():
    """The reader of Caffe's files knows no numerics, backends no Caffe, losses neither backends nor networks."""
    forbidden = {
        "cvstyle.caffe": ("cvstyle.backends", "cvstyle.layers", "cvstyle.graph", "cvstyle.objective"),
        "cvstyle.backends": ("cvstyle.caffe", "cvstyle.netdef", "cvstyle.zoo", "cvstyle.images", "cvstyle.fields"),
        "cvstyle.layers": ("cvstyle.caffe", "cvstyle.backends"),
        "cvstyle.losses": ("cvstyle.caffe", "cvstyle.backends", "cvstyle.layers", "cvstyle.graph"),
        "cvstyle.optimize": ("cvstyle.caffe", "cvstyle.backends", "cvstyle.layers", "cvstyle.graph"),
        "cvstyle.objective": ("cvstyle.caffe", "cvstyle.optimize", "cvstyle.images", "cvstyle.losses.content"),
    }
    for module, used in imports().items():
        for part, banned in forbidden.items():
            if module == part or module.startswith(part + "."):
                # What a backend promises is known to layers; which backends there are is not.
                assert not [u for u in used if u.startswith(banned) and u != "cvstyle.backends.base"], (module, used)
