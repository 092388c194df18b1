"""Model zoo: known networks, their default options, and the download of their files."""

from __future__ import annotations

from .cards import CARDS, EMBEDDED, Card, default_folder, embedded_files, files_of, find
from .choose import choose_layers
from .download import Progress, download
from .families import Family, defaults, has_reference_scale
from .fetch import fetch
from .files import File, WheelMember
from .presets import PRESETS, listed, preset_layers
from .store import LocalFile
from .wheels import Index

__all__ = [
    "CARDS", "EMBEDDED", "PRESETS", "Card", "Family", "File", "Index", "LocalFile", "Progress", "WheelMember",
    "choose_layers", "default_folder", "defaults", "download", "embedded_files", "fetch", "files_of", "find",
    "has_reference_scale", "listed", "preset_layers",
]  # fmt: skip
