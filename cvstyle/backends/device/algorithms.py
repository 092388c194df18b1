"""Algorithms for a convolution by the portable kernels, and an estimate of the fastest."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple


class GemmBlock(NamedTuple):
    """Block of a matrix product for one group (product.h): bm outputs × bn positions, tm × tn of them per work-item.

    efficiency: arithmetic per access to local memory, relative to the largest block. on_cpus: speed on a CPU, relative
    to the fastest block (measured with PoCL, docs/performance-gpu.md).
    """

    bm: int
    bn: int
    tm: int
    tn: int
    efficiency: float
    on_cpus: float

    def __str__(self):
        return f"{self.bm}×{self.bn}"

    @property
    def threads(self):
        """Work-items of a group."""
        return self.bm // self.tm * (self.bn // self.tn)

    @property
    def resident(self):
        """Work-items that fit on a multiprocessor at once (product.h reserves registers for this number)."""
        return 384 if self.threads == 64 else 512

    @property
    def macros(self):
        """Macros of the kernels that use the block."""
        return (("BM", self.bm), ("BN", self.bn), ("BK", 8), ("TM", self.tm), ("TN", self.tn))


WORKSPACE = 8 << 20  # floats of workspace for a batch of Winograd tiles, inputs and outputs together, on every device


class Algorithm(NamedTuple):
    """Algorithm of a convolution: a block (GemmBlock or MmaBlock), split-K over the channels, and direct or Winograd.

    splits: number of groups that share the channels. workspace: floats for a batch of Winograd tiles.
    """

    block: object
    splits: int
    winograd: bool = False
    workspace: int = WORKSPACE

    @property
    def reduction_order(self):
        """Key of the order of sums: algorithms with the same key give the same bits."""
        return self.splits, self.winograd, getattr(self.block, "wgmma", False)

    def __str__(self):  # also the text of a choice in checkpoints and in the tuning file
        algorithm = "Winograd, " if self.winograd else ""
        batches = f", slabs of {4 * self.workspace >> 20} MB" if self.workspace != WORKSPACE else ""
        return f"{algorithm}tile {self.block}, {self.splits} share{'s' if self.splits > 1 else ''}{batches}"


GEMM_BLOCKS = (
    GemmBlock(128, 128, 8, 8, 1.0, 0.3), GemmBlock(64, 128, 8, 8, 0.95, 0.5), GemmBlock(64, 64, 8, 8, 0.85, 1.0),
    GemmBlock(32, 128, 4, 8, 0.65, 0.7), GemmBlock(4, 256, 4, 4, 0.2, 0.5),
)  # fmt: skip
SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)
_SPLIT_WORKSPACE = 4 << 20  # most floats of the partial sums of all splits together
_BATCH = 2048  # most tiles in a batch of WORKSPACE: enough to fill every device
_GROWTH = 4  # ratio of one workspace to the next smaller candidate
_MEMORY_SHARE = 256  # the largest workspace takes at most one part in so many of the device's memory
_FULL = 384  # work-items that keep a multiprocessor busy
_TRAFFIC = 40  # multiply-adds that take as long as moving one float through memory
_CACHED = 25  # the same for a float that a GPU's cache holds
_RETAINED = 0.5  # part of the cache that counts as holding data (each half of a Hopper's may have a copy of its own)
_LAUNCH = 400_000  # multiply-adds of a multiprocessor between one launch and the next on a GPU (2 to 3 µs)
_MOST = 8  # algorithms to try
_WORTH = 1.7  # largest estimated time of an algorithm to try, relative to the best


def best_algorithm(*shape, **options):
    """The `Algorithm` of the least estimated time; see `ranked_algorithms`."""
    return ranked_algorithms(*shape, **options)[0]


@cache
def ranked_algorithms(
    outputs, positions, channels, taps, repeats, multiprocessors, splits=SPLITS, blocks=0, order=None, cpu=False,
    memory=0, cache_size=0,
):  # fmt: skip
    """The algorithms worth trying, by estimated time.

    outputs, channels: sizes of one of `repeats` products. blocks: number of Winograd tiles of 4×4 outputs, 0 where the
    algorithm does not apply; where it applies, the result has its best variant, with workspaces of every size, and the
    best direct algorithm too, since the estimate knows little of the device. order: a prescribed
    `Algorithm.reduction_order`, or None. cpu: whether the device is a CPU. memory, cache_size: bytes of the device.
    """
    splits = splits if order is None else order[:1]
    direct = list(_direct_estimates(outputs, positions, channels, taps, repeats, multiprocessors, splits, cpu))
    if not blocks or (order and not order[1]):
        return worth_trying(direct)
    variants = {}  # algorithm without its workspace → (time, algorithm) for each workspace
    for split in splits:
        for workspace in _workspaces(0 if cpu else memory):
            batch = tile_batch(repeats * channels, repeats * outputs, split, blocks, workspace)
            estimates = _winograd_estimates(
                outputs, channels, repeats, multiprocessors, split, blocks, cpu, batch, cache_size
            )
            for time, algorithm in estimates:
                variants.setdefault(algorithm[:3], []).append((time, algorithm._replace(workspace=workspace)))
            if batch >= blocks:
                break
    winograd = [min(estimates, key=lambda pair: pair[0]) for estimates in variants.values()]
    best = worth_trying(winograd)[0]
    others = [algorithm for _, algorithm in variants[best[:3]]]
    if order:
        return list(dict.fromkeys((*worth_trying(winograd), *others)))
    return list(dict.fromkeys((*worth_trying(direct + winograd), worth_trying(direct)[0], best, *others)))


def _workspaces(memory):
    """Candidate workspaces on a device of this many bytes: one, or several on a large device.

    A larger workspace takes fewer launches, fills the multiprocessors better and reads filters less often; a smaller
    one stays in the cache between its three kernels. The results are the same.
    """
    candidates = [WORKSPACE]
    while 4 * candidates[-1] * _GROWTH * _MEMORY_SHARE <= memory:
        candidates.append(candidates[-1] * _GROWTH)
    return candidates


def _winograd_estimates(outputs, channels, repeats, multiprocessors, split, blocks, cpu, batch, cache_size):
    """(time, algorithm) with this batch of tiles."""
    count = -(-blocks // batch)
    all_channels = repeats * channels
    all_outputs = repeats * outputs
    transformed = 36 * (all_channels + split * all_outputs)  # floats of a tile, written by one kernel for the next
    retained = 0 if cpu else min(1, _RETAINED * cache_size / (4 * transformed * batch))
    rate = (retained * _CACHED + (1 - retained) * _TRAFFIC) / multiprocessors
    of_product = 36 * all_channels * outputs * _TRAFFIC / multiprocessors + transformed * batch * rate
    of_transforms = blocks * (16 * (all_channels + all_outputs) * _TRAFFIC / multiprocessors + transformed * rate)
    launches = 0 if cpu else 3 * count * _LAUNCH
    products = _direct_estimates(
        outputs, batch, channels, 1, 36 * repeats, multiprocessors, (split,), cpu, alone=False
    )
    for time, algorithm in products:
        yield count * max(time, of_product) + of_transforms + launches, algorithm._replace(winograd=True)


def _direct_estimates(outputs, positions, channels, taps, repeats, multiprocessors, splits, cpu, alone=True):
    """(time, algorithm) of a product: multiply-adds of the busiest multiprocessor, slowed where too few work-items hide
    its latency; for a product that is a convolution by itself (`alone`) also launches and traffic of the splits."""
    chunks = -(-channels // 8)
    for block in GEMM_BLOCKS:
        groups = -(-outputs // block.bm) * -(-positions // block.bn) * repeats
        for split in splits:
            large = alone and len(splits) > 1 and split * outputs * positions * repeats > _SPLIT_WORKSPACE
            if split > 1 and (split > chunks or large):
                break
            waves = -(-groups * split // multiprocessors)
            resident = min(waves * block.threads, block.resident)
            work = waves * block.bm * block.bn * -(-chunks // split) * 8 * taps
            time = work / block.on_cpus if cpu else work / (block.efficiency * min(1, resident / _FULL))
            if split > 1 and alone:
                time += (2 * split + 1) * outputs * positions * repeats * _TRAFFIC / multiprocessors
            if alone and not cpu:
                time += (1 + (split > 1)) * _LAUNCH
            yield time, Algorithm(block, split)


def worth_trying(estimates):
    """The algorithms worth trying among pairs (estimated time, algorithm), best first."""
    estimates = sorted(estimates, key=lambda pair: pair[0])
    return [algorithm for time, algorithm in estimates[:_MOST] if time <= _WORTH * estimates[0][0]]


def tile_batch(channels, outputs, splits, blocks, workspace=WORKSPACE):
    """Number of Winograd tiles in a batch: a multiple of four, small enough for the workspace and for even batches."""
    step = 128  # tiles that a group of the product computes
    fitting = max(4, workspace // (36 * (channels + splits * outputs)) // 4 * 4)
    largest = min(_BATCH * max(1, workspace // WORKSPACE), fitting)
    if blocks <= largest:
        return -(-blocks // 4) * 4
    largest = largest // step * step or largest
    even = -(-blocks // -(-blocks // largest))
    return min(largest, -(-even // step) * step)
