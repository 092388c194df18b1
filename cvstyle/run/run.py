"""A run as an iterator: the scales one after the other."""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from .. import checkpoint
from ..errors import NumericalError
from ..images import Picture
from . import checkpoint as contents
from .loop import Iterate, Loop, RunState
from .planner import Plan, plan_if_large
from .scale import Scale
from .setup import Setup


@dataclass
class Result:
    """The outcome of a run. stopped: why the run ended early; "" for a complete run. checkpoint: the iteration of the
    checkpoint; None without a checkpoint."""

    picture: Picture
    losses: dict[str, float]
    loss: float
    iterations: int
    seed: int
    stopped: str = ""
    checkpoint: int | None = None

    def _repr_png_(self) -> bytes:
        """The picture, for notebooks."""
        return self.picture._repr_png_()


class Run:
    """An iterator over a run's `Iterate`s, numbered through all scales.

    The run ends by itself, by `stop`, or early at a loss that is not finite. Each call of `next` computes one iteration
    in the calling thread. Ctrl-C during a call ends the run with its last iterate, or raises KeyboardInterrupt before
    the first one. A dropped run frees its memory at once.
    """

    def __init__(self, setup: Setup, planned: Callable[[Plan], None] | None = None):
        """Plans large runs (see `planned` of `stylize`), checks the setup, and prepares the first scale."""
        self.setup = setup
        self.state = RunState()
        self.stopped = ""
        self._result: Result | None = None
        self._carried_result: Picture | None = None  # a scale's result, until the next scale has started
        with setup.net.ops.lock:
            self._prepare(planned)
        # A proxy, since a reference cycle with the generator would keep a dropped run until garbage collection.
        self._iterates = Run._all(weakref.proxy(self))

    def _prepare(self, planned):
        setup = self.setup
        ops = setup.picture_backend
        plan_if_large(setup, planned)
        setup.check_tiles()
        resumed = None
        if setup.options.resume and os.path.exists(setup.options.checkpoint):
            resumed = checkpoint.load(setup.options.checkpoint)
            contents.adopt_choices(setup, resumed[0])
            contents.restore(setup, self.state, *resumed)
        self.scale: Scale | None = Scale(setup, self.state.scale)
        if not resumed:
            self.state.x = ops.asarray(self.scale.start())
            self.state.latest = ops.copy(self.state.x)
        setup.start = None  # frees its memory
        self._loop = Loop(self.scale, self.state)

    def __iter__(self) -> Iterator[Iterate]:
        return self

    def __next__(self) -> Iterate:
        with self._ending_early():
            return next(self._iterates)
        raise StopIteration

    def stop(self, reason: str = "") -> None:
        """End the run after the last iteration and write the checkpoint, if any; no effect on a run that has ended.

        reason: the value of `Result.stopped`.
        """
        if self._iterates.gi_frame is None:
            return
        self._iterates.close()
        self.stopped = reason
        with self._ending_early():
            if self.state.done:
                self._save()
            if not reason:
                self._finish()

    def close(self) -> None:
        """End the run without a checkpoint or a result, and free its memory; an earlier `result` remains."""
        self._iterates.close()
        self.state = RunState()
        self.scale = self._loop = self._carried_result = None

    def result(self) -> Result:
        """End the run and return its result. Raises RuntimeError after `close`."""
        if self._result is None:
            self.stop()
            if self.scale is None:
                raise RuntimeError("the run was closed before its result was asked for: start it again")
            self._result = self._conclude()
        return self._result

    @contextmanager
    def _ending_early(self):
        """A context in which Ctrl-C ends the run with its last iterate and NumericalError with the last good picture;
        without such a picture the exception propagates."""
        try:
            yield
        except KeyboardInterrupt:
            if not self.state.done:
                raise
            self.stopped = "interrupted"
        except NumericalError as error:
            if self.state.done < 2:
                raise
            self.stopped = str(error)
            self.state.latest = self.state.last_finite

    def _conclude(self):
        self._loop = None
        state = self.state
        ops = self.setup.picture_backend
        scale = self.scale
        last_finite = state.last_finite
        latest = state.latest
        final = None if latest is None else latest if latest is last_finite else state.result(ops, self._decay)
        state.optimizer = state.x = state.average = scale.objective = self.scale = None
        ops.trim()  # rendering takes memory for a few more pictures on the host
        picture = self._carried_result if final is None else scale.render(ops.to_host(final))
        stopped = self.stopped
        if not np.isfinite(picture.rgb).all():
            stopped = stopped or "the last step gave values that are not finite"
            picture = scale.render(ops.to_host(last_finite))
        loss = math.fsum(state.losses.values()) if state.done else math.nan
        return Result(picture, state.losses, loss, state.done, self.setup.seed, stopped, state.checkpointed_at)

    @property
    def _decay(self):
        return self.setup.options.avg_decay

    def _all(self):
        """The iterates of all remaining scales."""
        while True:
            for iterate in self._loop:
                if iterate.iteration % self.setup.options.checkpoint_iter == 0:
                    self._save()
                yield iterate
            if self.state.scale + 1 == len(self.setup.schedule):
                break
            self._enlarge()
        self._finish()

    def _finish(self):
        """Read the losses of the last iteration, since the run may have ended between two checks."""
        state = self.state
        if not state.evaluated:
            return
        checked = state.losses
        state.losses = self.scale.objective.losses
        if (state.checkpointed_at, checked) != (state.done, state.losses):
            self._save()

    def _save(self):
        if self.setup.options.checkpoint:
            self._loop.finish_check()
            contents.save(self.setup, self.state)

    def _enlarge(self):
        """Start the next scale from the current result, with the optimiser's resized state."""
        state = self.state
        ops = self.setup.picture_backend
        optimizer = self.setup.optimizer
        x = ops.to_host(state.result(ops, self._decay))
        self._carried_result = self.scale.render(x)
        carried = state.optimizer and optimizer.resize_state(state.optimizer, ops.to_host)
        # A scale's memory is freed before the next scale allocates.
        state.x = state.optimizer = state.latest = state.last_finite = state.average = None
        state.averaged = 0
        state.evaluated = False
        self._loop = self.scale.objective = None
        state.scale += 1
        previous = self.scale
        self.scale = Scale(self.setup, state.scale)
        state.x = ops.asarray(self.scale.continued(x, previous))
        state.last_finite = state.latest = ops.copy(state.x)
        self._carried_result = None
        if carried:
            state.optimizer = optimizer.resize_state(carried, lambda m: ops.asarray(self.scale.enlarged(m)))
        self._loop = Loop(self.scale, state)
