"""Known networks: how to recognise them, the run's defaults for them, and where their files come from."""

from __future__ import annotations

from .cards import CARDS, Card, Family, File, default_folder, defaults, embedded_files, find
from .choose import choose_layers
from .download import Fetched, Progress, download, fetch

__all__ = [
    "CARDS", "Card", "Family", "Fetched", "File", "Progress", "choose_layers", "default_folder", "defaults", "download",
    "embedded_files", "fetch", "find",
]  # fmt: skip
