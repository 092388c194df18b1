"""The architecture of weights in another framework's file, by the shapes of their filters in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..containers import Container
from ..errors import ModelError, OptionError, nearest
from .architectures import ARCHITECTURES, Architecture, convolutions
from .modules import Module, modules_of, names_of, natural

_IN_ORDER = ("ONNX", "Keras", "MatConvNet", "Caffe")  # kinds whose tensors are in the network's order
_AXES = {"oihw": (0, 1, 2, 3), "hwio": (3, 2, 0, 1)}
LAYOUTS = tuple(_AXES)
"""Orders of a filter's axes."""
_MOST_SHOWN = 6


@dataclass(frozen=True)
class Recognised:
    """Weights of a known network.

    layout: axes of the filters, "oihw" or "hwio". convolutions: its layers' modules in order, each with the batch
    normalisation after it or None. before: filters of one pixel that change the channels of pictures first, or None.
    left_out: names of the file's other tensors.
    """

    architecture: Architecture
    layout: str
    convolutions: tuple[tuple[Module, Module | None], ...]
    before: Module | None
    left_out: tuple[str, ...]


def recognise(container: Container, wanted: str | None = None) -> Recognised:
    """The known network whose filters are in a file, with its classifier or without.

    wanted: name of an architecture (`--as`), which may then have other numbers of filters. Raises ModelError if there
    is none, OptionError for an unknown name.
    """
    if wanted is not None and wanted.lower() not in ARCHITECTURES:
        raise OptionError(f"--as {wanted}: there is no such architecture{nearest(wanted, list(ARCHITECTURES))}")
    candidates = ARCHITECTURES.values() if wanted is None else [ARCHITECTURES[wanted.lower()]]
    orders = orders_of(container)
    layouts = sorted(LAYOUTS, key=lambda layout: layout != container.layout)
    for free in (False,) if wanted is None else (False, True):
        for architecture in candidates:
            for order in [*orders, _by_layer(orders[0], architecture)]:
                for layout in layouts:
                    found = _found(order, architecture, layout, free)
                    if found:
                        return found
    raise _unknown(container, orders[0], wanted)


def orders_of(container: Container) -> list[list[Module]]:
    """The modules of a file in the orders that may be the network's, the likelier first: the names' and the file's."""
    modules = modules_of(container)
    orders = [natural(modules), modules]
    return orders[::-1] if container.kind.startswith(_IN_ORDER) else orders


def in_oihw(shape: Sequence[int], layout: str) -> tuple[int, ...]:
    """The shape of filters, given in a layout, as (outputs, inputs, height, width)."""
    return tuple(shape[axis] for axis in _AXES[layout])


def axes_of(layout: str) -> tuple[int, ...]:
    """The axes of a layout in Caffe's order."""
    return _AXES[layout]


def _by_layer(order, architecture):
    """The modules in the order of the layers, if all filters have their names; else none."""
    filters = {module.name.replace(".", "/").rpartition("/")[2]: module for module in order if module.axes == 4}
    layers = [layer.name for layer in convolutions(architecture.net)]
    return [filters[name] for name in layers] if filters.keys() == set(layers) else []


def _found(order, architecture, layout, free):
    """The architecture's weights in a row of modules; None if they are not there. free: other numbers of filters."""
    filters = [(at, module) for at, module in enumerate(order) if module.axes == 4]
    shapes = [in_oihw(module.weight.shape, layout) for _, module in filters]
    start = _start(shapes, architecture, free)
    if start is None:
        return None
    end = start + len(architecture.filters())
    widths = [shape[0] for shape in shapes[start:end]]
    before = filters[start - 1][1] if start and shapes[start - 1] == (3, 3, 1, 1) else None
    return _recognised(architecture.with_outputs(widths), layout, order, filters[start:end], before)


def _start(shapes, architecture, free):
    """The position of the architecture's filters in a row; None if they are not there."""
    expected = architecture.filters()
    for start in range(len(shapes) - len(expected) + 1):
        run = shapes[start : start + len(expected)]
        after = shapes[start + len(expected) : start + len(expected) + 1]
        fits = run == expected or (free and _is_chain(run, expected) and not _goes_on(run, after))
        if fits and after != run[-1:]:  # with one more such layer, the network is a deeper one
            return start
    return None


def _goes_on(run, after):
    """True if the filters after a chain, of the same size, read its last ones: of other widths, it is a deeper one."""
    return any(shape[1] == run[-1][0] and shape[2:] == run[-1][2:] for shape in after)


def _is_chain(run, expected):
    inputs = [3, *(shape[0] for shape in run)]
    return all(
        shape[1] == before and shape[2:] == wanted[2:] for shape, before, wanted in zip(run, inputs, expected)
    )


def _recognised(architecture, layout, order, filters, before):
    pairs = []
    for at, module in filters:
        after = order[at + 1] if at + 1 < len(order) else None
        follows = after is not None and after.normalises
        pairs.append((module, after if follows else None))
    used = {id(part) for pair in [*pairs, (before,)] for part in pair if part}
    left = names_of(module for module in order if id(module) not in used)
    return Recognised(architecture, layout, tuple(pairs), before, left)


def _unknown(container, order, wanted):
    shapes = ["×".join(map(str, module.weight.shape)) for module in order if module.axes == 4]
    more = ", ..." if len(shapes) > _MOST_SHOWN else ""
    seen = f"its {len(shapes)} filters are {', '.join(shapes[:_MOST_SHOWN])}{more}" if shapes else "it has no filters"
    known = ", ".join(ARCHITECTURES) if wanted is None else wanted
    return ModelError(
        f"{container.path}: these are not the weights of {known}: {seen}; --as takes a "
        "known network with other numbers of filters, --proto the prototxt of any other"
    )
