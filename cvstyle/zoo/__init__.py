"""Known networks: how to recognise them, the run's defaults for them, and where their files come from."""

from __future__ import annotations

from .cards import CARDS, EMBEDDED, Card, Family, File, Member, default_folder, defaults, embedded_files, files_of, find
from .choose import choose_layers
from .download import Progress, download
from .fetch import fetch
from .place import Fetched
from .wheels import Index

__all__ = [
    "CARDS", "EMBEDDED", "Card", "Family", "Fetched", "File", "Index", "Member", "Progress", "choose_layers",
    "default_folder", "defaults", "download", "embedded_files", "fetch", "files_of", "find",
]  # fmt: skip
