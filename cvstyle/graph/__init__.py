"""The graph of a network: binding to backends, shapes, weights, programs, blocks, tiles, placement on devices."""

from __future__ import annotations

from .blocks import Region
from .load import load_network
from .network import Network
from .program import Features, Program
from .tiling import Rect, Tile

__all__ = ["Features", "Network", "Program", "Rect", "Region", "Tile", "load_network"]
