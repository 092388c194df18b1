"""Error messages on one line: names in a damaged or hostile file may contain anything."""

from __future__ import annotations

from ..errors import ModelError


def model_error(message: str) -> ModelError:
    """The error to raise: unprintable characters become spaces, and a long message is cut in the middle."""
    message = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return ModelError(message if len(message) <= 1000 else f"{message[:700]} ... {message[-250:]}")
