"""One line for whatever a file holds: names in a damaged or hostile file may contain anything."""

from __future__ import annotations

from ..errors import ModelError


def fault(message: str) -> ModelError:
    """The error to raise, with everything unprintable made a space and no part longer than a screen."""
    message = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return ModelError(message if len(message) <= 1000 else f"{message[:700]} ... {message[-250:]}")
