"""The iterations of one scale: iterate, check the losses, average, report."""

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

CHECK = 50  # iterations between checks of a device's losses for NaN and infinity


@dataclass
class RunState:
    """The variables of a run; pictures are arrays (1, 3, H, W) of the picture backend.

    x: the picture that the optimiser changes. optimizer: the optimiser's state. latest: the last iterate. last_finite:
    the last iterate whose loss is known to be finite. average: the running average of the scale's iterates, without
    bias correction; averaged: the number of iterates in it. scale: index. done: iterations of all scales together.
    losses: the last checked losses. evaluated: True after an evaluation of the scale's objective. checkpointed_at: the
    iteration of the checkpoint; None without a checkpoint.
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
        """The last iterate, or the average; later changes of the state do not change it."""
        return bias_corrected(ops, decay, self.latest, self.average, self.averaged)


def bias_corrected(ops, decay: float, latest, average, count: int):
    """The average of `count` iterates, a_t / (1 − d^t) (Kingma and Ba 2015, section 7.2); without one, `latest`."""
    return latest if average is None else ops.scale(ops.copy(average), 1 / (1 - decay**count))


@dataclass
class Iterate:
    """The report of one iteration, to be read before the next iterate is requested.

    Losses that were read, or fetched, remain readable.
    """

    iteration: int
    num_iterations: int
    share: float
    """The completed share of the run's work, by iterations and pixels, 0 to 1."""
    asynchronous: bool
    """True on a device that computes ahead: losses fetched now and read after the next iteration cost nothing."""
    _losses_async: Callable = field(repr=False)
    _render: Callable = field(default=None, repr=False)

    def fetch(self) -> None:
        """Start copying the losses from the device."""
        self._future  # noqa: B018

    def expire(self) -> None:
        """Release the objective and the picture, whose memory the run needs."""
        self._losses_async = self._render = _expired
        if "losses" in self.__dict__:
            del self._future

    @cached_property
    def _future(self):
        return self._losses_async()

    @cached_property
    def losses(self) -> dict[str, float]:
        """The weighted parts at the start of the iteration; the first read waits for the device."""
        return self._future()

    @property
    def loss(self) -> float:
        """The sum of the losses."""
        return math.fsum(self.losses.values())

    def picture(self) -> Picture:
        """The picture after the iteration, in the form of the result."""
        return self._render()

    def _repr_png_(self) -> bytes:
        """The picture, for notebooks."""
        return self.picture()._repr_png_()


def _expired():
    raise RuntimeError(
        "this iteration is over: ask for an iterate's picture and losses (or `fetch`) before the next one, and for the "
        "last picture with `Run.result`"
    )


class Loop:
    """The iterations of a scale. A loop changes the run's state and checks a device's losses every `check` iterations.

    Raises NumericalError for a loss that is not finite; `last_finite` of the state is then the last good picture.
    """

    def __init__(self, scale: Scale, state: RunState, check: int | None = None):
        self.scale = scale
        self.state = state
        self.check = check or CHECK
        self.ops = scale.objective.ops
        self._pending_check = None

    def __iter__(self) -> Iterator[Iterate]:
        scale = self.scale
        state = self.state
        if state.done == scale.last_iteration:
            return
        optimizer = scale.setup.optimizer
        settings = scale.setup.optimizer_settings
        state.optimizer = state.optimizer or optimizer.initial_state(self.ops, state.x, scale.iterations, **settings)
        done = state.done - scale.last_iteration + scale.iterations
        pictures = optimizer.iterates(
            scale.objective, state.x, scale.iterations, state=state.optimizer, done=done, **settings
        )
        with closing(pictures):
            for x in pictures:
                iterate = self._finish_iteration(x)
                try:
                    yield iterate
                finally:
                    iterate.expire()
        state.done = scale.last_iteration  # SciPy may stop early, without further improvement

    def _finish_iteration(self, x):
        """Update the state with an iteration's picture; returns the iterate."""
        state = self.state
        ops = self.ops
        self.finish_check()  # of the previous iteration, while the device has computed the current one
        iteration = state.done + 1
        last = iteration == self.scale.last_iteration
        setup = self.scale.setup
        share = setup.work_share(state.scale, iteration)
        iterate = Iterate(iteration, setup.num_iterations, share, ops.asynchronous, self.scale.objective.losses_async)
        if not ops.asynchronous or iteration < 3 or iteration % self.check == 0 or last:
            iterate.fetch()
            self._pending_check = iterate, state.latest
        if not ops.asynchronous or iteration < 3 or last:
            self.finish_check()
        average = self._updated_average(x)
        state.latest = ops.copy(x)
        state.average = average
        state.averaged += 1
        state.done = iteration
        state.evaluated = True
        snapshot = setup.options.avg_decay, state.latest, average, state.averaged
        iterate._render = lambda: self.scale.render(ops.to_host(bias_corrected(ops, *snapshot)))
        return iterate

    def _updated_average(self, x):
        """The average with x included; None without averaging."""
        ops = self.ops
        average = self.state.average
        decay = self.scale.setup.options.avg_decay
        if not decay:
            return None
        average = ops.zeros(x.shape) if average is None else ops.copy(average)
        return ops.add_scaled(ops.scale(average, decay), 1 - decay, x)

    def finish_check(self) -> None:
        """Check the losses of the pending check, if there is one."""
        if self._pending_check is None:
            return
        iterate, picture = self._pending_check
        self._pending_check = None
        losses = iterate.losses
        loss = iterate.loss
        if not math.isfinite(loss):
            bad = ", ".join(name for name, value in losses.items() if not math.isfinite(value))
            raise NumericalError(
                f"the loss became {loss} at iteration {iterate.iteration} ({bad}); smaller weights, optimizer adam or "
                "lbfgsb, or normalize_gradients may help"
            )
        # The losses belong to the picture before the step, so that picture is known to be good.
        self.state.last_finite = picture
        self.state.losses = losses
