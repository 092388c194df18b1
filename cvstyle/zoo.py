"""Known networks: how to recognise them, their defaults and where their files are."""

from __future__ import annotations

from pathlib import Path

from .errors import ModelError

_GENERAL = {
    "content_layers": None,
    "style_layers": None,
    "content_weight": 5.0,
    "style_weight": 100.0,
    "tv_weight": 1e-3,
    "num_iterations": 1000,
}
_EMBEDDED = ("wavelet.prototxt", "wavelet.caffemodel")
_VGG_STYLE = ["relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"]
_NIN = ["relu0", "relu3", "relu7", "relu12"]

# (layer names that tell the network, what differs from the general defaults)
_FAMILIES = (
    ({"relu4_2", *_VGG_STYLE}, {"content_layers": ["relu4_2"], "style_layers": _VGG_STYLE}),
    ({"cccp1", *_NIN}, {"content_layers": _NIN, "style_layers": _NIN, "content_weight": 10.0, "style_weight": 500.0}),
)


def embedded_files() -> tuple[str, str]:
    """The .prototxt and .caffemodel of the embedded network. Raises ModelError where they are absent."""
    package = Path(__file__).resolve().parent
    for folder in (package / "models", package.parent / "models"):
        files = [folder / name for name in _EMBEDDED]
        if all(path.is_file() for path in files):
            return str(files[0]), str(files[1])
    raise ModelError(f"{package / 'models' / _EMBEDDED[0]}: the embedded network is not here; reinstall cvstyle")


def defaults(layer_names: list[str]) -> dict:
    """The run's defaults for a network, recognised by its layer names."""
    names, found = set(layer_names), dict(_GENERAL)
    if any(name.startswith("octave") for name in names):
        return found | {"content_layers": ["octave2"], "style_layers": sorted(n for n in names if n.startswith("octave"))}
    for signs, particulars in _FAMILIES:
        if signs <= names:
            return found | particulars
    return found
