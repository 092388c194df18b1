"""cvstyle: neural style transfer with Caffe models, without a deep-learning framework."""

from __future__ import annotations

__version__ = "0.1.0"

_PUBLIC = {  # name: module; type checkers read __init__.pyi
    "Objective": "objective",
    "Loss": "losses",
    "load_network": "graph",
    "embedded_network": "run",
    "StyleTargets": "style",
    "StyleRegion": "regions",
    "measure_styles": "style",
    "SavedStyle": "saved_style",
    "save_style": "run",
    "read_style": "api",
    "blend_styles": "api",
    "stylize": "run",
    "synthesize": "run",
    "plan": "run",
    "Job": "run",
    "Run": "run",
    "Iterate": "run",
    "Result": "run",
    "Stop": "optimize",
    "Options": "options",
    "Compute": "options",
    "Canvas": "control",
    "Picture": "images",
    "read_picture": "api",
    "write_picture": "api",
    "preprocess": "api",
    "deprocess": "api",
    "match_colors": "api",
    "features": "api",
    "CvstyleError": "errors",
}
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name):
    # Imported on first use, so that `cvstyle --help` does not load OpenCV and SciPy.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cvstyle' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value
