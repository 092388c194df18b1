"""Content: w · mean((F − T)²) with F the features of a layer and T those of the content picture (Gatys et al. 2015)."""

from __future__ import annotations

from .base import Loss, checked_weight, layer_weights


class Content(Loss):
    """Its gradient is w · 2/N · (F − T), with N = C·H·W values in the map."""

    target_from = "content"

    def gradient(self, view, aim):
        difference = view.ops.difference(view.x, aim)
        squares = view.ops.dot(difference, difference)
        return difference, 2 / view.count, self.weight / view.count * squares

    def add_gradient(self, view, aim, weight, out):
        if out is None:
            return super().add_gradient(view, aim, weight, out)
        squares = view.ops.add_difference(out, weight * (2 / view.count), view.x, aim)
        return out, self.weight / view.count * squares


def made(content_weight=5.0, content_layers=()) -> list[Loss]:
    """A loss for each layer ("name", "name:factor" or (name, factor)), of the full weight times its factor."""
    weights = layer_weights(content_layers, checked_weight(content_weight, "content_weight"))
    return [Content(f"content:{name}", name, weight) for name, weight in weights.items()]
