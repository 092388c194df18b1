"""The iterations of one scale: iterate, look at the losses, average, report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import NumericalError
from ..images import Picture
from .scale import Scale

CHECK = 50  # iterations after which the losses of a device are looked at for NaN and infinity


@dataclass
class RunState:
    """What changes in a run; pictures are arrays (1, 3, H, W) of its home backend.

    x: what the optimiser works on. optimizer: its state. latest: the last iterate; last_finite: the last one whose loss
    is known to be finite. average: of the scale's iterates, before its division; averaged: of how many. scale: index.
    done: iterations, through all scales. losses: the last that were looked at. evaluated: whether the scale's objective
    was. checkpointed_at: the iteration of the checkpoint; None where there is none.
    """

    x: Any = None
    optimizer: Any = None
    latest: Any = None
    last_finite: Any = None
    average: Any = None
    averaged: int = 0
    scale: int = 0
    done: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    evaluated: bool = False
    checkpointed_at: int | None = None

    def result(self, ops, decay: float) -> Any:
        """What the run has come to: the last iterate, or the average. Changes in the state do not change it."""
        return averaged(ops, decay, self.latest, self.average, self.averaged)


def averaged(ops, decay: float, latest, average, count: int):
    """The last iterate where there is no average; else a_t / (1 − d^t) (Kingma and Ba 2015, section 7.2)."""
    return latest if average is None else ops.scale(ops.copy(average), 1 / (1 - decay**count))


@dataclass
class Iterate:
    """What one iteration reports; to be looked at before the next one is asked for.

    Losses that were read, or fetched, stay.
    """

    iteration: int
    num_iterations: int
    share: float
    """Of the run's work that is done, by iterations and pixels, 0 to 1."""
    asynchronous: bool
    """Whether a device goes on by itself: losses fetched now and read after the next iteration cost nothing."""
    _read: Callable = field(repr=False)
    _render: Callable = field(default=None, repr=False)

    def fetch(self) -> None:
        """Start to copy the losses from the device."""
        self._arriving  # noqa: B018

    def expire(self) -> None:
        """Let go of the objective and the picture, whose memory the run needs."""
        self._read = self._render = _expired
        if "losses" in self.__dict__:
            del self._arriving

    @cached_property
    def _arriving(self):
        return self._read()

    @cached_property
    def losses(self) -> dict[str, float]:
        """The weighted parts, evaluated where the iteration began; a device is waited for when this is first read."""
        return self._arriving()

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        return math.fsum(self.losses.values())

    def picture(self) -> Picture:
        """The picture that the iteration ended in, as the result would be."""
        return self._render()

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return self.picture()._repr_png_()


def _expired():
    raise RuntimeError(
        "this iteration is over: ask for an iterate's picture and losses (or `fetch`) before the next one, and for the "
        "last picture with `Run.result`"
    )


class Loop:
    """The iterations of a scale, which change a state; a device's losses are looked at every `check` (CHECK) of them.

    Raises NumericalError where a loss is not finite: `last_finite` of the state is then the last good picture.
    """

    def __init__(self, scale: Scale, state: RunState, check: int | None = None):
        self.scale, self.state, self.check = scale, state, check or CHECK
        self.ops = scale.objective.ops
        self._pending = None

    def __iter__(self) -> Iterator[Iterate]:
        scale, state, setup = self.scale, self.state, self.scale.setup
        before = scale.end - scale.iterations
        if state.done == scale.end:
            return
        settings = setup.optimizer_settings
        state.optimizer = state.optimizer or setup.optimizer.start(self.ops, state.x, scale.iterations, **settings)
        steps = setup.optimizer.iterates(
            scale.objective, state.x, scale.iterations, state=state.optimizer, done=state.done - before, **settings
        )
        with closing(steps):
            for x in steps:
                iterate = self._after(x)
                try:
                    yield iterate
                finally:
                    iterate.expire()
        state.done = scale.end  # SciPy may find nothing more to gain before that

    def _after(self, x):
        """Take what an iteration ended in."""
        state, ops = self.state, self.ops
        self.finish_check()  # of the iteration before: the device has gone on meanwhile
        iteration = state.done + 1
        last = iteration == self.scale.end
        setup = self.scale.setup
        share = setup.share(state.scale, iteration)
        iterate = Iterate(iteration, setup.num_iterations, share, ops.asynchronous, self.scale.objective.read_losses)
        if not ops.asynchronous or iteration < 3 or iteration % self.check == 0 or last:
            iterate.fetch()
            self._pending = iterate, state.latest
        if not ops.asynchronous or iteration < 3 or last:
            self.finish_check()
        average = self._average(x)
        state.latest = ops.copy(x)
        state.average = average
        state.averaged += 1
        state.done = iteration
        state.evaluated = True
        decay, snapshot = setup.options.avg_decay, (state.latest, average, state.averaged)
        iterate._render = lambda: self.scale.render(ops.to_host(averaged(ops, decay, *snapshot)))
        return iterate

    def _average(self, x):
        """The average with one iterate more, or None where there is none."""
        state, ops, decay = self.state, self.ops, self.scale.setup.options.avg_decay
        if not decay:
            return None
        before = ops.zeros(x.shape) if state.average is None else ops.copy(state.average)
        return ops.add_scaled(ops.scale(before, decay), 1 - decay, x)

    def finish_check(self) -> None:
        """Look at the losses that were fetched, if any are."""
        if self._pending is None:
            return
        (iterate, picture), self._pending = self._pending, None
        losses, loss = iterate.losses, iterate.loss
        if not math.isfinite(loss):
            bad = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
            raise NumericalError(
                f"the loss became {loss} at iteration {iterate.iteration} ({bad}); smaller weights, optimizer adam or "
                "lbfgsb, or normalize_gradients may help"
            )
        # The losses belong to the picture before this step, so that one is known to be good.
        self.state.last_finite, self.state.losses = picture, losses
