"""What the groups of a launch may read of each other's numbers: fences and atomics of PTX, for ptx.py.

The pattern that is known (PTX ISA, "Memory Consistency Model"): a thread fences and then does an atomic, which tells
what was written before the fence, by itself or, before a barrier, by its group; whoever does an atomic on that place
later, and then fences, knows it, and so does its group after a barrier. What is known is told on in the same way.
Moments number barriers, fences and atomics of the launch; a write has the moment at which it was made.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

_GROUPS = (1 << 28) - 1  # in a mark: launch << 40 | group << 12 | lane << 1 | flag

MEMBERS = None  # in place of a lane: all of a group


class Order:
    """Knowledge is {(group, lane or MEMBERS): the moment before which all that they wrote may be read}."""

    def __init__(self):
        self.moment = 1
        self._barriers = defaultdict(int)  # the last one's moment by group
        self._known, self._heard = defaultdict(dict), defaultdict(dict)  # by (group, lane or MEMBERS); not fenced yet
        self._told = {}  # what atomics of a thread pass on
        self._places = defaultdict(dict)  # what atomics on a place have passed on

    def barrier(self, groups):
        self.moment += 1
        for group in map(int, groups):
            self._barriers[group] = self.moment
            for thread in [t for t in self._known if t[0] == group and t[1] is not MEMBERS]:
                _add(self._known[group, MEMBERS], self._known.pop(thread))

    def fence(self, group, lane):
        self.moment += 1
        known = self._known[group, lane]
        _add(known, self._heard.pop((group, lane), {}))
        self._told[group, lane] = told = {(group, MEMBERS): self._barriers[group], (group, lane): self.moment}
        _add(told, self._known[group, MEMBERS])
        _add(told, known)

    def atomic(self, group, lane, place):
        self.moment += 1
        _add(self._heard[group, lane], self._places[place])
        _add(self._places[place], self._told.get((group, lane), {}))

    def knows(self, readers, written, moments):
        """For each place whether its reader may read it. readers, written: marks of threads."""
        groups = np.stack([readers >> 12 & _GROUPS, written >> 12 & _GROUPS], axis=1)
        known = np.zeros(len(groups), bool)
        for pair in np.unique(groups, axis=0):
            reader, writer = map(int, pair)
            places = (groups == pair).all(axis=1)
            known[places] = moments[places] < self._known[reader, MEMBERS].get((writer, MEMBERS), 0)
        for i in np.nonzero(~known)[0]:
            (reader, writer), lanes = map(int, groups[i]), (int(mark[i]) >> 1 & 2047 for mark in (readers, written))
            lane, writers_lane = lanes
            known[i] = any(
                moments[i] < self._known[reader, who].get((writer, whose), 0)
                for who in (lane, MEMBERS) for whose in (writers_lane, MEMBERS)
            )  # fmt: skip
        return known


def _add(known, more):
    for key, moment in more.items():
        known[key] = max(known.get(key, 0), moment)
