"""A run that can be stepped: its scales one after the other."""

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
from .planner import Plan, plan_where_worth_it
from .scale import Scale
from .setup import Setup


@dataclass
class Result:
    """The outcome of a run. stopped: "" for a whole run, else why it ended early. checkpoint: the iteration that the
    checkpoint is at; None where there is none."""

    picture: Picture
    losses: dict[str, float]
    loss: float
    iterations: int
    seed: int
    stopped: str = ""
    checkpoint: int | None = None

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        return self.picture._repr_png_()


class Run:
    """An iterator of a run's `Iterate`s, counted through all scales.

    It ends by itself, by `stop`, and early where a loss is not finite. An iteration works while `next` does, in the
    thread that calls it. Ctrl-C in it ends the run with its last iterate; before there is one, KeyboardInterrupt is
    raised as elsewhere. A run that is dropped leaves nothing behind.
    """

    def __init__(self, setup: Setup, planned: Callable[[Plan], None] | None = None):
        """Plans where that is worth its time (see `planned` of `stylize`), refuses what cannot be done, and sets up the
        first scale."""
        self.setup, self.state, self.stopped = setup, RunState(), ""
        self._result: Result | None = None
        self._between: Picture | None = None  # the result of a scale, until the next one has its start
        with setup.net.ops.lock:
            self._set_up(planned)
        # In a circle with its generator, a run that is dropped would stay until the garbage collector comes.
        self._iterates = Run._all(weakref.proxy(self))

    def _set_up(self, planned):
        setup = self.setup
        plan_where_worth_it(setup, planned)
        setup.check_tiles()
        resumed = None
        if setup.options.resume and os.path.exists(setup.options.checkpoint):
            resumed = checkpoint.load(setup.options.checkpoint)
            contents.adopt_choices(setup, resumed[0])
            contents.restore(setup, self.state, *resumed)
        self.scale: Scale | None = Scale(setup, self.state.scale)
        if not resumed:
            self.state.x = setup.home.asarray(self.scale.start())
            self.state.latest = setup.home.copy(self.state.x)
        setup.start = None  # its memory
        self._loop = Loop(self.scale, self.state)

    def __iter__(self) -> Iterator[Iterate]:
        return self

    def __next__(self) -> Iterate:
        with self._ended_early():
            return next(self._iterates)
        raise StopIteration

    def stop(self, reason: str = "") -> None:
        """End the run after its last iteration, with a checkpoint where one is kept; of a run that has ended, nothing.

        reason: that of `Result.stopped`.
        """
        if self._iterates.gi_frame is None:
            return
        self._iterates.close()
        self.stopped = reason
        with self._ended_early():
            if self.state.done:
                self._save()
            if not reason:
                self._finish()

    def close(self) -> None:
        """End the run without a checkpoint or a result, and let go of its memory; a result that was asked for stays."""
        self._iterates.close()
        self.state, self.scale, self._loop, self._between = RunState(), None, None, None

    def result(self) -> Result:
        """What the run has come to; it ends with that, if it has not. Raises RuntimeError if it was closed before."""
        if self._result is None:
            self.stop()
            if self.scale is None:
                raise RuntimeError("the run was closed before its result was asked for: start it again")
            self._result = self._conclude()
        return self._result

    @contextmanager
    def _ended_early(self):
        """Within it, Ctrl-C ends the run with its last iterate, and NumericalError with the last good picture; where
        there is none, they are raised."""
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
        state, ops, self._loop = self.state, self.setup.home, None
        good, latest = state.last_finite, state.latest
        final = None if latest is None else latest if latest is good else state.result(ops, self._decay)
        scale, self.scale = self.scale, None
        state.optimizer = state.x = state.average = scale.objective = None
        ops.trim()  # what follows works on the host, with some pictures more
        picture = self._between if final is None else scale.render(ops.to_host(final))
        stopped = self.stopped
        if not np.isfinite(picture.rgb).all():
            stopped = stopped or "the last step gave values that are not finite"
            picture = scale.render(ops.to_host(good))
        loss = math.fsum(state.losses.values()) if state.done else math.nan
        return Result(picture, state.losses, loss, state.done, self.setup.seed, stopped, state.checkpointed_at)

    @property
    def _decay(self):
        return self.setup.options.avg_decay

    def _all(self):
        """The iterates of every scale that is left."""
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
        """Look at the losses of the last iteration: the run may have ended between two checks."""
        if not self.state.evaluated:
            return
        told = self.state.losses
        self.state.losses = self.scale.objective.losses
        if (self.state.checkpointed_at, told) != (self.state.done, self.state.losses):
            self._save()

    def _save(self):
        if self.setup.options.checkpoint:
            self._loop.finish_check()
            contents.save(self.setup, self.state)

    def _enlarge(self):
        """Go to the next scale from the result of this one, with what the optimiser carries along."""
        state, ops, optimizer = self.state, self.setup.home, self.setup.optimizer
        x = ops.to_host(state.result(ops, self._decay))
        self._between = self.scale.render(x)
        carried = state.optimizer and optimizer.carried(state.optimizer, ops.to_host)
        # The memory of a scale is free before the next one's is taken.
        state.x = state.optimizer = state.latest = state.last_finite = state.average = None
        state.averaged, state.evaluated = 0, False
        self._loop = self.scale.objective = None
        state.scale += 1
        self.scale = Scale(self.setup, state.scale)
        state.x = ops.asarray(self.scale.enlarged(x))
        state.last_finite = state.latest = ops.copy(state.x)
        self._between = None
        if carried:
            state.optimizer = optimizer.carried(carried, lambda m: ops.asarray(self.scale.enlarged(m)))
        self._loop = Loop(self.scale, state)
